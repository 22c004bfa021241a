//! The messages of the AsyncAPI document: headers, properties, bodies and examples.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use super::reference;
use crate::broker::{DEAD_DETAIL, DEAD_ID, DEAD_PROOF, DEAD_REASON, DEAD_SINCE};
use crate::event::{CONTENT_TYPE, SPEC_VERSION};
use crate::outcome::Reason;
use crate::schema::examples::{self, Example};
use crate::schema::{DEPENDENT, Definitions, command_definitions, results};

/// All messages by name.
pub fn messages() -> Value {
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
        "ce-specversion": { "const": SPEC_VERSION },
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
        DEAD_PROOF: { "type": "string", "description": "By this the worker recognises a replay: nobody knows it who has not read the dead letter." },
    }));
    schema["description"] = json!("Those of the original, and these.");
    schema
}

/// The schemas of all bodies, in the older draft that AsyncAPI builds on.
pub fn schemas() -> Definitions {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    settings.transforms.insert(0, Box::new(RecursiveTransform(only_reference)));
    let mut schemas = command_definitions(settings.clone());
    schemas.extend(results::definitions(settings));
    for schema in schemas.values_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(rules)) = schema.remove(DEPENDENT) {
            schema.insert("allOf".to_owned(), rules.iter().flat_map(|(field, rules)| forbidden(field, rules)).collect());
        }
    }
    schemas
}

/// The older draft knows nothing beside a reference.
fn only_reference(schema: &mut Schema) {
    if let Some(reference) = schema.get("$ref") {
        *schema = json_schema!({ "$ref": reference });
    }
}

/// "If this, then that", as "not this without that": generators of code read `then` as if it always held.
fn forbidden(field: &str, rules: &Value) -> Vec<Value> {
    let rules = rules["allOf"].as_array().into_iter().flatten();
    rules.map(|rule| json!({ "if": { "required": [field], "allOf": [rule["if"], { "not": rule["then"] }] }, "then": false })).collect()
}
