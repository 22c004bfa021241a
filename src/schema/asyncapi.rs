//! The AsyncAPI document: which messages go where, from the worker's point of view.

mod messages;

use serde_json::{Map, Value, json};

use crate::broker::Names;
use crate::outcome::{Action, Status};
use messages::{messages, schemas};

/// The version of the AMQP bindings.
const BINDINGS: &str = "0.3.0";
/// Names stand under this prefix where nothing else is configured.
const PREFIX: &str = "kf";

/// The whole document.
pub fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:kf-worker",
        "info": info(),
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": channels(),
        "operations": operations(),
        "components": { "messages": messages(), "schemas": schemas(), "securitySchemes": security_schemes() },
    })
}

fn info() -> Value {
    json!({
        "title": "kf-worker",
        "version": "1.0.0",
        "description": "Adds and deletes WeChat customer-service accounts on command, each command with exactly one outcome.\n\n\
            Operations are told from the worker's point of view: what it receives, producers publish. All names begin with `kf`, \
            which `amqp.prefix` changes; the `type` of an event begins with `kf.` whatever the prefix is. `version` is that of the \
            contract. Results may get new attributes and fields without a new version: read those that you know.\n\n\
            What AsyncAPI has no place for, the AMQP properties of a message, stands under `x-amqp-properties`.",
        "license": { "name": "MIT" },
        "tags": [{ "name": "RabbitMQ" }, { "name": "WeChat" }, { "name": "CloudEvents" }],
    })
}

fn servers() -> Value {
    let server = |protocol: &str, port: u16, description: &str, security: &[&str]| {
        let schemes: Vec<Value> = security.iter().map(|name| reference("components/securitySchemes", name)).collect();
        json!({
            "host": format!("{{host}}:{port}"),
            "pathname": "/%2f",
            "protocol": protocol,
            "protocolVersion": "0.9.1",
            "description": description,
            "variables": { "host": { "default": "localhost", "description": "Where RabbitMQ (3.10 or newer) listens." } },
            "security": schemes,
        })
    };
    json!({
        "encrypted": server("amqps", 5671, "RabbitMQ over TLS.", &["password", "certificate"]),
        "plain": server("amqp", 5672, "RabbitMQ without encryption, for a machine or network of one's own.", &["password"]),
    })
}

fn security_schemes() -> Value {
    json!({
        "password": {
            "type": "userPassword",
            "description": "A user of RabbitMQ and its password (SASL PLAIN). Where `[[publisher]]` rules are configured, a command also \
                carries this user's name in the property `user_id`, which RabbitMQ checks.",
        },
        "certificate": {
            "type": "X509",
            "description": "A client certificate in place of a password (SASL EXTERNAL); RabbitMQ takes the user from it.",
        },
    })
}

fn channels() -> Value {
    let names = Names::new(PREFIX);
    json!({
        "kf.commands": {
            "address": "{kf_account}",
            "title": "Commands",
            "description": "Producers publish here, persistent. The routing key is the `kf_account`: it is not checked, and where commands \
                are spread over several queues it keeps those of one account in order.",
            "parameters": { "kf_account": { "description": "The account that the command is for.", "examples": ["test1@test"] } },
            "messages": referred("components/messages", &["Command", "CloudEventCommand", "BinaryCloudEventCommand"]),
            "bindings": topic(&names.commands()),
        },
        "kf.events": {
            "address": "{action}.{status}",
            "title": "Results",
            "description": "Every result, once or more: bind a queue of your own, and drop what you have seen by the event's `id`.",
            "parameters": {
                "action": {
                    "enum": Action::ALL.iter().map(|action| action.as_str()).chain(["unknown"]).collect::<Vec<_>>(),
                    "description": "What the command asked for; `unknown` where that could not be read.",
                },
                "status": { "enum": Status::ALL, "description": "How it ended." },
            },
            "messages": referred("components/messages", &["Result"]),
            "bindings": topic(&names.events()),
        },
        "kf.replies": {
            "address": null,
            "title": "Replies",
            "description": "The queue that a command names in its AMQP property `reply_to`. It gets a copy of the result with the \
                `correlation_id` of the command, else the command's id. One whose name begins with `kf.` gets none.",
            "messages": referred("components/messages", &["Reply"]),
            "bindings": { "amqp": {
                "is": "routingKey", "exchange": { "name": "", "type": "default", "vhost": "/" }, "bindingVersion": BINDINGS,
            } },
        },
        "kf.dead": {
            "address": names.dead(),
            "title": "Dead letters",
            "description": "What needs a person. `kf-worker dead` lists, shows, replays and drops it.",
            "messages": referred("components/messages", &["DeadLetter"]),
            "bindings": { "amqp": {
                "is": "queue",
                "queue": { "name": names.dead(), "durable": true, "exclusive": false, "autoDelete": false, "vhost": "/" },
                "bindingVersion": BINDINGS,
            } },
        },
    })
}

fn topic(exchange: &str) -> Value {
    let exchange = json!({ "name": exchange, "type": "topic", "durable": true, "autoDelete": false, "vhost": "/" });
    json!({ "amqp": { "is": "routingKey", "exchange": exchange, "bindingVersion": BINDINGS } })
}

fn operations() -> Value {
    let sent = json!({ "amqp": { "deliveryMode": 2, "mandatory": true, "timestamp": true, "bindingVersion": BINDINGS } });
    json!({
        "receiveCommand": {
            "action": "receive",
            "channel": reference("channels", "kf.commands"),
            "title": "Take a command",
            "summary": "Carries a command out, and answers with exactly one outcome however often it comes.",
            "messages": of_channel("kf.commands", &["Command", "CloudEventCommand", "BinaryCloudEventCommand"]),
            "bindings": { "amqp": { "ack": true, "bindingVersion": BINDINGS } },
            "reply": {
                "address": {
                    "location": "$message.header#/reply_to",
                    "description": "The AMQP property `reply_to`, where it is set (a property, not one of the headers).",
                },
                "channel": reference("channels", "kf.replies"),
                "messages": of_channel("kf.replies", &["Reply"]),
            },
        },
        "sendResult": {
            "action": "send",
            "channel": reference("channels", "kf.events"),
            "title": "Tell a result",
            "summary": "Publishes the outcome of a command, confirmed by the broker before the command is acknowledged.",
            "messages": of_channel("kf.events", &["Result"]),
            "bindings": sent,
        },
        "sendDeadLetter": {
            "action": "send",
            "channel": reference("channels", "kf.dead"),
            "title": "Keep what needs a person",
            "summary": "Copies what can't be read or is not allowed, and each failed command.",
            "messages": of_channel("kf.dead", &["DeadLetter"]),
            "bindings": { "amqp": { "deliveryMode": 2, "mandatory": true, "bindingVersion": BINDINGS } },
        },
    })
}

fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{name}") })
}

fn referred(place: &str, names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), reference(place, name))).collect()
}

fn of_channel(channel: &str, messages: &[&str]) -> Vec<Value> {
    messages.iter().map(|name| reference(&format!("channels/{channel}/messages"), name)).collect()
}
