//! The AsyncAPI document: which messages go where, from the worker's point of view.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::examples::{self, Example};
use super::{Definitions, command_definitions, results};
use crate::broker::{DEAD_DETAIL, DEAD_ID, DEAD_REASON, DEAD_SINCE, Names};
use crate::event::CONTENT_TYPE;
use crate::outcome::{Action, Reason, Status};

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

fn messages() -> Value {
    let properties = command_properties;
    let plain = properties("`application/json`, or left out.", "The command's id, where the body has none; else the same as there.");
    let structured = properties("`application/cloudevents+json`.", "Not read.");
    let binary = properties("That of the data.", "Not read, except where neither the body nor `ce-id` can be.");
    json!({
        "Command": message("A command", &body("Command", "command_id", "application/json"), &trace_headers(), &plain, &examples::plain()),
        "CloudEventCommand": message(
            "A command as a CloudEvent", &body("CloudEventCommand", "id", CONTENT_TYPE), &trace_headers(), &structured, &examples::structured(),
        ),
        "BinaryCloudEventCommand": message(
            "A command as a CloudEvent whose attributes are headers",
            &json!({
                "contentType": "application/json", "payload": reference("components/schemas", "CommandData"),
                "correlationId": { "location": "$message.header#/ce-id", "description": "The command's id." },
            }),
            &binary_headers(), &binary, &examples::binary(),
        ),
        "Result": message("The result of a command", &result_body(), &trace_headers(), &result_properties("The command's id."), &examples::results()),
        "Reply": message(
            "The result of a command, for who asked", &result_body(), &trace_headers(),
            &result_properties("That of the command, else the command's id."),
            &examples::results().into_iter().take(1).chain([examples::refusal()]).collect::<Vec<_>>(),
        ),
        "DeadLetter": message(
            "What needs a person",
            &json!({ "payload": { "description": "The body of the original, whatever it is." } }),
            &dead_headers(),
            &json!({ "all": "Those of the original, without `user_id`." }),
            &examples::dead_letters(),
        ),
    })
}

/// A message of the parts that all have, and what its body is.
fn message(title: &str, body: &Value, headers: &Value, properties: &Value, examples: &[Example]) -> Value {
    let examples: Vec<Value> = examples.iter().map(shown).collect();
    let mut message = json!({ "title": title, "headers": headers, "x-amqp-properties": properties, "examples": examples });
    for (key, value) in body.as_object().into_iter().flatten() {
        message[key] = value.clone();
    }
    message
}

fn shown(example: &Example) -> Value {
    let mut shown = json!({ "name": example.name, "summary": example.summary, "payload": example.payload });
    if let Some(headers) = &example.headers {
        shown["headers"] = headers.clone();
    }
    shown
}

/// A body of one schema, with the field that tells the command's id.
fn body(schema: &str, id: &str, content_type: &str) -> Value {
    json!({
        "contentType": content_type,
        "payload": reference("components/schemas", schema),
        "correlationId": { "location": format!("$message.payload#/{id}"), "description": "The command's id." },
    })
}

fn result_body() -> Value {
    body("Result", "data/command_id", CONTENT_TYPE)
}

fn command_properties(content_type: &str, message_id: &str) -> Value {
    json!({
        "content_type": content_type,
        "message_id": message_id,
        "delivery_mode": "2 (persistent), so that a restart of the broker loses nothing.",
        "reply_to": "A queue that gets a copy of the result.",
        "correlation_id": "Comes back in the reply.",
        "user_id": "The user of the connection. Needed where `[[publisher]]` rules are configured.",
        "timestamp": "When it was sent, in seconds since 1970. An `add` that was sent before the account's last delete may be `superseded`.",
    })
}

fn result_properties(correlation_id: &str) -> Value {
    json!({
        "content_type": CONTENT_TYPE,
        "message_id": "The event's `id`.",
        "correlation_id": correlation_id,
        "type": "The event's `type`.",
        "timestamp": "The event's `time`, in seconds since 1970.",
        "delivery_mode": "2 (persistent).",
        "app_id": "`kf-worker`.",
    })
}

fn headers(headers: Value) -> Value {
    json!({ "type": "object", "properties": headers })
}

fn trace_headers() -> Value {
    headers(json!({
        "traceparent": { "type": "string", "description": "The W3C trace context; it goes on from the command to its result." },
        "tracestate": { "type": "string", "description": "What tracing systems keep of their own." },
    }))
}

fn binary_headers() -> Value {
    let mut schema = headers(json!({
        "ce-specversion": { "const": crate::event::SPEC_VERSION },
        "ce-id": reference("components/schemas", "CommandId"),
        "ce-type": reference("components/schemas", "Type"),
        "ce-source": { "type": "string", "description": "Where it comes from; not read." },
        "ce-time": { "type": "string", "format": "date-time", "description": "When it was sent." },
        "ce-traceparent": { "type": "string", "description": "The W3C trace context." },
    }));
    schema["required"] = json!(["ce-specversion", "ce-id", "ce-type", "ce-source"]);
    schema["description"] = json!("The prefixes `cloudEvents:`, `cloudEvents_` and `ce_` mean the same as `ce-`.");
    schema
}

fn dead_headers() -> Value {
    let reasons: Vec<&Reason> = Reason::DEAD.iter().chain(Reason::FAILED).collect();
    let mut schema = headers(json!({
        DEAD_ID: { "type": "string", "description": "What `kf-worker dead` calls it; a copy of a copy has the same." },
        DEAD_REASON: { "type": "string", "enum": reasons, "description": "Why, in a word." },
        DEAD_DETAIL: { "type": "string", "description": "What is wrong and what to do." },
        DEAD_SINCE: { "type": "string", "format": "date-time", "description": "When it came here." },
    }));
    schema["description"] = json!("Those of the original, and these.");
    schema
}

/// The schemas of all bodies, in the older draft that AsyncAPI builds on.
fn schemas() -> Definitions {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    let mut schemas = command_definitions(settings.clone());
    schemas.extend(results::definitions(settings));
    schemas
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
