//! Examples of every message: commands as a producer would send them, and the results that the worker itself makes of them.

use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::broker::{DEAD_DETAIL, DEAD_ID, DEAD_PROOF, DEAD_REASON, DEAD_SINCE};
use crate::command::{Content, Given};
use crate::event::{self, History, Identity};
use crate::outcome::{Action, Answer, Effect, Failure, Outcome, Reason};

/// A message with what stands beside its body.
pub struct Example {
    pub name: &'static str,
    pub summary: &'static str,
    pub headers: Option<Value>,
    pub payload: Value,
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn example(name: &'static str, summary: &'static str, payload: Value) -> Example {
    Example { name, summary, headers: None, payload }
}

/// Commands in plain form.
pub fn plain() -> Vec<Example> {
    vec![
        example(
            "add",
            "The least that an add needs.",
            json!({ "command_id": "hr-1", "action": "add", "kf_account": "anna@test", "nickname": "安娜" }),
        ),
        Example {
            headers: Some(json!({ "traceparent": TRACEPARENT })),
            ..example(
                "addInOrder",
                "With the producer's own order, something of its own that comes back in the result, and a trace.",
                json!({
                    "command_id": "hr-2", "action": "add", "kf_account": "anna@test", "nickname": "客服1", "revision": 7,
                    "meta": { "employee": 4711, "ticket": "HR-2026-17" },
                }),
            )
        },
        example(
            "delete",
            "A delete has no nickname.",
            json!({ "command_id": "hr-3", "action": "delete", "kf_account": "anna@test", "revision": 8 }),
        ),
        example(
            "idBesideTheBody",
            "The AMQP property message_id carries the command's id.",
            json!({ "action": "delete", "kf_account": "anna@test" }),
        ),
    ]
}

/// Commands as structured CloudEvents.
pub fn structured() -> Vec<Example> {
    vec![
        example(
            "add",
            "The command's id is the event's, and its action the event's type.",
            json!({
                "specversion": "1.0", "id": "hr-4", "type": "kf.add", "source": "/hr/onboarding", "time": "2026-03-02T08:00:00Z",
                "datacontenttype": "application/json", "traceparent": TRACEPARENT,
                "data": { "kf_account": "anna@test", "nickname": "安娜", "revision": 9, "meta": { "employee": 4711 } },
            }),
        ),
        example(
            "delete",
            "The least that a delete needs.",
            json!({ "specversion": "1.0", "id": "hr-5", "type": "kf.delete", "source": "/hr/offboarding", "data": { "kf_account": "anna@test" } }),
        ),
    ]
}

/// Commands as binary CloudEvents.
pub fn binary() -> Vec<Example> {
    let headers = |id: &str, kind: &str| json!({ "ce-specversion": "1.0", "ce-id": id, "ce-type": kind, "ce-source": "/hr" });
    vec![
        Example {
            headers: Some(headers("hr-6", "kf.add")),
            ..example("add", "The attributes are headers, the body is the data.", json!({ "kf_account": "anna@test", "nickname": "安娜" }))
        },
        Example {
            headers: Some(headers("hr-7", "kf.delete")),
            ..example("delete", "The same for a delete.", json!({ "kf_account": "anna@test" }))
        },
    ]
}

/// Results of every status.
pub fn results() -> Vec<Example> {
    let refused = Failure {
        answer: Some(Answer { errcode: 65403, errmsg: "invalid nickname rid: 61725984-6126f6f9-040f19c4".to_owned() }),
        ..Failure::new(Reason::NicknameRefused, "WeChat refused the nickname. Choose another one and send it under a new id.")
    };
    let unknown =
        Failure::new(Reason::UnknownOfficialAccount, "No [[official_account]] has the WeChat ID `test`. Add it to the configuration.");
    let stale = Failure::new(Reason::StaleRevision, "Its revision 6 is not above 7, the latest accepted one of this account.");
    let field = Failure::new(Reason::UnknownField, "The field `name` is not known. Put your own data into `meta`.");
    let broken = Failure::new(Reason::NotAJsonObject, "The body is not UTF-8 JSON: it breaks at line 1, column 17.");
    vec![
        result("succeeded", "The account was created.", &add("hr-2"), 1, &Outcome::Succeeded(Effect::Created.into())),
        result("alreadyDone", "The account did not exist, as it should.", &delete("hr-3"), 1, &Outcome::Succeeded(Effect::None.into())),
        result("failed", "WeChat answered, and the same call will never succeed.", &add("hr-2"), 1, &Outcome::Failed(refused)),
        result(
            "failedUntried",
            "The worker has no credentials; `dead replay` runs it again.",
            &delete("hr-3"),
            0,
            &Outcome::Failed(unknown),
        ),
        result("superseded", "A newer command came first.", &Given { revision: Some(6), ..add("hr-8") }, 0, &Outcome::Superseded(stale)),
        result("rejected", "The command breaks a rule.", &Given { nickname: None, ..add("hr-9") }, 0, &Outcome::Rejected(field)),
        result("rejectedUnread", "Only message_id could be read.", &Given::only_id("hr-10"), 0, &Outcome::Rejected(broken)),
    ]
}

/// What comes to a `reply_to` alone.
pub fn refusal() -> Example {
    let refused = Failure::new(Reason::NotAuthorised, "The user `guest` is not listed under [[publisher]].");
    let identity = Identity::NotAuthorised(Content([0x5f; 32]));
    let summary = "The sender may not order this. It comes to reply_to alone, and is no outcome of the command.";
    made("notAuthorised", summary, &Given::only_id("hr-11"), identity, 0, &Outcome::Rejected(refused))
}

/// A command that failed, kept for a person.
pub fn dead_letters() -> Vec<Example> {
    let headers = json!({
        DEAD_ID: event::dead_letter_id("hr-1", 0), DEAD_REASON: Reason::NicknameRefused, DEAD_DETAIL: "WeChat refused the nickname.",
        DEAD_SINCE: "2026-03-02T08:00:01.25Z", DEAD_PROOF: "6f1d7a5c0b2e4938a7d6c5b4e3f20119",
    });
    let failed = plain().into_iter().take(1).map(|command| Example {
        name: "failed",
        summary: "A failed command, as it was sent.",
        headers: Some(headers.clone()),
        ..command
    });
    failed.collect()
}

fn add(command_id: &str) -> Given {
    let meta: Option<Box<RawValue>> = to_raw_value(&json!({ "employee": 4711, "ticket": "HR-2026-17" })).ok();
    Given { action: Some(Action::Add), nickname: Some("客服1".to_owned()), revision: Some(7), meta, ..delete(command_id) }
}

fn delete(command_id: &str) -> Given {
    Given { action: Some(Action::Delete), kf_account: Some("anna@test".to_owned()), revision: Some(8), ..Given::only_id(command_id) }
}

fn result(name: &'static str, summary: &'static str, given: &Given, attempts: u32, outcome: &Outcome) -> Example {
    made(name, summary, given, Identity::Generation(0), attempts, outcome)
}

/// An event as the worker would publish it.
fn made(name: &'static str, summary: &'static str, given: &Given, identity: Identity, attempts: u32, outcome: &Outcome) -> Example {
    // Both are times that can be told: some day in March 2026.
    let at = |millisecond: i64| Timestamp::from_millisecond(1_772_438_400_000 + millisecond).unwrap_or_default();
    let history = History { attempts, received_at: at(1_000), finished_at: at(1_250) };
    let event = event::conclude(given, identity, outcome, history).event();
    // What the worker itself has written is JSON.
    let payload = event.ok().and_then(|event| serde_json::from_slice(&event.body).ok()).unwrap_or_default();
    example(name, summary, payload)
}
