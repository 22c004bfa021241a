#!/usr/bin/env python3
"""Sends kf-worker one command so that it can't get lost, and with --wait shows its result.

    produce.py add test1@test 客服1 --id hire-4711 --revision 1 --wait
    produce.py delete test1@test --id leave-4711 --revision 2

AMQP_URL names the broker, KF_PREFIX the first part of the exchanges' names (kf).
Exit code: 0 confirmed (with --wait: succeeded), 1 not so, 2 wrong arguments, 69 the broker can't be reached.
"""

import argparse
import json
import os
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Any

import pika
from pika import exceptions

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
PREFIX = os.environ.get("KF_PREFIX", "kf")


@dataclass
class Message:
    """A command in one of the forms that kf-worker takes: plain JSON here, CloudEvents in cloud_events.py."""

    command_id: str
    kf_account: str
    content_type: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    properties: pika.BasicProperties
    body: bytes


class Failure(Exception):
    """What went wrong, in a sentence that says what to do; never with AMQP_URL, which holds a password."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def send(message: Message, wait_seconds: float | None = None) -> Reply | None:
    """Returns once the broker has the command safely; with `wait_seconds` once the worker has answered too."""
    # A name that begins with `kf.` would be the worker's own, and is ignored.
    reply_to = None if wait_seconds is None else f"{PREFIX}-replies-{uuid.uuid4().hex}"
    with connect() as connection:
        channel = publish(connection, message, reply_to)
        return None if reply_to is None else receive(channel, reply_to, message.command_id, wait_seconds)


def connect() -> pika.BlockingConnection:
    try:
        parameters = pika.URLParameters(AMQP_URL)
    except (ValueError, IndexError) as error:
        raise Failure("AMQP_URL is not of the form amqp://user:password@host:5672/vhost (%2f is the vhost /).", 2) from error
    # A broker that is out of memory or disk says so and takes nothing: better to fail than to hang.
    parameters.blocked_connection_timeout = 30
    try:
        return pika.BlockingConnection(parameters)
    except (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError) as error:
        raise Failure("The broker refused the login: check user, password and vhost in AMQP_URL.") from error
    except (exceptions.AMQPConnectionError, OSError) as error:
        place = f"{parameters.host}:{parameters.port}"
        raise Failure(f"The broker can't be reached ({place}), and nothing was sent: check AMQP_URL.", 69) from error


def publish(connection: pika.BlockingConnection, message: Message, reply_to: str | None) -> Any:
    """Gives the command to the broker and waits until it is safe there; returns the channel."""
    properties = pika.BasicProperties(
        content_type=message.content_type,
        delivery_mode=pika.DeliveryMode.Persistent,
        message_id=message.command_id,
        # RabbitMQ checks it against the login, so that the worker's [[publisher]] rules can rest on it.
        user_id=pika.URLParameters(AMQP_URL).credentials.username,
        # A real producer gives the time of the event in its own books, the same at each try.
        timestamp=int(time.time()),
        headers=message.headers,
        reply_to=reply_to,
        correlation_id=message.command_id if reply_to else None,
    )
    try:
        channel = connection.channel()
        # Without confirms a command that the broker loses is lost in silence.
        channel.confirm_delivery()
        if reply_to:
            # Declared before the command is sent, so that no answer can come too early; gone with the connection.
            channel.queue_declare(reply_to, exclusive=True)
        # The account as routing key keeps its commands in order; mandatory makes a command that no queue takes an error.
        channel.basic_publish(f"{PREFIX}.commands", message.kf_account, message.body, properties, mandatory=True)
        return channel
    except exceptions.UnroutableError as error:
        raise Failure(f"No queue takes commands for the prefix {PREFIX}: start the worker once, which declares it, or set KF_PREFIX.") from error
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code == 404:
            raise Failure(f"There is no exchange {PREFIX}.commands: start the worker once, which declares it, or set KF_PREFIX.") from error
        raise Failure(f"The broker refused it: {error.reply_code} {error.reply_text}") from error
    except exceptions.AMQPError as error:
        # Sending it again is safe: where the broker had it after all, the repeat does nothing.
        again = f"Send {message.command_id} again with the same id and content."
        raise Failure(f"The broker did not confirm the command ({type(error).__name__}). {again}") from error


def receive(channel: Any, queue: str, command_id: str, seconds: float) -> Reply:
    try:
        # This queue ends with the connection, so that an acknowledgement would save nothing.
        for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=seconds):
            if method is None:
                break
            if properties.correlation_id == command_id:
                return Reply(properties, body)
        why = f"nothing came within {seconds:g} s"
    except exceptions.AMQPError:
        why = "the connection was lost"
    again = f"Send {command_id} again with the same id and content to be told."
    raise Failure(f"The broker has the command, but {why}. Its result goes to {PREFIX}.events too. {again}")


def command(arguments: argparse.Namespace) -> Message:
    fields = {"command_id": arguments.id, "action": arguments.action, **account_fields(arguments)}
    body = json.dumps(fields, ensure_ascii=False).encode()
    return Message(arguments.id, arguments.kf_account, "application/json", trace_headers(), body)


def account_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given; the worker refuses unknown fields, and null is not the same as left out."""
    names = ["kf_account", "nickname", "revision", "meta"]
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


def trace_headers() -> dict[str, str]:
    """Continues the caller's trace; a tracing library would inject the same header."""
    traceparent = os.environ.get("TRACEPARENT")
    return {"traceparent": traceparent} if traceparent else {}


def arguments_of(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for action in ["add", "delete"]:
        sub = actions.add_parser(action)
        sub.add_argument("kf_account", help="such as test1@test")
        if action == "add":
            sub.add_argument("nickname", help="1 to 16 characters")
        sub.add_argument("--id", required=True, help="the command's id: made from the event in your books, the same at each try")
        sub.add_argument("--revision", type=int, help="your own order of this account's commands")
        sub.add_argument("--meta", type=json_object, metavar="JSON", help="an object of yours that comes back in the result")
        sub.add_argument("--wait", action="store_true", help="show the result")
        sub.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="how long to wait for it (60)")
        sub.add_argument("--json", action="store_true", help="one line of JSON on standard output")


def json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError
    return value


def in_words(data: dict[str, Any]) -> str:
    """`hire-4711  add test1@test  succeeded  created`; what could not be read is left out of a result."""
    error = data.get("error")
    why = f"{error['reason']}: {error['detail']}" if error else data["effect"]
    return f"{data['command_id']}  {data.get('action', '?')} {data.get('kf_account', '?')}  {data['status']}  {why}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments_of(parser)
    arguments = parser.parse_args()
    try:
        reply = send(command(arguments), arguments.timeout if arguments.wait else None)
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)
    if reply:
        event = json.loads(reply.body)
        print(json.dumps(event, ensure_ascii=False) if arguments.json else in_words(event["data"]))
        sys.exit(0 if event["data"]["status"] == "succeeded" else 1)
    print(json.dumps({"command_id": arguments.id, "confirmed": True}) if arguments.json else f"{arguments.id}  confirmed")


if __name__ == "__main__":
    main()
