#!/usr/bin/env node
// Reads kf-worker's results from a queue of its own and prints a line for each.
//
//   consume.mjs                      until Ctrl-C
//   consume.mjs --count 3 --json     ends after three results, each as one line of JSON
//
// AMQP_URL names the broker, KF_PREFIX the first part of the exchanges' names (kf).
// Exit code: 0 after --count results or when told to end, 1 where the broker refuses, 2 wrong arguments.

import { EventEmitter, on } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import amqp from 'amqplib';

const AMQP_URL = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f';
const PREFIX = process.env.KF_PREFIX ?? 'kf';
// How often the work for one event may fail before the event is put aside for a person.
const TRIES = 3;

/**
 * The ids of events whose work is done.
 *
 * A real consumer keeps them in its database, written in the same transaction as the work: only then is an event whose
 * acknowledgement was lost not worked on twice. Here they are forgotten at the end, and the oldest after 10,000.
 */
class RecentIds extends Set {
  add(id) {
    super.add(id);
    if (this.size > 10_000) this.delete(this.values().next().value);
    return this;
  }
}

class Consumer {
  constructor({ queue, declare, json, count }) {
    Object.assign(this, { queue, declare, json, left: count, done: new RecentIds() });
  }

  /** One session after another, until `count` results are worked on. Throws only what can't mend itself. */
  async run() {
    this.pause = 1;
    for (;;) {
      try {
        return await this.session();
      } catch (error) {
        const reason = error.cause ?? error;
        // An exchange that isn't there will be once the worker was; other refusals stay as they are.
        if ([403, 406].includes(reason.code)) throw new Error(`The broker refused it: ${reason.message}`);
        if (/ACCESS_REFUSED|ConnectionOpenOk/.test(reason.message)) {
          throw new Error('The broker refused the login: check user, password and vhost in AMQP_URL.');
        }
        // Spread out, so that consumers that lost the broker together don't come back together.
        const now = this.pause * (0.5 + Math.random() / 2);
        log(`${reason.message || reason.code}; again in ${now.toFixed(1)} s`);
        await sleep(now * 1000);
        this.pause = Math.min(this.pause * 2, 30);
      }
    }
  }

  async session() {
    const connection = await amqp.connect(AMQP_URL, { timeout: 10_000 });
    const lost = new AbortController();
    connection.on('error', (error) => lost.abort(error));
    connection.on('close', () => lost.abort(new Error('the connection was lost')));
    try {
      const channel = await connection.createChannel();
      channel.on('error', (error) => lost.abort(error));
      // What was sent to us and isn't acknowledged: bounded, or a long queue would end in our memory.
      await channel.prefetch(20);
      if (this.declare) await declare(channel, this.queue);
      const inbox = new EventEmitter();
      // One after another, in the order in which they came.
      const messages = on(inbox, 'message', { signal: lost.signal });
      await channel.consume(this.queue, (message) => inbox.emit('message', message));
      this.pause = 1;
      log(`waiting for results in ${this.queue}`);
      for await (const [message] of messages) {
        if (message === null) throw new Error('the broker ended the subscription');
        const { exchange, routingKey } = message.fields;
        // Whoever names our queue as `reply_to` has replies put into it, by another exchange.
        if (exchange === `${PREFIX}.events` && (await this.work(message.content))) {
          // Only now, when the work is done: an event that was acknowledged before it would die with this program.
          channel.ack(message);
        } else {
          log(`put aside: ${routingKey}, from the exchange '${exchange}'`);
          channel.reject(message, false);
        }
        if (this.left === 0) {
          // Closing the connection alone would throw away acknowledgements that are not on the wire yet.
          await channel.close();
          return;
        }
      }
    } finally {
      // A connection that is gone already needs no farewell.
      await connection.close().catch(() => {});
    }
  }

  /** False where the event is to be put aside: sent round again it would only come back, for ever. */
  async work(content) {
    let id, line;
    try {
      const event = JSON.parse(content);
      const words = inWords(event.data);
      id = event.id;
      if (typeof id !== 'string') throw new TypeError();
      line = this.json ? JSON.stringify(event) : `${id}  ${words}`;
    } catch (error) {
      log(`not a result of kf-worker (${error.name})`);
      return false;
    }
    if (this.done.has(id)) return true;
    if (!(await tryToHandle(id, line))) return false;
    this.done.add(id);
    if (this.left !== undefined) this.left -= 1;
    return true;
  }
}

async function declare(channel, queue) {
  const parked = `${queue}-parked`;
  // Durable and replicated queues, so that results wait for us while we are away. What is put aside goes through an exchange
  // of our own: whoever may write to the default one can write to every queue.
  await channel.assertExchange(parked, 'fanout', { durable: true });
  await channel.assertQueue(parked, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(parked, parked, '');
  await channel.assertQueue(queue, {
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      // What we put aside, and an event that ended this program 20 times, goes there and not round and round.
      'x-delivery-limit': 20,
      'x-dead-letter-exchange': parked,
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
    },
  });
  // `add.*`, `*.failed` or several bindings would choose; # is all.
  await channel.bindQueue(queue, `${PREFIX}.events`, '#');
}

async function tryToHandle(id, line) {
  for (let failures = 0; failures < TRIES; ) {
    try {
      await handle(line);
      return true;
    } catch (error) {
      if (error.syscall) {
        // What the work needs is away, such as its database: no fault of the event's, so it waits.
        log(`${id} waits: ${error.message}`);
      } else {
        failures += 1;
        log(`${id} failed ${failures} of ${TRIES} times: ${error.message}`);
      }
    }
    await sleep(2000);
  }
  return false;
}

/** The work: yours would write to your books. */
async function handle(line) {
  await new Promise((resolve, reject) => process.stdout.write(`${line}\n`, (error) => (error ? reject(error) : resolve())));
}

/** `add test1@test  succeeded  created`; what could not be read of a wrong command is left out of its result. */
function inWords({ action = '?', kf_account = '?', status, effect, error }) {
  return `${action} ${kf_account}  ${status}  ${status === 'succeeded' ? effect : error.reason}`;
}

function log(text) {
  console.error(`consume: ${text}`);
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      // A queue of yours.
      queue: { type: 'string', default: `${PREFIX}-hr-results` },
      // The queue is there and bound: an administrator made it.
      'no-declare': { type: 'boolean', default: false },
      count: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  if (!URL.canParse(AMQP_URL)) throw new Error('AMQP_URL is not of the form amqp://user:password@host:5672/vhost (%2f is the vhost /).');
  const count = values.count === undefined ? undefined : Number(values.count);
  if (Number.isNaN(count)) throw new Error('--count wants a number');
  return { queue: values.queue, declare: !values['no-declare'], json: values.json, count };
}

// Whatever is not acknowledged by then comes again.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
process.stdout.on('error', () => {
  log('nobody reads standard output any more');
  process.exit(1);
});

let settings;
try {
  settings = readArguments();
} catch (error) {
  console.error(error.message);
  process.exit(2);
}
try {
  await new Consumer(settings).run();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
