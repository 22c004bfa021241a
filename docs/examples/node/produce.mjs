#!/usr/bin/env node
// Sends kf-worker one command so that it can't get lost, and with --wait shows its result.
//
//   produce.mjs add test1@test 客服1 --id hire-4711 --revision 1 --wait
//   produce.mjs delete test1@test --id leave-4711 --revision 2
//
// AMQP_URL names the broker, KF_PREFIX the first part of the exchanges' names (kf).
// Exit code: 0 confirmed (with --wait: succeeded), 1 not so, 2 wrong arguments, 69 the broker can't be reached.

import { randomUUID } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import amqp from 'amqplib';

const AMQP_URL = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f';
const PREFIX = process.env.KF_PREFIX ?? 'kf';

/** What went wrong, in a sentence that says what to do; never with AMQP_URL, which holds a password. */
export class Failure extends Error {
  constructor(sentence, exitCode = 1) {
    super(sentence);
    this.exitCode = exitCode;
  }
}

/**
 * Resolves once the broker has the command safely; with `waitSeconds` once the worker has answered too, to its message.
 * `message` is a command in one of the forms that kf-worker takes: { commandId, kfAccount, contentType, headers, body }.
 */
export async function send(message, waitSeconds) {
  const connection = await connect();
  let confirmed = false;
  try {
    const channel = await connection.createConfirmChannel();
    const broken = brokenOff(connection, channel);
    let replyTo;
    if (waitSeconds !== undefined) {
      // Declared before the command is sent, so that no answer can come too early; gone with the connection.
      // A name that begins with `kf.` would be the worker's own, and is ignored.
      replyTo = `${PREFIX}-replies-${randomUUID()}`;
      await channel.assertQueue(replyTo, { exclusive: true, durable: false });
    }
    await Promise.race([publish(channel, message, replyTo), broken]);
    confirmed = true;
    return replyTo && (await within(waitSeconds, Promise.race([receive(channel, replyTo, message.commandId), broken])));
  } catch (error) {
    throw explained(error, message.commandId, confirmed);
  } finally {
    // Neither a connection that is gone nor a broker that takes nothing answers a farewell.
    await within(5, connection.close()).catch(() => {});
  }
}

async function connect() {
  if (!URL.canParse(AMQP_URL)) {
    throw new Failure('AMQP_URL is not of the form amqp://user:password@host:5672/vhost (%2f is the vhost /).', 2);
  }
  const { hostname, port } = new URL(AMQP_URL);
  try {
    return await amqp.connect(AMQP_URL, { timeout: 10_000 });
  } catch (error) {
    if (/ACCESS_REFUSED|ConnectionOpenOk/.test(error.message)) {
      throw new Failure('The broker refused the login: check user, password and vhost in AMQP_URL.');
    }
    throw new Failure(`The broker can't be reached (${hostname}:${port || 5672}), and nothing was sent: check AMQP_URL.`, 69);
  }
}

/** Rejects with the broker's own reason when it closes the channel or the connection. */
function brokenOff(connection, channel) {
  const broken = new Promise((_, reject) => {
    channel.on('error', reject);
    connection.on('error', reject);
    connection.on('close', () => reject(new Error('the connection was lost')));
  });
  // It is awaited only while there is something to wait for.
  broken.catch(() => {});
  return broken;
}

async function publish(channel, { commandId, kfAccount, contentType, headers, body }, replyTo) {
  let returned = false;
  channel.on('return', () => (returned = true));
  // The account as routing key keeps its commands in order.
  channel.publish(`${PREFIX}.commands`, kfAccount, Buffer.from(body), {
    contentType,
    persistent: true,
    // A command that no queue takes comes back, instead of being dropped in silence.
    mandatory: true,
    messageId: commandId,
    // RabbitMQ checks it against the login, so that the worker's [[publisher]] rules can rest on it.
    userId: decodeURIComponent(new URL(AMQP_URL).username) || 'guest',
    // A real producer gives the time of the event in its own books, the same at each try.
    timestamp: Math.floor(Date.now() / 1000),
    headers,
    ...(replyTo && { replyTo, correlationId: commandId }),
  });
  // Without it a command that the broker loses is lost in silence. A broker that is out of memory or disk confirms nothing:
  // better to fail then than to hang.
  await within(30, channel.waitForConfirms());
  if (returned) {
    throw new Failure(`No queue takes commands for the prefix ${PREFIX}: start the worker once, which declares it, or set KF_PREFIX.`);
  }
}

