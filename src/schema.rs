//! What commands and results look like, for machines: JSON Schemas and an AsyncAPI document, made from the types.
//!
//! Results are written from the types that the schemas are derived from. Commands are read by hand, so that every broken
//! rule gets its own words; there a test holds schema and decoder against each other.

mod asyncapi;
mod commands;
mod examples;
mod results;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::event::Envelope;
use commands::{CloudEventCommand, Command};

/// A document that describes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The JSON Schema of a command in its plain form.
    Command,
    /// The JSON Schema of a command as a structured CloudEvent.
    CloudEventCommand,
    /// The JSON Schema of a result event.
    Result,
    /// All messages and where they go, as AsyncAPI 3.0.
    AsyncApi,
}

impl Document {
    /// Every document.
    pub const ALL: [Self; 4] = [Self::Command, Self::CloudEventCommand, Self::Result, Self::AsyncApi];

    /// The document as JSON.
    pub fn json(self) -> Value {
        match self {
            Self::Command => alone::<Command>(command_definitions(SchemaSettings::draft2020_12()), "command"),
            Self::CloudEventCommand => {
                alone::<CloudEventCommand>(command_definitions(SchemaSettings::draft2020_12()), "cloudevent-command")
            }
            Self::Result => alone::<Envelope>(results::definitions(SchemaSettings::draft2020_12()), "result"),
            Self::AsyncApi => asyncapi::document(),
        }
    }

    /// The document as it is shown and kept: indented, ending with a line break.
    pub fn text(self) -> String {
        format!("{:#}\n", self.json())
    }
}

/// Schemas by name.
type Definitions = Map<String, Value>;

fn command_definitions(settings: SchemaSettings) -> Definitions {
    let mut generator = tidied(settings).for_deserialize().into_generator();
    generator.subschema_for::<Command>();
    generator.subschema_for::<CloudEventCommand>();
    generator.take_definitions(true)
}

/// One of the schemas as a document of its own, with those that it refers to.
fn alone<T: JsonSchema>(mut definitions: Definitions, name: &str) -> Value {
    let mut document = definitions.remove(&*T::schema_name()).unwrap_or_default();
    loop {
        let text = json!([&document, &definitions]).to_string();
        let before = definitions.len();
        definitions.retain(|name, _| text.contains(&format!("\"#/$defs/{name}\"")));
        if definitions.len() == before {
            break;
        }
    }
    document["title"] = json!(T::schema_name());
    document["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    document["$id"] = json!(format!("urn:kf-worker:schema:{name}"));
    document["$defs"] = definitions.into();
    document
}

/// The keyword for what holds as well where a field is given. Rules between fields stand there, where generators of code don't
/// mistake them for the types of fields.
const DEPENDENT: &str = "dependentSchemas";

/// What holds as well where a field has one of these values.
fn dependent(field: &str, rules: &[(impl AsRef<str>, Value)]) -> Value {
    let rule =
        |(value, then): &(_, Value)| json!({ "if": { "properties": { field: { "const": AsRef::<str>::as_ref(value) } } }, "then": then });
    json!({ field: { "allOf": rules.iter().map(rule).collect::<Vec<Value>>() } })
}

/// Settings under which schemas say no more than is meant, in the words that most tools understand.
fn tidied(mut settings: SchemaSettings) -> SchemaSettings {
    settings.transforms.insert(0, Box::new(RecursiveTransform(tidy)));
    settings
}

fn tidy(schema: &mut Schema) {
    // Where a line of source ended means nothing to others.
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    list_words(schema);
    leave_out_null(schema);
    // `uint32` and the like are no formats of JSON Schema, and strict validators refuse them.
    if schema.get("type").is_some_and(|kind| kind == "integer" || kind[0] == "integer") {
        schema.remove("format");
    }
}

/// A closed list of words becomes an `enum`, which every generator of code knows, with their meanings in the description.
fn list_words(schema: &mut Schema) {
    let Some(Value::Array(branches)) = schema.get("oneOf") else { return };
    let word = |branch: &Value| branch.get("const").and_then(Value::as_str).map(str::to_owned);
    let Some(words) = branches.iter().map(word).collect::<Option<Vec<String>>>() else { return };
    let mut description = schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned() + "\n";
    for (word, branch) in words.iter().zip(branches) {
        let meaning = branch.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        description.push_str(&format!("\n- `{word}`: {meaning}"));
    }
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), json!(words));
    schema.insert("description".to_owned(), json!(description));
}

/// What needs not be given is left out, never null.
fn leave_out_null(schema: &mut Schema) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|required| required == name));
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !is_required(name)) {
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = types.as_slice() {
                property["type"] = only.clone();
            }
        }
        let Some(Value::Array(branches)) = property.get("anyOf") else { continue };
        if let [Value::Object(kept), null] = branches.as_slice()
            && null["type"] == "null"
            && let (kept, Value::Object(property)) = (kept.clone(), property)
        {
            property.remove("anyOf");
            property.extend(kept);
        }
    }
}

#[cfg(test)]
mod tests;
