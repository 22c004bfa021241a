//! The published result: a structured CloudEvent whose `data` is made once and kept byte for byte.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::command::{Content, Given};
use crate::outcome::{Action, Effect, Outcome, Reason, Status};

/// The content type of every event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// The version of CloudEvents.
pub const SPEC_VERSION: &str = "1.0";
/// Who all events are from.
pub const SOURCE: &str = "kf-worker";
/// What kind of text `data` is.
const DATA_CONTENT_TYPE: &str = "application/json";

/// A concluded command: all that is needed to publish its event, again and again the same.
#[derive(Debug, Clone)]
pub struct Conclusion {
    pub command_id: String,
    pub identity: Identity,
    pub action: Option<Action>,
    pub kf_account: Option<String>,
    pub status: Status,
    /// Why it did not succeed, for metrics, logs and dead letters.
    pub reason: Option<Reason>,
    /// The sentence that goes with the reason.
    pub detail: String,
    pub finished_at: Timestamp,
    /// The event's `data`, JSON.
    pub data: String,
}

/// What an event id is derived from besides the command id, so that a consumer can drop repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The outcome of the command; each replay of a dead letter is a generation of its own, the first is 0.
    Generation(u32),
    /// The answer to an id used again with other content.
    OtherContent(Content),
    /// The answer to a sender without the right to order this.
    NotAuthorised(Content),
}

/// The `data` of a result event: what the producer gave, as far as it could be read, and what became of it. What was not
/// given is left out. New fields may come with a new version: read those that you know.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResultData")]
pub struct Data<'a> {
    /// The id of the command, by which a producer finds its result.
    #[schemars(length(min = 1, max = 128))]
    command_id: &'a str,
    /// Left out where it was neither `add` nor `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    /// As given, even where it was not well-formed.
    #[serde(skip_serializing_if = "Option::is_none")]
    kf_account: Option<&'a str>,
    /// As given, even where it broke a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<&'a str>,
    /// The producer's own order of this account's commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    revision: Option<i64>,
    /// The producer's own, in the producer's own spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    meta: Option<&'a RawValue>,
    status: Status,
    /// With `succeeded`, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    /// `true` where an `add` found the account with another nickname. Left out where it did not, or where WeChat's list was
    /// not asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("const" = true))]
    nickname_differs: bool,
    /// With every status but `succeeded`, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorData<'a>>,
    /// Calls to WeChat begun for this command, all deliveries and replays together.
    attempts: u32,
    /// When the worker first had it; RFC 3339, UTC.
    #[schemars(with = "Instant")]
    received_at: Timestamp,
    /// When this outcome was reached; RFC 3339, UTC.
    #[schemars(with = "Instant")]
    finished_at: Timestamp,
}

/// Why a command did not succeed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResultError")]
struct ErrorData<'a> {
    reason: Reason,
    /// WeChat's number, where it answered.
    errcode: Option<i64>,
    /// WeChat's text, where it answered; its `rid` is what WeChat's support asks for.
    errmsg: Option<&'a str>,
    /// What is wrong and what to do, in a sentence for people.
    detail: &'a str,
}

/// How a time is written.
#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "date-time", "pattern" = "Z$"))]
struct Instant(#[expect(dead_code, reason = "only its schema is used")] String);

/// The story of a command in numbers.
#[derive(Debug, Clone, Copy)]
pub struct History {
    /// Calls to WeChat begun for this command.
    pub attempts: u32,
    pub received_at: Timestamp,
    pub finished_at: Timestamp,
}

/// The id of the dead letter that a generation of a command leaves.
pub fn dead_letter_id(command_id: &str, generation: u32) -> String {
    format!("{command_id}/dead/{generation}")
}

/// The generation that left a dead letter, where its id is one of this command's.
pub fn generation_of_dead_letter(dead_id: &str, command_id: &str) -> Option<u32> {
    dead_id.strip_prefix(command_id)?.strip_prefix("/dead/")?.parse().ok()
}

/// The present, in the whole milliseconds that events and ledger carry.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    // Cutting a valid time short leaves a valid one.
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// The time since then; none where it is still to come.
pub fn since(then: Timestamp) -> Duration {
    Timestamp::now().duration_since(then).try_into().unwrap_or_default()
}

/// Joins a command with its outcome. Equal input gives equal bytes.
pub fn conclude(given: &Given, identity: Identity, outcome: &Outcome, history: History) -> Conclusion {
    let failure = outcome.failure();
    let success = match outcome {
        Outcome::Succeeded(success) => Some(success),
        _ => None,
    };
    let data = Data {
        command_id: &given.command_id,
        action: given.action,
        kf_account: given.kf_account.as_deref(),
        nickname: given.nickname.as_deref(),
        revision: given.revision,
        meta: given.meta.as_deref(),
        status: outcome.status(),
        effect: success.map(|success| success.effect),
        nickname_differs: success.is_some_and(|success| success.nickname_differs),
        error: failure.map(|failure| ErrorData {
            reason: failure.reason,
            errcode: failure.answer.as_ref().map(|answer| answer.errcode),
            errmsg: failure.answer.as_ref().map(|answer| answer.errmsg.as_str()),
            detail: &failure.detail,
        }),
        attempts: history.attempts,
        received_at: history.received_at,
        finished_at: history.finished_at,
    };
    Conclusion {
        command_id: given.command_id.clone(),
        identity,
        action: given.action,
        kf_account: given.kf_account.clone(),
        status: outcome.status(),
        reason: failure.map(|failure| failure.reason),
        detail: failure.map(|failure| failure.detail.clone()).unwrap_or_default(),
        finished_at: history.finished_at,
        // Strings, numbers and times always serialise; no map has a key that is not text.
        data: serde_json::to_string(&data).unwrap_or_default(),
    }
}

/// An event as it goes to the broker.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub routing_key: String,
    pub command_id: String,
    pub time: Timestamp,
    pub body: Vec<u8>,
}

