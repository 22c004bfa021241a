//! Turns the bytes of a message into a command, or says exactly which rule of the contract it breaks.

mod json;
mod pattern;
mod rules;
mod trace_context;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use pattern::{AccountPattern, NoPattern, fits};
pub use rules::{MAX_META, clip};
pub use trace_context::TraceContext;

use crate::outcome::{Action, Failure, Reason};
use json::Json;
use rules::{check_account, check_meta, check_names, check_nickname, check_revision, raw_meta, wrong_type};

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A message as the broker delivered it, free of the broker's own types.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    pub message_id: Option<String>,
    /// The sender, validated by the broker.
    pub user_id: Option<String>,
    /// AMQP `timestamp`, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// Why its properties came in part only, in a sentence, where they did.
    pub unreadable: Option<String>,
    /// The headers whose values are text; no other kind means anything here.
    pub headers: BTreeMap<String, String>,
}

impl Message {
    /// A fingerprint of the body as it is, for a message that is not read.
    pub fn fingerprint(&self) -> Content {
        fingerprint(b"bytes", &self.body)
    }

    /// The command id that stands beside the body, where one does.
    pub fn id_beside(&self) -> Option<&str> {
        self.message_id.as_deref().filter(|id| is_command_id(id))
    }
}

/// What a message turned out to be.
#[derive(Debug, Clone)]
pub enum Decoded {
    /// A command that keeps every rule.
    Command(Command),
    /// Its id can be read, so it has an outcome: rejected.
    Refused(Refused),
    /// Nothing can be answered: it goes to the dead letters.
    Unreadable(Failure),
}

/// A command that keeps every rule of the contract.
#[derive(Debug, Clone)]
pub struct Command {
    pub action: Action,
    pub account: KfAccount,
    pub given: Given,
    /// Fingerprint of the fields and their values: what makes a repeat the same command.
    pub content: Content,
    /// When the producer says that it sent the command.
    pub sent_at: Option<SentAt>,
}

/// A command whose id can be read and that breaks a rule.
#[derive(Debug, Clone)]
pub struct Refused {
    pub given: Given,
    pub content: Content,
    pub failure: Failure,
    /// Nothing but the id could be read: a copy goes to the dead letters too.
    pub dead_letter: bool,
}

/// The fields of a command as the producer gave them; they come back in its result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    pub command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kf_account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nickname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Box<RawValue>>,
}

impl Given {
    /// What can be said of a message of which only the id is known.
    pub fn only_id(command_id: &str) -> Self {
        Self { command_id: command_id.to_owned(), action: None, kf_account: None, nickname: None, revision: None, meta: None }
    }
}

/// A well-formed `<prefix>@<wechat_id>`: 1 to 10 of `A-Z a-z 0-9 _`, and the Official Account's own WeChat ID of 1 to 30
/// of `A-Z a-z 0-9 _ -`.
// The second rule says nothing new, save where `$` also matches before a line break at the end, as in Python.
#[derive(Debug, Clone, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(extend("pattern" = "^[A-Za-z0-9_]{1,10}@[A-Za-z0-9_-]{1,30}$", "not" = { "pattern": "[^A-Za-z0-9_@-]" }))]
#[schemars(extend("examples" = ["test1@test"]))]
pub struct KfAccount(String);

impl KfAccount {
    /// Takes what has this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, wechat_id) = text.split_once('@')?;
        let word = |text: &str, most: usize, dash: bool| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || (dash && b == b'-'))
        };
        (word(prefix, 10, false) && word(wechat_id, 30, true)).then(|| Self(text.to_owned()))
    }

    /// Whether a text is one.
    pub fn is_one(text: &str) -> bool {
        Self::parse(text).is_some()
    }

    /// The WeChat ID of the Official Account that it belongs to.
    pub fn wechat_id(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, wechat_id)| wechat_id)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KfAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A fingerprint (SHA-256) of what a message says, apart from its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub [u8; 32]);

impl Content {
    /// The first half in hexadecimal: enough to name it in an event id.
    pub fn short(&self) -> String {
        self.0[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// When a producer sent a command, as exactly as it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentAt {
    /// AMQP `timestamp`: whole seconds.
    Second(i64),
    /// CloudEvents `time`.
    Instant(Timestamp),
}

impl SentAt {
    /// Whether it was certainly sent before `other`; within AMQP's whole second nothing is certain.
    pub fn is_before(self, other: Timestamp) -> bool {
        match self {
            Self::Second(second) => second < other.as_second(),
            Self::Instant(instant) => instant < other,
        }
    }

    /// The earliest instant it can mean.
    pub fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Second(second) => Timestamp::from_second(second).ok(),
            Self::Instant(instant) => Some(instant),
        }
    }
}

