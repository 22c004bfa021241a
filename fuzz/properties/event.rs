//! Whatever becomes of a command: its event is JSON that reads back as what was put in, the same bytes each time.
//!
//! An input is a message (properties and headers, an empty line, the body), with the outcome among its headers: `outcome: failed`,
//! `reason: nickname_refused`, `errcode: 65403`, `errmsg: x`, `detail: x`, `effect: created`, `attempts: 2`, `generation: 1`.

use jiff::Timestamp;
use serde_json::Value;

use super::commands::is_id;
use super::reading::message;
use crate::command::{Content, Decoded, Given, Message, decode};
use crate::event::{Conclusion, Event, History, Identity, Told, conclude, data_of, on_one_line};
use crate::outcome::{Action, Answer, Effect, Failure, Outcome, Reason, Success};

pub fn holds(input: &[u8]) -> bool {
    let Some(message) = message(input) else { return false };
    let Some((given, content)) = given(&message) else { return false };
    let (Some(outcome), Some(history)) = (outcome(&message), history(&message)) else { return false };
    let identity = match header(&message, "generation").map(str::parse) {
        Some(Ok(generation)) => Identity::Generation(generation),
        Some(Err(_)) => Identity::NotAuthorised(content),
        None => Identity::OtherContent(content),
    };
    let conclusion = conclude(&given, identity, &outcome, history);
    let event = conclusion.event().unwrap_or_else(|error| panic!("no event is made of {}: {error}", conclusion.data));
    let again = conclude(&given, identity, &outcome, history).event().expect("it was made before");
    assert_eq!(event.body, again.body);
    assert_envelope(&event, &given);
    assert_data(&conclusion, &event, &given);
    assert_told(&conclusion.told(), &given, &outcome, history);
    true
}

/// What is known of the command, as the worker has it where it concludes one.
fn given(message: &Message) -> Option<(Given, Content)> {
    match decode(message) {
        Decoded::Command(command) => Some((command.given, command.content)),
        Decoded::Refused(refused) => Some((refused.given, refused.content)),
        Decoded::Unreadable(_) => None,
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.get(name).map(String::as_str)
}

fn outcome(message: &Message) -> Option<Outcome> {
    let text = |name| header(message, name);
    let word = text("outcome")?;
    if word == "succeeded" {
        let effect = Effect::from_word(text("effect")?)?;
        return Some(Outcome::Succeeded(Success { effect, nickname_differs: text("differs").is_some() }));
    }
    let answer = text("errcode").and_then(|code| code.parse().ok());
    let answer = answer.map(|errcode| Answer { errcode, errmsg: text("errmsg").unwrap_or_default().to_owned() });
    let failure = Failure { reason: Reason::from_word(text("reason")?)?, answer, detail: text("detail").unwrap_or_default().to_owned() };
    match word {
        "failed" => Some(Outcome::Failed(failure)),
        "rejected" => Some(Outcome::Rejected(failure)),
        "superseded" => Some(Outcome::Superseded(failure)),
        _ => None,
    }
}

fn history(message: &Message) -> Option<History> {
    let at = |name, otherwise| header(message, name).map_or(Some(otherwise), |text| text.parse().ok());
    let attempts = header(message, "attempts").map_or(Some(0), |text| text.parse().ok())?;
    Some(History { attempts, received_at: at("received_at", Timestamp::UNIX_EPOCH)?, finished_at: at("finished_at", Timestamp::MAX)? })
}

/// The attributes are those of CloudEvents, and its texts go into AMQP's short strings and routing keys.
fn assert_envelope(event: &Event, given: &Given) {
    let Value::Object(envelope) = serde_json::from_slice(&event.body).expect("an event is JSON") else { panic!("an event is an object") };
    let text = |name: &str| envelope.get(name).and_then(Value::as_str);
    assert_eq!((text("specversion"), text("source"), text("datacontenttype")), (Some("1.0"), Some("kf-worker"), Some("application/json")));
    assert_eq!((text("id"), text("type")), (Some(event.id.as_str()), Some(event.kind.as_str())));
    assert_eq!(text("subject"), given.kf_account.as_deref().filter(|account| !account.is_empty()));
    assert_eq!(text("time").map(|time| time.parse::<Timestamp>().expect("a time")), Some(event.time));
    assert!(event.id.starts_with(&given.command_id) && is_id(&given.command_id) && event.id.len() <= 255, "{}", event.id);
    assert_eq!(event.kind, format!("kf.{}", event.routing_key));
}

/// The data stands in the event byte for byte, `meta` in the producer's spelling, and on one line it says the same.
fn assert_data(conclusion: &Conclusion, event: &Event, given: &Given) {
    let data = conclusion.data.as_str();
    assert_eq!(data_of(&event.body), Some(data));
    assert!(given.meta.as_ref().is_none_or(|meta| data.contains(&format!("\"meta\":{}", meta.get()))), "{data}");
    let (one_line, read) = (on_one_line(data), |text: &str| serde_json::from_str::<Value>(text).expect("data is JSON"));
    assert!(!one_line.contains(['\n', '\r']) && read(&one_line) == read(data), "{data}");
}

fn assert_told(told: &Told, given: &Given, outcome: &Outcome, history: History) {
    assert_eq!((&told.command_id, &told.kf_account), (&given.command_id, &given.kf_account));
    assert_eq!((&told.nickname, told.revision), (&given.nickname, given.revision));
    assert_eq!(told.action.as_deref(), given.action.map(Action::as_str));
    assert_eq!((told.attempts, told.received_at, told.finished_at), (history.attempts, history.received_at, history.finished_at));
    assert_eq!(told.status, outcome.status().as_str());
    match outcome {
        Outcome::Succeeded(success) => assert_eq!(told.effect.as_deref(), Some(success.effect.as_str())),
        Outcome::Failed(_) | Outcome::Rejected(_) | Outcome::Superseded(_) => assert_eq!(told.effect, None),
    }
    let error = told.error.as_ref().map(|error| (error.reason.as_str(), error.detail.as_str(), error.errcode));
    let failure = outcome.failure().map(|failure| (failure.reason.as_str(), failure.detail.as_str(), failure.answered().0));
    assert_eq!(error, failure);
}
