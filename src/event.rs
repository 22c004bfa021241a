//! The published result: a structured CloudEvent whose `data` is made once and kept byte for byte.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::command::{Content, Given};
use crate::outcome::{Action, Effect, Outcome, Reason, Status};

/// The content type of every event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

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

/// What the producer gave and what became of it: the event's `data`.
#[derive(Serialize)]
struct Data<'a> {
    command_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kf_account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    /// Left out where it does not, or where WeChat's list was not asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nickname_differs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorData<'a>>,
    attempts: u32,
    received_at: Timestamp,
    finished_at: Timestamp,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    reason: Reason,
    errcode: Option<i64>,
    errmsg: Option<&'a str>,
    detail: &'a str,
}

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

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: Timestamp,
    datacontenttype: &'a str,
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
            specversion: "1.0",
            id: &id,
            source: "kf-worker",
            kind: &kind,
            // CloudEvents asks for a subject that is not empty.
            subject: self.kf_account.as_deref().filter(|subject| !subject.is_empty()),
            time: self.finished_at,
            datacontenttype: "application/json",
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
