//! One line in the log for each outcome, as text and as JSON.

use serde_json::Value;

use super::{TRACE, traced};
use crate::support::broker::Message;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// The lines of a log in JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_one_line_of_json_with_its_ids_and_a_repeat_says_so() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.env("KF_LOG_FORMAT", "json").env("RUST_LOG", "trace").env("KF_FAULT_PANIC", "c5");
    let mut worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::Add, Some("ben@test"), Answer::Errcode(65403));
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    let command = traced(&add("c1", "anna@test", "安娜"));
    stage.broker.publish(command.clone()).await;
    stage.events.of("c1").await.assert_succeeded("created");
    stage.broker.publish(command).await;
    stage.events.of("c1").await.assert_succeeded("created");
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_ended("failed", "nickname_refused");
    stage.broker.publish(Message::raw(r#"{"command_id":"c3","action":"add"}"#)).await;
    stage.events.of("c3").await.assert_ended("rejected", "missing_field");
    stage.outcome(&delete("c1", "anna@test")).await.assert_ended("rejected", "command_id_reused");
    stage.outcome(&add("c5", "dora@test", "朵")).await.assert_ended("failed", "poison");
    assert_eq!(worker.terminate().await, Some(0));

    let log = lines(&worker.log());
    for line in &log {
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
    let outcomes = log.iter().map(|line| &line["fields"]).filter(|fields| fields["message"] == "outcome");
    let told: Vec<String> = outcomes
        .map(|fields| {
            let names = ["command.id", "kf_account", "action", "status", "effect", "reason", "attempts", "repeat", "trace_id"];
            names.map(|name| if fields[name].is_null() { "-".to_owned() } else { fields[name].to_string().replace('"', "") }).join(" ")
        })
        .collect();
    let expected = [
        format!("c1 anna@test add succeeded created - 2 false {TRACE}"),
        format!("c1 anna@test add succeeded created - 2 true {TRACE}"),
        "c2 ben@test add failed - nickname_refused 1 false -".to_owned(),
        "c3 - add rejected - missing_field 0 false -".to_owned(),
        "c1 anna@test delete rejected - command_id_reused 0 false -".to_owned(),
    ];
    assert_eq!(told[..5], expected);
    assert!(told[5].starts_with("c5 dora@test add failed - poison ") && told.len() == 6, "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_begin_says_why_in_json_too() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.env("KF_LOG_FORMAT", "json").set("worker.concurrency", 0);
    let mut worker = stage.spawn(&settings);
    assert_eq!(worker.exit_code().await, Some(78));
    let log = lines(&worker.log());
    assert!(log[0]["fields"]["message"].as_str().is_some_and(|message| message.contains("worker.concurrency")), "{log:?}");
}