/// Reads a message in any of the contract's forms: plain JSON, or CloudEvents 1.0 structured or binary.
pub fn decode(message: &Message) -> Decoded {
    let form = Form::of(message);
    if let Some(why) = &message.unreadable {
        return undecodable(message, &form, Failure::new(Reason::UnreadableProperties, why.clone()));
    }
    let body = match parse_body(message) {
        Ok(body) => body,
        Err(failure) => return undecodable(message, &form, failure),
    };
    match form {
        Form::Plain => decode_plain(message, &body),
        Form::Structured => decode_structured(message, &body),
        Form::Binary(attributes) => {
            let envelope = Envelope {
                id: attributes.id,
                action: action_of_type(attributes.kind.as_deref()),
                sent_at: attributes.time.as_deref().and_then(parse_time),
            };
            decode_event(message, envelope, Some(&body), &message.body)
        }
    }
}

/// How the content of a message is wrapped.
enum Form {
    Plain,
    Structured,
    Binary(BinaryAttributes),
}

/// The context attributes of a binary CloudEvent that mean something here.
struct BinaryAttributes {
    id: Option<String>,
    kind: Option<String>,
    time: Option<String>,
}

impl Form {
    fn of(message: &Message) -> Self {
        if is_structured(message) {
            return Self::Structured;
        }
        for prefix in BINARY_PREFIXES {
            let attribute = |name: &str| message.headers.get(&format!("{prefix}{name}")).cloned();
            if attribute("specversion").is_some() || attribute("type").is_some() {
                return Self::Binary(BinaryAttributes { id: attribute("id"), kind: attribute("type"), time: attribute("time") });
            }
        }
        Self::Plain
    }
}

/// Knative writes `ce-`, the AMQP bindings of CloudEvents `cloudEvents:` and, for JMS, `cloudEvents_`.
const BINARY_PREFIXES: [&str; 4] = ["ce-", "ce_", "cloudEvents:", "cloudEvents_"];

/// Whether the body is a CloudEvent with its envelope.
fn is_structured(message: &Message) -> bool {
    let kind = message.content_type.as_deref().and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/cloudevents+json"))
}

fn parse_body(message: &Message) -> Result<Json, Failure> {
    if message.body.len() > MAX_BODY {
        let detail = format!("The body has {} bytes; at most {MAX_BODY} are read. Send a smaller `meta`.", message.body.len());
        return Err(Failure::new(Reason::BodyTooLarge, detail));
    }
    match serde_json::from_slice::<Json>(&message.body) {
        Ok(json @ Json::Object(_)) => Ok(json),
        Ok(_) => Err(Failure::new(Reason::NotAJsonObject, "The body is JSON but not an object. Send one command as a JSON object.")),
        // Only where it breaks is told, never the text itself.
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            Err(Failure::new(Reason::NotAJsonObject, format!("The body is not UTF-8 JSON: it breaks at {place}.")))
        }
    }
}

/// What says nothing is rejected by the id beside it, where there is one.
fn undecodable(message: &Message, form: &Form, failure: Failure) -> Decoded {
    let beside = match form {
        Form::Binary(attributes) => attributes.id.as_ref().or(message.message_id.as_ref()),
        Form::Plain | Form::Structured => message.message_id.as_ref(),
    };
    match beside {
        Some(id) if is_command_id(id) => {
            Decoded::Refused(Refused { given: Given::only_id(id), content: message.fingerprint(), failure, dead_letter: true })
        }
        _ => Decoded::Unreadable(failure),
    }
}

fn decode_plain(message: &Message, body: &Json) -> Decoded {
    let command_id = match plain_id(message, body) {
        Ok(id) => id,
        Err(failure) => return Decoded::Unreadable(failure),
    };
    let action = match body.get("action") {
        None => Err(Failure::new(Reason::MissingField, "`action` is missing. Say `add` or `delete`.")),
        Some(Json::String(word)) => {
            Action::from_word(word).ok_or_else(|| Failure::new(Reason::InvalidAction, "`action` is neither `add` nor `delete`."))
        }
        Some(_) => Err(wrong_type("action", "a string")),
    };
    let sent_at = message.timestamp.and_then(|seconds| i64::try_from(seconds).ok()).map(SentAt::Second);
    let envelope = Read { command_id, action, sent_at, known: &["command_id", "action"] };
    read_fields(envelope, body, &message.body)
}

/// The id of a plain command: in the body, in `message_id`, or the same in both.
fn plain_id(message: &Message, body: &Json) -> Result<String, Failure> {
    let beside = message.message_id.as_deref().filter(|id| !id.is_empty());
    let id = match (body.get("command_id"), beside) {
        (None, None) => {
            return Err(Failure::new(
                Reason::MissingCommandId,
                "Neither `command_id` nor the property `message_id` is given. Send one of them.",
            ));
        }
        (None, Some(beside)) => beside,
        (Some(Json::String(id)), None) => id,
        (Some(Json::String(id)), Some(beside)) if id == beside => id,
        (Some(_), None) => return Err(Failure::new(Reason::InvalidCommandId, "`command_id` is not a string.")),
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                Reason::IdMismatch,
                "`command_id` and the property `message_id` differ. Send the same id in both, or one of them.",
            ));
        }
    };
    if body.count("command_id") > 1 {
        return Err(Failure::new(Reason::DuplicateKey, "`command_id` stands twice."));
    }
    if !is_command_id(id) {
        return Err(Failure::new(Reason::InvalidCommandId, "The command id is not 1 to 128 printable ASCII characters."));
    }
    Ok(id.to_owned())
}