/// The result of a command: a CloudEvent 1.0 in structured form. New attributes and fields may come with a new version: read
/// those that you know.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Result")]
pub struct Envelope<'a> {
    #[schemars(extend("const" = SPEC_VERSION))]
    specversion: &'a str,
    /// Derived from the command's id, and the same however often the event comes: drop what you have seen. A dead letter
    /// that is replayed ends in an event with an id of its own.
    #[schemars(length(min = 1))]
    id: &'a str,
    #[schemars(extend("const" = SOURCE))]
    source: &'a str,
    /// `kf.<action>.<status>`, whatever `amqp.prefix` is; `kf.unknown.rejected` where the action could not be read.
    #[serde(rename = "type")]
    #[schemars(title = "ResultType")]
    kind: &'a str,
    /// The `kf_account` of the command, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    subject: Option<&'a str>,
    /// When the outcome was reached; RFC 3339, UTC.
    #[schemars(with = "Instant")]
    time: Timestamp,
    #[schemars(extend("const" = DATA_CONTENT_TYPE))]
    datacontenttype: &'a str,
    #[schemars(with = "Data<'a>")]
    data: &'a RawValue,
}

/// An event's `data` as whoever reads it finds it. Words are texts: a newer worker may know more of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Told {
    pub command_id: String,
    pub action: Option<String>,
    pub kf_account: Option<String>,
    pub nickname: Option<String>,
    pub revision: Option<i64>,
    pub status: String,
    pub effect: Option<String>,
    pub error: Option<ToldError>,
    pub attempts: u32,
    pub received_at: Timestamp,
    pub finished_at: Timestamp,
}

/// Why a command did not succeed, likewise.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ToldError {
    pub reason: String,
    pub errcode: Option<i64>,
    pub detail: String,
}

/// What the log tells of an event's `data`; the rest of it is passed over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Brief<'a> {
    pub attempts: u32,
    #[serde(borrow)]
    pub effect: Option<&'a str>,
}

impl Told {
    /// Reads an event's `data`; nothing where it is none.
    pub fn read(data: &str) -> Option<Self> {
        serde_json::from_str(data).ok()
    }
}

/// The `data` of a published event, as it stands in the body; nothing where that is no event.
pub fn data_of(body: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Published<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    serde_json::from_slice::<Published<'_>>(body).ok().map(|published| published.data.get())
}

/// The same `data` on one line: a `meta` that came with line breaks between its values has kept them.
pub fn on_one_line(data: &str) -> Cow<'_, str> {
    // Within a text JSON writes a line break as \n, so that these stand between values.
    if data.contains(['\n', '\r']) { data.replace(['\n', '\r'], " ").into() } else { data.into() }
}

impl Conclusion {
    /// What its `data` says besides.
    pub fn told(&self) -> Told {
        // Written by this file, it can be read.
        Told::read(&self.data).unwrap_or_default()
    }

