//! The crash table: a worker killed at each point of a command's way, and what its next life makes of it.

use serde_json::json;

use crate::support::eventually;
use crate::support::proxy::{Proxy, Role};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// Makes a test for each kind of ledger of each row of the table.
macro_rules! for_every_ledger {
    ($($name:ident,)+) => {
        mod in_a_file {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Stage::new().await).await; })+
        }
        mod in_a_database {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Stage::on_postgres().await).await; })+
        }
    };
}

for_every_ledger! {
    killed_after_decoding_it_starts_anew,
    killed_after_accepting_it_keeps_the_order,
    killed_before_wechat_answered_it_calls_again,
    killed_after_wechat_added_it_finds_the_account_and_does_not_claim_to_know_who_made_it,
    killed_after_wechat_deleted_it_finds_no_account_and_does_not_claim_to_know_who_removed_it,
    killed_after_recording_it_publishes_the_stored_outcome,
    killed_after_publishing_it_publishes_the_same_event_again,
    killed_after_putting_it_off_and_before_the_ledger_knows_one_copy_is_the_outcome,
    killed_after_putting_it_off_and_before_acknowledging_one_copy_is_the_outcome,
}

/// Waits until the broker has handed out every message of a queue.
async fn until_taken(stage: &Stage) {
    eventually("the worker has taken the command", async || (stage.broker.ready("commands").await? == 0).then_some(())).await;
}

