//! Repeats never act, and an account's commands take effect in the order in which they were accepted.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::broker::Message;
use crate::support::stage::{Stage, add, delete, with};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::Settings;

/// A worker that, after a failed call, waits far longer than any test does. Jitter may shorten a wait to nothing, so
/// that no test may count on a single one; scripts answer `always` here.
fn patient(stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.set("retry.initial", "5m").set("retry.max_interval", "5m").set("retry.max_in_process", "8m");
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_delete_does_not_bring_the_account_back() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    let first = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    first.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(worker.terminate().await, Some(0));

    worker.restart().await;
    let again = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    first.assert_repeated_by(&again);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add, Endpoint::Delete], "WeChat is not called again");
    assert!(!stage.wechat.has("anna@test"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_delete_does_not_remove_the_account_again() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.put("anna@test");
    let first = stage.outcome(&delete("c1", "anna@test")).await;
    first.assert_succeeded("deleted");
    stage.outcome(&add("c2", "anna@test", "安娜")).await.assert_succeeded("created");
    let again = stage.outcome(&delete("c1", "anna@test")).await;
    first.assert_repeated_by(&again);
    assert!(stage.wechat.has("anna@test"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_may_spell_and_order_its_fields_another_way() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let first = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    let other_spelling =
        "{ \"nickname\": \"\\u5b89\\u5a1c\",\n \"kf_account\": \"anna@test\", \"action\": \"add\", \"command_id\": \"c1\" }";
    stage.broker.publish(Message::raw(other_spelling)).await;
    first.assert_repeated_by(&stage.events.of("c1").await);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_command_in_flight_waits_for_its_outcome() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.release();
    let (first, second) = (stage.events.of("c1").await, stage.events.of("c1").await);
    first.assert_succeeded("created");
    first.assert_repeated_by(&second);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_other_content_is_rejected_and_the_first_outcome_stands() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let first = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    let conflict = stage.outcome(&add("c1", "anna@test", "Anna")).await;
    conflict.assert_ended("rejected", "command_id_reused");
    assert_ne!(conflict.event_id(), first.event_id(), "an event of its own");
    let other_conflict = stage.outcome(&delete("c1", "anna@test")).await;
    other_conflict.assert_ended("rejected", "command_id_reused");
    assert_ne!(other_conflict.event_id(), conflict.event_id(), "other content is another event");
    let conflict_again = stage.outcome(&add("c1", "anna@test", "Anna")).await;
    assert_eq!(conflict_again.event_id(), conflict.event_id(), "the same content is the same event");
    first.assert_repeated_by(&stage.outcome(&add("c1", "anna@test", "安娜")).await);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_command_keeps_its_id() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let wrong = delete("c1", "anna!@test");
    let first = stage.outcome(&wrong).await;
    first.assert_ended("rejected", "invalid_kf_account");
    first.assert_repeated_by(&stage.outcome(&wrong).await);
    stage.outcome(&delete("c1", "anna@test")).await.assert_ended("rejected", "command_id_reused");
    assert_eq!(stage.wechat.journal().len(), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_not_above_the_latest_is_superseded() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.outcome(&with(add("c7", "anna@test", "安娜"), "revision", 7)).await.assert_succeeded("created");
    stage.outcome(&with(delete("c6", "anna@test"), "revision", 6)).await.assert_ended("superseded", "stale_revision");
    stage.outcome(&with(delete("c7b", "anna@test"), "revision", 7)).await.assert_ended("superseded", "stale_revision");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    stage.outcome(&with(delete("c8", "anna@test"), "revision", 8)).await.assert_succeeded("deleted");
    // Another account has an order of its own.
    stage.outcome(&with(add("b0", "ben@test", "本"), "revision", 0)).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_revision_an_add_must_have_one_and_a_delete_need_not() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.outcome(&with(add("c1", "anna@test", "安娜"), "revision", 1)).await.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    stage.outcome(&add("c3", "anna@test", "安娜")).await.assert_ended("rejected", "revision_required");
    assert!(!stage.wechat.has("anna@test"));
    stage.outcome(&with(add("c4", "anna@test", "安娜"), "revision", 2)).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_behind_a_call_in_flight_run_in_order() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "一")).await;
    held.arrived().await;
    stage.send(&delete("c2", "anna@test")).await;
    stage.send(&add("c3", "anna@test", "三")).await;
    stage.send(&delete("c4", "anna@test")).await;
    stage.send(&add("c5", "anna@test", "五")).await;
    stage.ledger().until("c5", "accepted").await;
    held.release();
    let events = stage.events.collect(5).await;
    let order: Vec<_> = events.iter().map(|event| (event.command_id(), event.effect())).collect();
    assert_eq!(order, [("c1", "created"), ("c2", "deleted"), ("c3", "created"), ("c4", "deleted"), ("c5", "created")]);
    assert_eq!(stage.wechat.nickname("anna@test").as_deref(), Some("五"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_supersedes_an_add_that_waits_and_does_not_wait_for_it() {
    let mut stage = Stage::new().await;
    let settings = patient(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.ledger().until("c1", "waiting").await;
    let deleted = stage.outcome(&delete("c2", "anna@test")).await;
    deleted.assert_succeeded("none");
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    assert_eq!(stage.wechat.changes("anna@test").last(), Some(&Endpoint::Delete), "nothing is called after the delete");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_supersedes_an_add_that_waits() {
    let mut stage = Stage::new().await;
    let settings = patient(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    stage.send(&add("c1", "anna@test", "一")).await;
    stage.ledger().until("c1", "waiting").await;
    stage.wechat.recover();
    stage.outcome(&add("c2", "anna@test", "二")).await.assert_succeeded("created");
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    assert_eq!(stage.wechat.nickname("anna@test").as_deref(), Some("二"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_waits_for_a_delete_that_waits() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.put("anna@test");
    stage.wechat.always(Endpoint::Delete, Some("anna@test"), Answer::Errcode(-1));
    stage.send(&delete("c1", "anna@test")).await;
    stage.wechat.until_answered(Endpoint::Delete, "anna@test", 1).await;
    stage.send(&add("c2", "anna@test", "二")).await;
    stage.ledger().until("c2", "accepted").await;
    stage.wechat.until_answered(Endpoint::Delete, "anna@test", 3).await;
    assert!(!stage.wechat.changes("anna@test").contains(&Endpoint::Add), "the add waits for the delete");
    stage.wechat.recover();
    stage.events.of("c1").await.assert_succeeded("deleted");
    stage.events.of("c2").await.assert_succeeded("created");
    assert_eq!(stage.wechat.nickname("anna@test").as_deref(), Some("二"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_add_sent_before_the_last_delete_is_superseded() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.put("anna@test");
    stage.outcome(&delete("c1", "anna@test")).await.assert_succeeded("deleted");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    stage.broker.publish(Message::json(&add("old", "anna@test", "安娜")).timestamp(now - 3600)).await;
    stage.events.of("old").await.assert_ended("superseded", "sent_before_delete");
    assert!(!stage.wechat.has("anna@test"));
    stage.broker.publish(Message::json(&add("new", "anna@test", "安娜")).timestamp(now + 60)).await;
    stage.events.of("new").await.assert_succeeded("created");

    let event = json!({
        "specversion": "1.0", "id": "old-event", "type": "kf.add", "source": "hr", "time": "2020-01-01T00:00:00Z",
        "data": {"kf_account": "anna@test", "nickname": "安娜"},
    });
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    stage.broker.publish(Message::json(&event).content_type("application/cloudevents+json")).await;
    stage.events.of("old-event").await.assert_ended("superseded", "sent_before_delete");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn different_accounts_run_side_by_side() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut anna = stage.wechat.hold(Endpoint::Add, "anna@test");
    let mut ben = stage.wechat.hold(Endpoint::Add, "ben@test");
    stage.send(&add("a1", "anna@test", "安娜")).await;
    stage.send(&add("b1", "ben@test", "本")).await;
    anna.arrived().await;
    ben.arrived().await;
    ben.release();
    stage.events.next().await.assert_succeeded("created");
    anna.release();
    let last = stage.events.next().await;
    assert_eq!(last.command_id(), "a1");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_finds_nothing_asks_again_while_a_lost_add_may_still_land() {
    let mut stage = Stage::new().await;
    let mut settings = patient(&stage);
    settings.set("wechat.request_timeout", "1s");
    let worker = stage.worker_with(&settings).await;
    // The add's answer is lost; WeChat has not done it yet, and does it after the first delete was answered.
    let mut lost = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    lost.arrived().await;
    drop(lost);
    stage.ledger().until("c1", "waiting").await;
    stage.send(&delete("c2", "anna@test")).await;
    stage.wechat.until_answered(Endpoint::Delete, "anna@test", 1).await;
    stage.wechat.put("anna@test");
    stage.events.of("c2").await.assert_succeeded("deleted");
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    assert!(!stage.wechat.has("anna@test"), "the late add does not survive the delete");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
