//! Nobody waits for a stranger: an Official Account that hangs, fails, is slowed or has a backlog leaves the others their share.

mod failing;
mod rate;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::stage::{Stage, account, adds};
use crate::support::wechat::{Call, Endpoint, Held, WeChat};
use crate::support::worker::Settings;

/// Settings in which a call that is held counts as one that hangs: nothing ends it in a test's time.
fn patient(stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "60s");
    settings
}

/// Holds the add of each of these commands.
fn hold(wechat: &WeChat, commands: &[Value]) -> Vec<Held> {
    commands.iter().map(|command| wechat.hold(Endpoint::Add, account(command))).collect()
}

/// Lets all of them go, those too that are still to come.
fn release(held: Vec<Held>) {
    held.into_iter().for_each(Held::release);
}

/// The adds and deletes of an Official Account, oldest first.
fn calls(wechat: &WeChat, wechat_id: &str) -> Vec<Call> {
    let suffix = format!("@{wechat_id}");
    wechat.journal().into_iter().filter(|call| call.account.ends_with(&suffix)).collect()
}

/// The accounts whose calls are in flight now.
fn in_flight(wechat: &WeChat) -> Vec<String> {
    wechat.journal().into_iter().filter(|call| !call.ended).map(|call| call.account).collect()
}

async fn until_in_flight(wechat: &WeChat, count: usize) {
    let what = format!("{count} calls are in flight");
    eventually(&what, async || (in_flight(wechat).len() >= count).then_some(())).await;
}

/// All of these commands have created their accounts, in one call each.
fn assert_created<'a>(events: impl IntoIterator<Item = &'a crate::support::broker::Received>) {
    for event in events {
        event.assert_succeeded("created");
        assert_eq!(event.attempts(), 1, "{}", event.data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_official_account_that_hangs_takes_half_of_the_calls_and_the_others_go_on() {
    let mut stage = Stage::new().await;
    let mut settings = patient(&stage);
    settings.set("worker.concurrency", 8);
    let worker = stage.worker_with(&settings).await;
    let (hanging, well) = (adds("a", "test", 20), adds("b", "other", 40));
    let held = hold(&stage.wechat, &hanging);
    stage.send_all(&hanging).await;
    until_in_flight(&stage.wechat, 4).await;
    stage.send_all(&well).await;
    let events = stage.events.collect(40).await;
    assert_created(&events);
    assert!(events.iter().all(|event| event.command_id().ends_with("@other")));
    // None of its calls has ended, so these are all that it ever made.
    assert_eq!(calls(&stage.wechat, "test").len(), 4);
    release(held);
    assert_created(stage.settle_each(worker, &hanging).await.values());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_ready_for_a_call_and_gets_no_place_gives_its_claim_back_and_is_called_once() {
    let mut stage = Stage::new().await;
    let mut settings = patient(&stage);
    settings.set("worker.concurrency", 4);
    let worker = stage.worker_with(&settings).await;
    // Its calls are known to be quick, so that one more may get ready while four are in flight.
    let quick = adds("q", "test", 1);
    stage.send_all(&quick).await;
    assert_created(&stage.events.collect(1).await);
    let commands = adds("a", "test", 5);
    let held = hold(&stage.wechat, &commands);
    stage.send_all(&commands).await;
    until_in_flight(&stage.wechat, 4).await;
    let given_back = "kf_waits_total{reason=\"claim_ran_out\"}";
    eventually("a claim is given back", async || worker.metric(given_back).await.filter(|count| *count >= 1.0)).await;
    assert_eq!(in_flight(&stage.wechat).len(), 4, "no more than `worker.concurrency` are ever in flight");
    assert_eq!(calls(&stage.wechat, "test").len(), 5, "the first one, and those that are held");
    release(held);
    assert_created(stage.settle_each(worker, &commands).await.values());
    assert_eq!(calls(&stage.wechat, "test").len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_alone_whose_calls_are_quick_may_use_more_than_half() {
    let mut stage = Stage::new().await;
    let mut settings = patient(&stage);
    settings.set("worker.concurrency", 4);
    let worker = stage.worker_with(&settings).await;
    let commands = adds("a", "test", 6);
    let held = hold(&stage.wechat, &commands[..5]);
    stage.send(&commands[0]).await;
    until_in_flight(&stage.wechat, 1).await;
    assert_created([&stage.outcome(&commands[5]).await]);
    stage.send_all(&commands[1..5]).await;
    until_in_flight(&stage.wechat, 4).await;
    release(held);
    assert_created(stage.settle_each(worker, &commands[..5]).await.values());
}

/// A worker that puts off what an Official Account has beyond eight commands in hand, once it is slow.
fn narrow(stage: &Stage) -> Settings {
    let mut settings = patient(stage);
    settings.set("worker.concurrency", 16).set("worker.window", 16).set("worker.window_percent", 50).set("worker.slow_after", "300ms");
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn the_further_commands_of_a_slow_official_account_are_put_off_by_the_shortest_delay() {
    let mut stage = Stage::new().await;
    let mut settings = narrow(&stage);
    settings.set("retry.defer", json!(["1s", "10m"]));
    let worker = stage.worker_with(&settings).await;
    let (hanging, well) = (adds("a", "test", 40), adds("b", "other", 40));
    let held = hold(&stage.wechat, &hanging);
    stage.send_all(&hanging[..8]).await;
    until_in_flight(&stage.wechat, 8).await;
    // Time itself is what makes it slow.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    stage.send_all(&hanging[8..]).await;
    stage.send_all(&well).await;
    assert_created(&stage.events.collect(40).await);
    let put_off = "kf_put_off_total{reason=\"window_share\"}";
    eventually("all others are put off", async || worker.metric(put_off).await.filter(|count| *count >= 32.0)).await;
    assert_eq!(calls(&stage.wechat, "test").len(), 8);
    assert_eq!(stage.broker.ready("deferred.10m").await, Some(0));
    release(held);
    assert_created(stage.settle_each(worker, &hanging).await.values());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_hangs_and_came_first_does_not_keep_the_window() {
    let mut stage = Stage::new().await;
    let settings = narrow(&stage);
    let worker = stage.worker_with(&settings).await;
    let (hanging, well) = (adds("a", "test", 40), adds("b", "other", 40));
    let held = hold(&stage.wechat, &hanging);
    stage.send_all(&[hanging.clone(), well].concat()).await;
    assert_created(&stage.events.collect(40).await);
    assert!(calls(&stage.wechat, "test").len() <= 8);
    release(held);
    assert_created(stage.settle_each(worker, &hanging).await.values());
}
