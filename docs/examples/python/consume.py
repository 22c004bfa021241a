#!/usr/bin/env python3
"""Reads kf-worker's results from a queue of its own and prints a line for each.

    consume.py                      until Ctrl-C
    consume.py --count 3 --json     ends after three results, each as one line of JSON

AMQP_URL names the broker, KF_PREFIX the first part of the exchanges' names (kf).
Exit code: 0 after --count results or when told to end, 1 where the broker refuses, 2 wrong arguments.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import OrderedDict
from typing import Any

import pika
from pika import exceptions

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
PREFIX = os.environ.get("KF_PREFIX", "kf")

# How often the work for one event may fail before the event is put aside for a person.
TRIES = 3


class RecentIds:
    """The ids of events whose work is done.

    A real consumer keeps them in its database, written in the same transaction as the work: only then is an event whose
    acknowledgement was lost not worked on twice. Here they are forgotten at the end, and the oldest after 10,000.
    """

    def __init__(self) -> None:
        self.ids: OrderedDict[str, None] = OrderedDict()

    def add(self, event_id: str) -> None:
        self.ids[event_id] = None
        if len(self.ids) > 10_000:
            self.ids.popitem(last=False)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self.ids


class Consumer:
    def __init__(self, queue: str, declare: bool, as_json: bool, count: int | None) -> None:
        self.queue, self.declare, self.as_json, self.left = queue, declare, as_json, count
        self.done = RecentIds()

    def run(self) -> None:
        """One session after another, until `count` results are worked on; ends the program where only a person can help."""
        try:
            parameters = pika.URLParameters(AMQP_URL)
        except (ValueError, IndexError):
            log("AMQP_URL is not of the form amqp://user:password@host:5672/vhost (%2f is the vhost /).")
            sys.exit(2)
        pause = 1.0
        while True:
            try:
                with pika.BlockingConnection(parameters) as connection:
                    channel = connection.channel()
                    self.subscribe(channel)
                    pause = 1.0
                    if self.session(connection, channel):
                        return
                    lost = "the broker ended the subscription"
            except BrokenPipeError:
                sys.exit("Nobody reads standard output any more.")
            except (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError):
                sys.exit("The broker refused the login: check user, password and vhost in AMQP_URL.")
            except exceptions.ChannelClosedByBroker as error:
                # The exchange is there once the worker was; other refusals stay as they are.
                if error.reply_code != 404:
                    sys.exit(f"The broker refused it: {error.reply_code} {error.reply_text}")
                lost = error.reply_text
            except (exceptions.AMQPError, OSError) as error:
                lost = f"no connection ({type(error).__name__})"
            # Spread out, so that consumers that lost the broker together don't come back together.
            pause_now = pause * random.uniform(0.5, 1)
            log(f"{lost}; again in {pause_now:.1f} s")
            time.sleep(pause_now)
            pause = min(pause * 2, 30)

    def subscribe(self, channel: Any) -> None:
        # What was sent to us and isn't acknowledged: bounded, or a long queue would end in our memory.
        channel.basic_qos(prefetch_count=20)
        if self.declare:
            # Durable and replicated queues, so that results wait for us while we are away. What is put aside goes
            # through an exchange of our own: whoever may write to the default one can write to every queue.
            parked = f"{self.queue}-parked"
            channel.exchange_declare(parked, "fanout", durable=True)
            channel.queue_declare(parked, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(parked, parked)
            arguments = {
                "x-queue-type": "quorum",
                # What we put aside, and an event that ended this program 20 times, goes there and not round and round.
                "x-delivery-limit": 20,
                "x-dead-letter-exchange": parked,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            channel.queue_declare(self.queue, durable=True, arguments=arguments)
            # `add.*`, `*.failed` or several bindings would choose; # is all.
            channel.queue_bind(self.queue, f"{PREFIX}.events", "#")

    def session(self, connection: pika.BlockingConnection, channel: Any) -> bool:
        """Works until the broker ends the subscription; true once `count` is reached."""
        log(f"waiting for results in {self.queue}")
        for method, _properties, body in channel.consume(self.queue):
            # Whoever names our queue as `reply_to` has replies put into it, by another exchange.
            from_the_worker = method.exchange == f"{PREFIX}.events"
            if from_the_worker and self.work(connection, body):
                # Only now, when the work is done: an event that was acknowledged before it would die with this program.
                channel.basic_ack(method.delivery_tag)
            else:
                log(f"put aside: {method.routing_key}, from the exchange {method.exchange!r}")
                channel.basic_reject(method.delivery_tag, requeue=False)
            if self.left == 0:
                return True
        return False

    def work(self, connection: pika.BlockingConnection, body: bytes) -> bool:
        """False where the event is to be put aside: sent round again it would only come back, for ever."""
        try:
            event = json.loads(body)
            event_id, words = event["id"], in_words(event["data"])
            if not isinstance(event_id, str):
                raise TypeError
            line = json.dumps(event, ensure_ascii=False) if self.as_json else f"{event_id}  {words}"
        # Whatever it is, it must not end this program: it would be the first to come again.
        except Exception as error:
            log(f"not a result of kf-worker ({type(error).__name__})")
            return False
        if event_id in self.done:
            return True
        if not try_to_handle(connection, event_id, line):
            return False
        self.done.add(event_id)
        if self.left is not None:
            self.left -= 1
        return True


def try_to_handle(connection: pika.BlockingConnection, event_id: str, line: str) -> bool:
    failures = 0
    while failures < TRIES:
        try:
            handle(line)
            return True
        except BrokenPipeError:
            raise
        except OSError as error:
            # What the work needs is away (yours would catch its database's error here): no fault of the event's, so it waits.
            log(f"{event_id} waits: {error}")
        except Exception as error:
            failures += 1
            log(f"{event_id} failed {failures} of {TRIES} times: {error}")
        # Not time.sleep, which would keep the connection from telling the broker that it lives.
        connection.sleep(2)
    return False


def handle(line: str) -> None:
    """The work: yours would write to your books."""
    print(line, flush=True)


def in_words(data: dict[str, Any]) -> str:
    """`add test1@test  succeeded  created`; what could not be read of a wrong command is left out of its result."""
    why = data["effect"] if data["status"] == "succeeded" else data["error"]["reason"]
    return f"{data.get('action', '?')} {data.get('kf_account', '?')}  {data['status']}  {why}"


def log(text: str) -> None:
    print(f"consume: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queue", default=f"{PREFIX}-hr-results", help="a queue of yours (%(default)s)")
    parser.add_argument("--no-declare", action="store_true", help="the queue is there and bound: an administrator made it")
    parser.add_argument("--count", type=int, metavar="N", help="end after N results")
    parser.add_argument("--json", action="store_true", help="each result as one line of JSON")
    arguments = parser.parse_args()
    # Whatever is not acknowledged by then comes again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        Consumer(arguments.queue, not arguments.no_declare, arguments.json, arguments.count).run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
