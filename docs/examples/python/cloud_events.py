#!/usr/bin/env python3
"""The same commands as CloudEvents 1.0, made and read with the public SDK (`cloudevents`); waits for the result.

    cloud_events.py structured add test1@test 客服1 --id hire-4711 --revision 1
    cloud_events.py binary delete test1@test --id leave-4711 --revision 2

Structured: the whole event is the body. Binary: the body is `data`, the rest is in `ce-` headers.
AMQP_URL, KF_PREFIX and exit codes are those of produce.py.
"""

import argparse
import json
import sys

from cloudevents.core.bindings import rabbitmq
from cloudevents.core.v1.event import CloudEvent

import produce


def cloud_event(arguments: argparse.Namespace) -> CloudEvent:
    attributes = {
        "id": arguments.id,
        "type": f"kf.{arguments.action}",
        "source": "/hr/onboarding",
        "datacontenttype": "application/json",
        # The SDK sets `time` to now; a real producer gives the time of the event in its own books.
        # The CloudEvents extension for tracing: an attribute, where a plain command has a header.
        **produce.trace_headers(),
    }
    return CloudEvent(attributes, produce.account_fields(arguments))


def send(arguments: argparse.Namespace) -> CloudEvent:
    to_message = {"structured": rabbitmq.to_structured_event, "binary": rabbitmq.to_binary_event}[arguments.mode]
    encoded = to_message(cloud_event(arguments))
    message = produce.Message(arguments.id, arguments.kf_account, encoded.content_type, encoded.headers, encoded.body)
    reply = produce.send(message, arguments.timeout)
    # Results come structured; this reads either mode.
    headers = reply.properties.headers or {}
    return rabbitmq.from_rabbitmq_event(rabbitmq.RabbitMQMessage(headers, reply.properties.content_type, reply.body))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["structured", "binary"])
    produce.arguments_of(parser)
    arguments = parser.parse_args()
    try:
        result = send(arguments)
    except produce.Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)
    event = json.loads(rabbitmq.to_structured_event(result).body)
    print(json.dumps(event, ensure_ascii=False) if arguments.json else produce.in_words(event["data"]))
    sys.exit(0 if event["data"]["status"] == "succeeded" else 1)


if __name__ == "__main__":
    main()
