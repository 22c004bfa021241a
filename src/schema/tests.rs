//! The documents are what the code says, and hold what they are about: commands and results, good and bad.

mod commands;
mod results;

use jsonschema::{Draft, Validator};

use super::examples::{self, Example};
use super::*;
use crate::command::{Decoded, Message, decode};
use crate::event::CONTENT_TYPE;

/// A schema as strict as it can be taken.
fn validator(schema: &Value, draft: Draft) -> Validator {
    jsonschema::options().with_draft(draft).should_validate_formats(true).build(schema).unwrap()
}

/// A schema in both spellings: as a document of its own, and as a part of the AsyncAPI document.
fn both(document: Document, name: &str) -> [Validator; 2] {
    let part = json!({ "$ref": format!("#/components/schemas/{name}"), "components": Document::AsyncApi.json()["components"] });
    [validator(&document.json(), Draft::Draft202012), validator(&part, Draft::Draft7)]
}

/// Whether all of them say the same, and what.
fn accepted(validators: &[Validator], instance: &Value) -> bool {
    let verdicts: Vec<bool> = validators.iter().map(|validator| validator.is_valid(instance)).collect();
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "they differ over {instance}");
    verdicts[0]
}

#[track_caller]
fn assert_valid(validators: &[Validator], instance: &Value) {
    for validator in validators {
        let faults: Vec<String> = validator.iter_errors(instance).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        assert!(faults.is_empty(), "{instance:#}\n{}", faults.join("\n"));
    }
}

fn is_command(message: &Message) -> bool {
    matches!(decode(message), Decoded::Command(_))
}

#[test]
fn the_reference_of_messages_is_made_from_the_code() {
    let pages = ["docs/schemas/command.json", "docs/schemas/cloudevent-command.json", "docs/schemas/result.json", "docs/asyncapi.json"];
    for (document, page) in Document::ALL.into_iter().zip(pages) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        if std::env::var_os("KF_WRITE_REFERENCE").is_some() {
            std::fs::write(&path, document.text()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == document.text(), "{page} is not what the code says; `make reference` writes it anew");
    }
}

#[test]
fn the_schemas_are_schemas() {
    for document in [Document::Command, Document::CloudEventCommand, Document::Result] {
        jsonschema::draft202012::meta::validate(&document.json()).unwrap();
    }
    for schema in Document::AsyncApi.json()["components"]["schemas"].as_object().unwrap().values() {
        jsonschema::draft7::meta::validate(schema).unwrap();
    }
}

#[test]
fn every_example_of_a_command_is_one() {
    let plain = both(Document::Command, "Command");
    for Example { name, payload, .. } in examples::plain() {
        assert_valid(&plain, &payload);
        let message_id = payload.get("command_id").is_none().then(|| "hr-12".to_owned());
        assert!(is_command(&Message { body: payload.to_string().into(), message_id, ..Message::default() }), "{name}");
    }
    let structured = both(Document::CloudEventCommand, "CloudEventCommand");
    for Example { name, payload, .. } in examples::structured() {
        assert_valid(&structured, &payload);
        let content_type = Some(CONTENT_TYPE.to_owned());
        assert!(is_command(&Message { body: payload.to_string().into(), content_type, ..Message::default() }), "{name}");
    }
    for Example { name, payload, headers, .. } in examples::binary() {
        let headers = serde_json::from_value(headers.unwrap()).unwrap();
        assert!(is_command(&Message { body: payload.to_string().into(), headers, ..Message::default() }), "{name}");
    }
}

#[test]
fn every_example_in_the_asyncapi_document_fits_its_message() {
    let document = Document::AsyncApi.json();
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        let examples = message["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name}");
        for part in ["payload", "headers"] {
            let mut schema = message[part].clone();
            schema["components"] = document["components"].clone();
            let validator = [validator(&schema, Draft::Draft7)];
            for example in examples.iter().filter_map(|example| example.get(part)) {
                assert_valid(&validator, example);
            }
        }
    }
}

#[test]
fn examples_of_results_show_every_status() {
    let results = examples::results();
    let shown = |status: &crate::outcome::Status| results.iter().any(|example| example.payload["data"]["status"] == status.as_str());
    assert!(crate::outcome::Status::ALL.iter().all(shown));
}
