//! The schema of results: derived from the types that they are written from, and what those types leave open.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{DEPENDENT, Definitions, dependent, tidied};
use crate::event::Envelope;
use crate::outcome::{Action, Effect, Reason, Status};

/// All schemas that a result event is made of.
pub fn definitions(settings: SchemaSettings) -> Definitions {
    let mut generator = tidied(settings).for_serialize().into_generator();
    generator.subschema_for::<Envelope>();
    if let Some(reason) = generator.definitions_mut().get_mut("Reason") {
        keep_published(reason);
    }
    let mut definitions = generator.take_definitions(true);
    let types = types();
    // All three are there: the envelope holds the data, and the data holds the error.
    definitions["Result"]["properties"]["type"]["enum"] = types.iter().map(|(name, _)| json!(name)).collect();
    definitions["Result"][DEPENDENT] = dependent("type", &types);
    definitions["ResultData"][DEPENDENT] = dependent("status", &Status::ALL.iter().map(|status| of_status(*status)).collect::<Vec<_>>());
    definitions["ResultError"][DEPENDENT] = json!({ "errcode": both_or_neither() });
    definitions
}

/// The other words are reasons to wait, which no result carries.
fn keep_published(reason: &mut Value) {
    let published: Vec<&str> = Status::ALL.iter().flat_map(|status| reasons(*status)).map(Reason::as_str).collect();
    if let Some(Value::Array(words)) = reason.get_mut("oneOf") {
        words.retain(|word| published.iter().any(|published| word["const"] == *published));
    }
    reason["description"] = json!("Why a command did not succeed.");
}

/// The reasons that a result of this status can carry.
fn reasons(status: Status) -> Vec<Reason> {
    match status {
        Status::Succeeded => Vec::new(),
        Status::Failed => Reason::FAILED.to_vec(),
        // Whom a rule stops is answered at his `reply_to`.
        Status::Rejected => [Reason::REJECTED, &[Reason::NotAuthorised]].concat(),
        Status::Superseded => Reason::SUPERSEDED.to_vec(),
    }
}

/// A success has an effect; everything else has an error, with a reason of its status. What was not refused was read, so it
/// has an action and an account.
fn of_status(status: Status) -> (&'static str, Value) {
    let then = match status {
        Status::Succeeded => json!({ "required": ["action", "kf_account", "effect"], "properties": { "error": false } }),
        _ => {
            let read = ["action", "kf_account", "error"];
            json!({
                "required": if status == Status::Rejected { &read[2..] } else { &read },
                "properties": {
                    "effect": false,
                    "nickname_differs": false,
                    "error": { "type": "object", "properties": { "reason": { "enum": reasons(status) } } },
                },
            })
        }
    };
    (status.as_str(), then)
}

/// Types of events, each with the action and the status that it stands for.
fn types() -> Vec<(String, Value)> {
    let data = |data: Value| json!({ "properties": { "data": data } });
    let unknown = json!({ "type": "object", "properties": { "action": false, "status": { "const": Status::Rejected } } });
    let mut types = vec![("kf.unknown.rejected".to_owned(), data(unknown))];
    for action in Action::ALL {
        for status in Status::ALL {
            let mut known = json!({ "type": "object", "required": ["action"], "properties": { "action": { "const": action }, "status": { "const": status } } });
            if *status == Status::Succeeded {
                known["properties"]["effect"] = json!({ "enum": effects(*action) });
            }
            types.push((format!("kf.{action}.{status}"), data(known)));
        }
    }
    types
}

fn effects(action: Action) -> [Effect; 3] {
    match action {
        Action::Add => [Effect::Created, Effect::None, Effect::Unknown],
        Action::Delete => [Effect::Deleted, Effect::None, Effect::Unknown],
    }
}

/// WeChat answered with a number and a text, or did not answer.
fn both_or_neither() -> Value {
    let rule = |kind: &str, text: &str| json!({ "if": { "properties": { "errcode": { "type": kind } } }, "then": { "properties": { "errmsg": { "type": text } } } });
    json!({ "allOf": [rule("null", "null"), rule("integer", "string")] })
}