/// What a CloudEvent says outside its `data`.
struct Envelope {
    id: Option<String>,
    action: Result<Action, Failure>,
    sent_at: Option<SentAt>,
}

fn decode_structured(message: &Message, body: &Json) -> Decoded {
    let text = |name: &str| body.get(name).and_then(Json::as_str);
    let envelope =
        Envelope { id: text("id").map(str::to_owned), action: action_of_type(text("type")), sent_at: text("time").and_then(parse_time) };
    // The envelope's text is read again for `data` alone, so that `meta` keeps its spelling.
    #[derive(Deserialize)]
    struct Wrapper<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let raw = serde_json::from_slice::<Wrapper>(&message.body).ok().and_then(|wrapper| wrapper.data).map_or("", RawValue::get);
    decode_event(message, envelope, body.get("data"), raw.as_bytes())
}

fn decode_event(message: &Message, envelope: Envelope, data: Option<&Json>, raw_data: &[u8]) -> Decoded {
    let Some(command_id) = envelope.id else {
        return Decoded::Unreadable(Failure::new(Reason::MissingCommandId, "The CloudEvent has no `id`."));
    };
    if !is_command_id(&command_id) {
        return Decoded::Unreadable(Failure::new(
            Reason::InvalidCommandId,
            "The CloudEvent's `id` is not 1 to 128 printable ASCII characters.",
        ));
    }
    let Some(data @ Json::Object(_)) = data else {
        let failure = Failure::new(Reason::MissingField, "The CloudEvent's `data` is not a JSON object.");
        let content = message.fingerprint();
        return Decoded::Refused(Refused { given: Given::only_id(&command_id), content, failure, dead_letter: false });
    };
    let read = Read { command_id, action: envelope.action, sent_at: envelope.sent_at, known: &[] };
    read_fields(read, data, raw_data)
}

fn action_of_type(kind: Option<&str>) -> Result<Action, Failure> {
    kind.and_then(|kind| kind.strip_prefix("kf."))
        .and_then(Action::from_word)
        .ok_or_else(|| Failure::new(Reason::InvalidAction, "The CloudEvent's `type` is neither `kf.add` nor `kf.delete`."))
}

fn parse_time(text: &str) -> Option<SentAt> {
    text.parse().ok().map(SentAt::Instant)
}

/// What is known before the command's own fields are read, whatever the form.
struct Read<'a> {
    command_id: String,
    action: Result<Action, Failure>,
    sent_at: Option<SentAt>,
    /// Fields of this form besides the common ones.
    known: &'a [&'a str],
}

fn read_fields(read: Read<'_>, fields: &Json, raw: &[u8]) -> Decoded {
    let text = |name: &str| fields.get(name).and_then(Json::as_str).map(str::to_owned);
    let given = Given {
        command_id: read.command_id,
        action: read.action.as_ref().ok().copied(),
        kf_account: text("kf_account"),
        nickname: text("nickname"),
        revision: fields.get("revision").and_then(Json::as_i64).filter(|revision| *revision >= 0),
        meta: matches!(fields.get("meta"), Some(Json::Object(_))).then(|| raw_meta(raw)).flatten(),
    };
    let rules = read.action.and_then(|action| {
        check_names(fields, read.known)?;
        let account = check_account(fields)?;
        check_nickname(fields, action)?;
        check_revision(fields)?;
        check_meta(fields, given.meta.as_deref())?;
        Ok((action, account))
    });
    match rules {
        Ok((action, account)) => {
            let content = fingerprint(action.as_str().as_bytes(), fields.canonical_without(read.known).as_bytes());
            Decoded::Command(Command { action, account, given, content, sent_at: read.sent_at })
        }
        Err(failure) => {
            let tag = given.action.map_or("refused", Action::as_str);
            // What a CloudEvent says outside its `data` is no part of a plain command's content either.
            let outside = match (read.known, given.action) {
                (["command_id", ..], None) => &["command_id"],
                (["command_id", ..], Some(_)) if fields.count("action") > 1 => &["command_id"],
                (known, _) => known,
            };
            let content = fingerprint(tag.as_bytes(), fields.canonical_without(outside).as_bytes());
            Decoded::Refused(Refused { given, content, failure, dead_letter: false })
        }
    }
}

fn is_command_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

/// A hash of a kind and a text; the zero byte keeps the two apart.
fn fingerprint(kind: &[u8], text: &[u8]) -> Content {
    use sha2::{Digest, Sha256};
    Content(Sha256::new().chain_update(kind).chain_update([0]).chain_update(text).finalize().into())
}

#[cfg(test)]
mod tests;