function receive(channel, queue, commandId) {
  return new Promise((resolve, reject) => {
    const take = (message) => message?.properties.correlationId === commandId && resolve(message);
    // This queue ends with the connection, so that an acknowledgement would save nothing.
    channel.consume(queue, take, { noAck: true }).catch(reject);
  });
}

async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came within ${seconds} s`)), seconds * 1000);
  });
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function explained(error, commandId, confirmed) {
  if (error instanceof Failure) return error;
  const again = `Send ${commandId} again with the same id and content`;
  if (confirmed) {
    return new Failure(`The broker has the command, but ${error.message}. Its result goes to ${PREFIX}.events too. ${again} to be told.`);
  }
  if (error.code === 404) {
    return new Failure(`There is no exchange ${PREFIX}.commands: start the worker once, which declares it, or set KF_PREFIX.`);
  }
  if (error.code === 403 || error.code === 406) return new Failure(`The broker refused it: ${error.message}`);
  // Sending it again is safe: where the broker had it after all, the repeat does nothing.
  return new Failure(`The broker did not confirm the command (${error.message}). ${again}.`);
}

/** The command line, the same for plain commands and CloudEvents; `words` are what stands before the options. */
export function readArguments(args) {
  const options = {
    id: { type: 'string' },
    revision: { type: 'string' },
    meta: { type: 'string' },
    wait: { type: 'boolean', default: false },
    timeout: { type: 'string', default: '60' },
    json: { type: 'boolean', default: false },
  };
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const [action, kfAccount, nickname, ...more] = positionals;
  const complete = action === 'add' ? nickname !== undefined : action === 'delete' && nickname === undefined;
  if (!complete || !kfAccount || more.length > 0 || !values.id) {
    throw new Failure('usage: add KF_ACCOUNT NICKNAME --id ID | delete KF_ACCOUNT --id ID\n'
      + '       [--revision N] [--meta JSON] [--wait] [--timeout SECONDS] [--json]', 2);
  }
  // Fields that were not given are left out: null is not the same, and the worker refuses unknown ones.
  const fields = {
    kf_account: kfAccount,
    ...(nickname !== undefined && { nickname }),
    ...(values.revision !== undefined && { revision: wholeNumber(values.revision) }),
    ...(values.meta !== undefined && { meta: JSON.parse(values.meta) }),
  };
  return { ...values, timeout: Number(values.timeout), action, fields };
}

function wholeNumber(text) {
  const number = Number(text);
  // Beyond 2^53 a number of JavaScript's would silently be another one.
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number)) throw new Failure('--revision wants a whole number up to 2^53-1', 2);
  return number;
}

/** Continues the caller's trace; a tracing library would inject the same header. */
export function traceHeaders() {
  return process.env.TRACEPARENT ? { traceparent: process.env.TRACEPARENT } : {};
}

/** `hire-4711  add test1@test  succeeded  created`; what could not be read is left out of a result. */
export function inWords({ command_id, action = '?', kf_account = '?', status, effect, error }) {
  const why = error ? `${error.reason}: ${error.detail}` : effect;
  return `${command_id}  ${action} ${kf_account}  ${status}  ${why}`;
}

/** Runs a program that gives its exit code, and tells what went wrong. */
export async function run(main) {
  try {
    // Not by process.exitCode: a connection that could not be closed would keep the program alive.
    process.exit(await main(process.argv.slice(2)));
  } catch (error) {
    const wrongArguments = error.code?.startsWith?.('ERR_PARSE_ARGS') || error instanceof SyntaxError;
    if (!(error instanceof Failure) && !wrongArguments) throw error;
    console.error(error.message);
    process.exit(error.exitCode ?? 2);
  }
}

async function main(args) {
  const { id, action, fields, wait, timeout, json } = readArguments(args);
  const message = {
    commandId: id,
    kfAccount: fields.kf_account,
    contentType: 'application/json',
    headers: traceHeaders(),
    body: JSON.stringify({ command_id: id, action, ...fields }),
  };
  const reply = await send(message, wait ? timeout : undefined);
  if (!reply) {
    console.log(json ? JSON.stringify({ command_id: id, confirmed: true }) : `${id}  confirmed`);
    return 0;
  }
  const event = JSON.parse(reply.content);
  console.log(json ? JSON.stringify(event) : inWords(event.data));
  return event.data.status === 'succeeded' ? 0 : 1;
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await run(main);
