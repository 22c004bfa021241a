//! The part of the status page that tells how far one command has come, by its id.

use axum::extract::{Query, State};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::words::{self, clip, moment, number};
use super::{Port, outcomes, page};
use crate::event::Conclusion;
use crate::ledger::{Lookup, Stage, Unfinished};
use crate::outcome::{Answer, Effect};

/// A command id is no longer.
const LONGEST_ID: usize = 128;

/// What is looked up.
#[derive(Deserialize)]
pub struct Asked {
    id: Option<String>,
}

/// Of an event's data, what may be shown and stands nowhere else: neither nickname nor `meta`.
#[derive(Deserialize)]
struct Data {
    effect: Option<Effect>,
    error: Option<ErrorData>,
    attempts: u32,
    received_at: Timestamp,
}

#[derive(Deserialize)]
struct ErrorData {
    errcode: Option<i64>,
    errmsg: Option<String>,
}

/// `GET /command?id=…`
pub async fn look_up(State(port): State<Port>, Query(asked): Query<Asked>) -> Response {
    let command_id = asked.id.unwrap_or_default();
    // What was pasted may have brought blanks along.
    let command_id = command_id.trim();
    let answer = if command_id.is_empty() {
        html! { p { "Give the id of a command." } }
    } else if command_id.len() > LONGEST_ID || !command_id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        html! { p { "This is no command id: one is 1 to 128 printable ASCII characters." } }
    } else {
        let progress = port.shown.recall.find(command_id.to_owned()).await;
        show(command_id, &progress, Timestamp::now())
    };
    let body = html! {
        header.headline {
            p.name { a href="/" { "← kf-worker" } }
            h1 { "Look up a command" }
        }
        (form(command_id))
        (answer)
    };
    page::respond("Look up a command", None, &body)
}

/// Asks for a command id.
pub fn form(command_id: &str) -> Markup {
    html! {
        form action="/command" method="get" role="search" {
            label for="id" { "Command id" }
            div.field {
                input #id type="text" name="id" value=(command_id) maxlength=(LONGEST_ID) autocomplete="off" autocapitalize="off" spellcheck="false" required;
                button type="submit" { "Look up" }
            }
        }
    }
}

fn show(command_id: &str, progress: &Result<Lookup, String>, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="answer" {
            @match progress {
                Err(trouble) => {
                    h2 #answer { span.mark aria-hidden="true" { "▲" } " The ledger can't be read" }
                    p { (trouble) }
                }
                Ok(Lookup::Unknown) => {
                    h2 #answer { "Unknown" }
                    p { "The ledger does not know " code { (command_id) } "." }
                    ul {
                        li { "No command with this id was ever taken: it may still be in a queue, or it was sent to another broker or prefix." }
                        li { "Or it could not be read, or its sender may not order it: then it is in the dead letters; see " code { "kf-worker dead list" } "." }
                        li { "Or it ended longer ago than " code { "ledger.retention" } "." }
                    }
                }
                Ok(Lookup::Unfinished(command)) => { (unfinished(command_id, command, now)) }
                Ok(Lookup::Finished(finished)) => { (ended(&finished.conclusion, now)) }
            }
        }
    }
}

fn field(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn unfinished(command_id: &str, command: &Unfinished, now: Timestamp) -> Markup {
    let stage = match command.stage {
        Stage::Accepted => "It was accepted and waits for its turn.",
        Stage::Calling => "A call to WeChat is under way.",
        Stage::Waiting => "It waits, and will be tried again.",
        Stage::Abandoned => "Its worker died during a call; it will be tried again.",
    };
    html! {
        h2 #answer { "Unfinished" }
        p { (stage) }
        dl.fields {
            (field("Command id", html! { (command_id) }))
            (field("kf account", html! { (outcomes::account(command.kf_account.as_deref())) }))
            (field("Action", html! { (command.action.map_or("unknown", crate::outcome::Action::as_str)) }))
            @if let Some((reason, since)) = command.trouble {
                (field("Waits for", words::reason_and_advice(reason)))
                (field("Since", moment(since, now)))
            }
            @if let Some(answer) = &command.answer { (field("WeChat's latest answer", words::answer(answer))) }
            (field("Calls begun", html! { (number(command.attempts.into())) }))
            (field("Received", moment(command.received_at, now)))
            (field("Message last seen", moment(command.seen_at, now)))
        }
    }
}

fn ended(conclusion: &Conclusion, now: Timestamp) -> Markup {
    let data: Option<Data> = serde_json::from_str(&conclusion.data).ok();
    let error = data.as_ref().and_then(|data| data.error.as_ref());
    let answer = error.and_then(|error| Some(Answer { errcode: error.errcode?, errmsg: error.errmsg.clone().unwrap_or_default() }));
    html! {
        h2 #answer { (outcomes::status(conclusion.status)) }
        dl.fields {
            (field("Command id", html! { (conclusion.command_id) }))
            (field("kf account", html! { (outcomes::account(conclusion.kf_account.as_deref())) }))
            (field("Action", html! { (outcomes::action(conclusion)) }))
            @if let Some(effect) = data.as_ref().and_then(|data| data.effect) { (field("Effect", html! { code { (effect) } ": " (meaning(effect)) })) }
            @if let Some(reason) = conclusion.reason { (field("Reason", words::reason_and_advice(reason))) }
            @if !conclusion.detail.is_empty() { (field("Detail", html! { (clip(&conclusion.detail)) })) }
            @if let Some(answer) = answer { (field("WeChat's answer", words::answer(&answer))) }
            @if let Some(data) = data {
                (field("Calls begun", html! { (number(data.attempts.into())) }))
                (field("Received", moment(data.received_at, now)))
            }
            (field("Ended", moment(conclusion.finished_at, now)))
        }
    }
}

fn meaning(effect: Effect) -> &'static str {
    match effect {
        Effect::Created => "this command made the account.",
        Effect::Deleted => "this command removed the account.",
        Effect::None => "the wanted state held already.",
        Effect::Unknown => "the wanted state holds; an earlier call of this command, whose answer was lost, may have made it so.",
    }
}
