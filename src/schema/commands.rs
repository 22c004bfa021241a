//! The forms of a command, as types of which nothing but the schema is used.

#![expect(dead_code, reason = "commands are read by hand, in src/command.rs; these types only describe them")]

use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::{DEPENDENT, dependent};
use crate::command::KfAccount;
use crate::outcome::Action;

/// A command in its plain form: the body of a message with the content type `application/json`. It is refused as well where a
/// key stands twice, where it has more than 64 KiB or its `meta` more than 4 KiB, and where `revision` is written with a
/// fraction or an exponent (`1.0`), which JSON Schema can't say.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = nickname_by_action)]
#[schemars(extend("examples" = [
    { "command_id": "hr-4711-1", "action": "add", "kf_account": "test1@test", "nickname": "客服1" },
    { "command_id": "hr-4711-2", "action": "delete", "kf_account": "test1@test" },
]))]
pub struct Command {
    /// May be left out where the AMQP property `message_id` carries it. Where both are given they must be equal.
    command_id: Option<CommandId>,
    action: Action,
    kf_account: KfAccount,
    nickname: Option<Nickname>,
    revision: Option<Revision>,
    meta: Option<Meta>,
}

/// A command as a structured CloudEvent 1.0: the body of a message with the content type `application/cloudevents+json`.
/// Attributes that are not listed are ignored.
#[derive(JsonSchema)]
#[schemars(transform = nickname_by_type)]
#[schemars(extend("examples" = [
    {
        "specversion": "1.0", "id": "hr-4711-1", "type": "kf.add", "source": "/hr/onboarding",
        "data": { "kf_account": "test1@test", "nickname": "客服1" },
    },
]))]
pub struct CloudEventCommand {
    #[schemars(extend("const" = crate::event::SPEC_VERSION))]
    specversion: String,
    /// The command's id.
    id: CommandId,
    /// Where it comes from: a URI, or a path of the producer's own. CloudEvents asks for it, the worker does not read it.
    #[schemars(length(min = 1), extend("format" = "uri-reference"))]
    source: String,
    /// The action.
    r#type: Type,
    /// When it was sent. An `add` that was sent before the account's last delete may be `superseded`.
    #[schemars(extend("format" = "date-time"))]
    time: Option<String>,
    /// The W3C trace context that the command belongs to, where it is not in the AMQP headers.
    traceparent: Option<String>,
    tracestate: Option<String>,
    data: CommandData,
}

/// The fields of a command besides its id and action, which the CloudEvent's `id` and `type` tell. An add has a `nickname`, a
/// delete has none.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CommandData {
    kf_account: KfAccount,
    nickname: Option<Nickname>,
    revision: Option<Revision>,
    meta: Option<Meta>,
}

/// The producer's id of this command, the key of idempotency: 1 to 128 printable ASCII characters (space to tilde).
#[derive(JsonSchema)]
#[schemars(extend("minLength" = 1, "maxLength" = 128, "not" = { "pattern": "[^ -~]" }))]
struct CommandId(String);

/// The name that customers see: 1 to 16 Unicode characters, no control character, not only white space. Required for an add,
/// refused for a delete.
// The classes are spelled out, since `\S` means other characters in each language. White space that is a control character is
// refused anyway.
#[derive(JsonSchema)]
#[schemars(extend(
    "minLength" = 1,
    "maxLength" = 16,
    "pattern" = r"[^\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]",
    "not" = { "pattern": r"[\u0000-\u001f\u007f-\u009f]" },
))]
struct Nickname(String);

/// The producer's own order of this account's commands: one that is not above the account's latest is superseded.
#[derive(JsonSchema)]
#[schemars(extend("minimum" = 0, "maximum" = i64::MAX))]
struct Revision(i64);

/// The producer's own (an employee's number, a ticket), up to 4 KiB of JSON. It comes back in the result and is never logged.
#[derive(JsonSchema)]
struct Meta(Map<String, Value>);

/// The actions, as types of CloudEvents.
#[derive(JsonSchema)]
enum Type {
    /// The account shall exist.
    #[schemars(rename = "kf.add")]
    Add,
    /// The account shall not exist.
    #[schemars(rename = "kf.delete")]
    Delete,
}

fn nickname_by_action(schema: &mut Schema) {
    let named = json!({ "required": ["nickname"] });
    let unnamed = json!({ "properties": { "nickname": false } });
    schema.insert(DEPENDENT.to_owned(), dependent("action", &[("add", named), ("delete", unnamed)]));
}

fn nickname_by_type(schema: &mut Schema) {
    let named = json!({ "properties": { "data": { "type": "object", "required": ["nickname"] } } });
    let unnamed = json!({ "properties": { "data": { "type": "object", "properties": { "nickname": false } } } });
    schema.insert(DEPENDENT.to_owned(), dependent("type", &[("kf.add", named), ("kf.delete", unnamed)]));
}