async fn killed_after_decoding_it_starts_anew(mut stage: Stage) {
    let mut worker = stage.worker().await;
    let lock = stage.ledger().lock();
    stage.send(&add("c1", "anna@test", "安娜")).await;
    until_taken(&stage).await;
    assert_eq!(stage.ledger().entry("c1"), None, "it is not accepted while the ledger can't be written");
    worker.kill().await;
    drop(lock);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_after_accepting_it_keeps_the_order(mut stage: Stage) {
    let mut settings = stage.settings();
    settings.set("worker.concurrency", 1);
    let mut worker = stage.worker_with(&settings).await;
    let mut first = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("a1", "anna@test", "安娜")).await;
    first.arrived().await;
    stage.send(&add("b1", "ben@test", "本")).await;
    stage.send(&delete("b2", "ben@test")).await;
    let accepted = [stage.ledger().until("b1", "accepted").await, stage.ledger().until("b2", "accepted").await];
    assert!(accepted[0].position < accepted[1].position, "{accepted:?}");
    worker.kill().await;
    drop(first);

    worker.restart().await;
    stage.events.of("a1").await.assert_succeeded("created");
    let (added, deleted) = (stage.events.of("b1").await, stage.events.of("b2").await);
    // The dead worker's add may be taken as overtaken by the delete, or run before it; never after it.
    match added.status() {
        "succeeded" => {
            assert_eq!(stage.wechat.changes("ben@test"), [Endpoint::Add, Endpoint::Delete]);
            deleted.assert_succeeded("deleted");
        }
        _ => {
            added.assert_ended("superseded", "newer_command");
            assert_eq!(stage.wechat.changes("ben@test"), [Endpoint::Delete]);
            deleted.assert_succeeded("none");
        }
    }
    assert!(!stage.wechat.has("ben@test"));
    for (command_id, before) in ["b1", "b2"].into_iter().zip(accepted) {
        assert_eq!(stage.ledger().entry(command_id).map(|entry| entry.position), Some(before.position));
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_before_wechat_answered_it_calls_again(mut stage: Stage) {
    let mut worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    worker.kill().await;
    drop(held);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2, "the call that the dead worker began counts");
    assert_eq!(stage.wechat.changes("anna@test").len(), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_after_wechat_added_it_finds_the_account_and_does_not_claim_to_know_who_made_it(mut stage: Stage) {
    let mut worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    held.work();
    worker.kill().await;
    drop(held);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    assert_eq!(event.attempts(), 2);
    assert!(stage.wechat.has("anna@test"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_after_wechat_deleted_it_finds_no_account_and_does_not_claim_to_know_who_removed_it(mut stage: Stage) {
    let mut worker = stage.worker().await;
    stage.wechat.put("anna@test");
    let mut held = stage.wechat.hold(Endpoint::Delete, "anna@test");
    stage.send(&delete("c1", "anna@test")).await;
    held.arrived().await;
    held.work();
    worker.kill().await;
    drop(held);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    assert_eq!(event.attempts(), 2);
    assert!(!stage.wechat.has("anna@test"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_after_recording_it_publishes_the_stored_outcome(mut stage: Stage) {
    let proxy = Proxy::start().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url());
    let mut worker = stage.worker_with(&settings).await;
    proxy.withhold(Role::Publish);
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.ledger().until("c1", "finished").await;
    worker.kill().await;
    proxy.cut();
    assert_eq!(stage.events.rest().await.len(), 0, "nothing was published");
    // Whoever asked WeChat again would now be told another thing than the first life was.
    stage.wechat.remove("anna@test");

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add], "WeChat is called once in all");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_after_publishing_it_publishes_the_same_event_again(mut stage: Stage) {
    let proxy = Proxy::start().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url());
    let mut worker = stage.worker_with(&settings).await;
    proxy.withhold(Role::Consume);
    stage.send(&add("c1", "anna@test", "安娜")).await;
    let first = stage.events.of("c1").await;
    first.assert_succeeded("created");
    worker.kill().await;
    proxy.cut();

    worker.restart().await;
    let second = stage.events.of("c1").await;
    first.assert_repeated_by(&second);
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add], "WeChat is called once in all");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

/// A worker that puts a command off as soon as its Official Account asks for a pause.
fn hasty(stage: &Stage) -> crate::support::worker::Settings {
    let mut settings = stage.settings();
    settings.set("retry.defer", json!(["2s"])).set("retry.max_in_process", "1s").set("retry.probe_interval", "2s");
    settings
}

async fn until_put_off(stage: &Stage) {
    let put_off = async || (stage.broker.ready("deferred.2s").await? == 1).then_some(());
    eventually("a copy waits in the deferred queue", put_off).await;
}

async fn killed_after_putting_it_off_and_before_the_ledger_knows_one_copy_is_the_outcome(mut stage: Stage) {
    let settings = hasty(&stage);
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let lock = stage.ledger().lock();
    held.answer(Answer::Errcode(48001));
    until_put_off(&stage).await;
    assert_eq!(stage.ledger().entry("c1").map(|entry| entry.state).as_deref(), Some("running"), "it knows of the call alone");
    worker.kill().await;
    drop(lock);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    // The first life began a call and could not record its answer, so that who made the account is known all the same:
    // WeChat says "done" only to the one who made it.
    event.assert_succeeded("created");
    // Two copies, the original and the one put off: the first to finish is the outcome, the other repeats it.
    event.assert_repeated_by(&stage.events.of("c1").await);
    assert_eq!(stage.wechat.changes("anna@test").len(), 2, "refused once and done once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

async fn killed_after_putting_it_off_and_before_acknowledging_one_copy_is_the_outcome(mut stage: Stage) {
    let proxy = Proxy::start().await;
    let mut settings = hasty(&stage);
    settings.set("amqp.url", proxy.url());
    let mut worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(48001));
    proxy.withhold(Role::Consume);
    stage.send(&add("c1", "anna@test", "安娜")).await;
    until_put_off(&stage).await;
    stage.ledger().until("c1", "waiting").await;
    worker.kill().await;
    proxy.cut();

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    // Two copies, the original and the one put off: the first to finish is the outcome, the other repeats it.
    event.assert_repeated_by(&stage.events.of("c1").await);
    assert_eq!(stage.wechat.changes("anna@test").len(), 2, "refused once and done once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