    /// The same, for the log.
    pub fn told_briefly(&self) -> Brief<'_> {
        serde_json::from_str(&self.data).unwrap_or_default()
    }

    /// The event that tells of this conclusion; the same one each time.
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        let id = match self.identity {
            Identity::Generation(generation) => format!("{}/result/{generation}", self.command_id),
            Identity::OtherContent(content) => format!("{}/reused/{}", self.command_id, content.short()),
            Identity::NotAuthorised(content) => format!("{}/not-authorised/{}", self.command_id, content.short()),
        };
        let routing_key = format!("{}.{}", self.action.map_or("unknown", Action::as_str), self.status);
        let kind = format!("kf.{routing_key}");
        let body = serde_json::to_vec(&Envelope {
            specversion: SPEC_VERSION,
            id: &id,
            source: SOURCE,
            kind: &kind,
            // CloudEvents asks for a subject that is not empty.
            subject: self.kf_account.as_deref().filter(|subject| !subject.is_empty()),
            time: self.finished_at,
            datacontenttype: DATA_CONTENT_TYPE,
            data: serde_json::from_str(&self.data)?,
        })?;
        Ok(Event { id, kind, routing_key, command_id: self.command_id.clone(), time: self.finished_at, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Answer, Effect, Failure};

    fn given() -> Given {
        let meta = RawValue::from_string(r#"{"b":1.0, "a":"员工"}"#.to_owned()).unwrap();
        let kf_account = Some("test1@test".to_owned());
        Given {
            command_id: "c1".to_owned(),
            action: Some(Action::Add),
            kf_account,
            nickname: Some("客服1".to_owned()),
            revision: None,
            meta: Some(meta),
        }
    }

    fn history() -> History {
        let at = |text: &str| text.parse().unwrap();
        History { attempts: 2, received_at: at("2026-01-02T03:04:05Z"), finished_at: at("2026-01-02T03:04:06.25Z") }
    }

    #[test]
    fn a_success_carries_an_effect_and_no_error() {
        let conclusion = conclude(&given(), Identity::Generation(0), &Outcome::Succeeded(Effect::Created.into()), history());
        let expected = r#"{"command_id":"c1","action":"add","kf_account":"test1@test","nickname":"客服1","meta":{"b":1.0, "a":"员工"},"status":"succeeded","effect":"created","attempts":2,"received_at":"2026-01-02T03:04:05Z","finished_at":"2026-01-02T03:04:06.25Z"}"#;
        assert_eq!(conclusion.data, expected);
        let event = conclusion.event().unwrap();
        assert_eq!(
            (event.id.as_str(), event.routing_key.as_str(), event.kind.as_str()),
            ("c1/result/0", "add.succeeded", "kf.add.succeeded")
        );
        assert!(String::from_utf8(event.body).unwrap().ends_with(&format!(r#""data":{expected}}}"#)));
    }

    #[test]
    fn the_data_of_an_event_is_read_back_as_it_was_written() {
        let conclusion = conclude(&given(), Identity::Generation(0), &Outcome::Succeeded(Effect::Created.into()), history());
        let body = conclusion.event().unwrap().body;
        let data = data_of(&body).unwrap();
        assert_eq!(data, conclusion.data);
        let told = Told::read(data).unwrap();
        assert_eq!((told.command_id.as_str(), told.effect.as_deref(), told.attempts), ("c1", Some("created"), 2));
        assert_eq!((told.received_at, told.finished_at), (history().received_at, history().finished_at));
        assert!(data_of(b"{}").is_none() && data_of(b"\xff").is_none());
    }

    #[test]
    fn line_breaks_between_values_go_and_those_of_a_text_stay() {
        assert_eq!(on_one_line("{\"meta\":{\r\n \"a\":\"x\\ny\"}}"), "{\"meta\":{   \"a\":\"x\\ny\"}}");
    }

    #[test]
    fn a_dead_letters_id_names_command_and_generation() {
        assert_eq!(generation_of_dead_letter(&dead_letter_id("c/dead/7", 3), "c/dead/7"), Some(3));
        assert_eq!(generation_of_dead_letter(&dead_letter_id("c1", 3), "c"), None);
        assert_eq!(generation_of_dead_letter("c/dead/x", "c"), None);
    }

    #[test]
    fn a_failure_carries_wechats_words_or_null() {
        let answer = Some(Answer { errcode: 65403, errmsg: "invalid nickname rid: 1-2-3".to_owned() });
        let failure = Failure { reason: Reason::NicknameRefused, answer, detail: "WeChat refused it.".to_owned() };
        let told = conclude(&given(), Identity::Generation(0), &Outcome::Failed(failure), history());
        assert!(told.data.contains(
            r#""error":{"reason":"nickname_refused","errcode":65403,"errmsg":"invalid nickname rid: 1-2-3","detail":"WeChat refused it."}"#
        ));
        let untold = Outcome::Rejected(Failure::new(Reason::NotAJsonObject, "no"));
        let untold = conclude(&Given::only_id("c2"), Identity::Generation(0), &untold, history());
        assert!(untold.data.contains(r#""errcode":null,"errmsg":null"#));
        assert_eq!(untold.event().unwrap().routing_key, "unknown.rejected");
    }
}
