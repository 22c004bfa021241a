//! Several workers on one ledger: one takes over from another, and whoever wakes up late says and does nothing more.

mod database_away;
mod moving;

use std::time::Duration;

use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Call, Endpoint};
use crate::support::worker::{Settings, Worker, free_port};

/// A call may take so long, and a claim lasts for five seconds more.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const LEASE: Duration = Duration::from_secs(7);

/// Settings of a fleet whose broker notices soon that a worker does not answer any more.
fn settings(stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    let url = format!("{}?heartbeat=2", settings.get("amqp.url").and_then(serde_json::Value::as_str).expect("it is set"));
    settings.set("amqp.url", url).set("wechat.request_timeout", format!("{}s", REQUEST_TIMEOUT.as_secs()));
    settings
}

/// Two workers, of which the first is the one that gets the commands.
async fn two(stage: &mut Stage) -> (Worker, Worker) {
    let settings = settings(stage);
    let first = stage.worker_with(&settings).await;
    let mut second = stage.spawn_second(settings.clone().set("admin.listen", format!("127.0.0.1:{}", free_port())));
    second.ready().await;
    (first, second)
}

fn calls(stage: &Stage, account: &str, endpoint: Endpoint) -> Vec<Call> {
    stage.wechat.calls(endpoint).into_iter().filter(|call| call.account == account).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_worker_is_killed_the_next_one_waits_for_its_claim_and_goes_on() {
    let mut stage = Stage::on_postgres().await;
    let (mut first, second) = two(&mut stage).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    held.work();
    first.kill().await;
    drop(held);
    // Another account is not held up by the dead worker's claim.
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    assert!(calls(&stage, "anna@test", Endpoint::Add).len() == 1, "the claim of the dead worker still lasts");
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    assert_eq!(event.attempts(), 2);
    let calls = calls(&stage, "anna@test", Endpoint::Add);
    let waited = Duration::try_from(calls[1].at.duration_since(calls[0].at)).expect("in this order");
    assert!(waited > LEASE - Duration::from_secs(1), "{waited:?}");
    assert_eq!(stage.settle(second).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_and_wakes_up_late_publishes_nothing() {
    let mut stage = Stage::on_postgres().await;
    let (mut first, second) = two(&mut stage).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    first.signal("STOP").await;
    held.release();
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    let before = stage.ledger().entry("c1");
    first.signal("CONT").await;
    // Its broker has given it up, so that it comes back as the second in line.
    eventually("it has found out", async || (first.logged("another worker has taken the command's account") == 1).then_some(())).await;
    assert_eq!(first.metric("kf_claims_lost_total").await, Some(1.0));
    first.ready().await;
    assert_eq!(stage.ledger().entry("c1"), before);
    assert_eq!(first.terminate().await, Some(0));
    assert_eq!(stage.settle(second).await.len(), 0, "nothing was published twice");
    assert_eq!(calls(&stage, "anna@test", Endpoint::Add).len(), 2);
    assert_eq!(calls(&stage, "anna@test", Endpoint::Delete).len(), 0, "the account is wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_lands_after_the_delete_of_another_worker_is_undone_by_the_one_who_sent_it() {
    let mut stage = Stage::on_postgres().await;
    let (mut first, mut second) = two(&mut stage).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    first.signal("STOP").await;
    stage.send(&delete("c2", "anna@test")).await;
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    stage.events.of("c2").await.assert_succeeded("none");
    // Only now does WeChat do what it was asked for first.
    held.release();
    eventually("the account is there", async || stage.wechat.has("anna@test").then_some(())).await;
    first.signal("CONT").await;
    eventually("the account is gone again", async || (!stage.wechat.has("anna@test")).then_some(())).await;
    eventually("it says so", async || (first.logged("the account was deleted once more") == 1).then_some(())).await;
    assert_eq!(first.terminate().await, Some(0));
    assert_eq!(second.terminate().await, Some(0));
    assert_eq!(stage.events.rest().await.len(), 0, "one outcome each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_in_order_leaves_nothing_to_wait_for() {
    let mut stage = Stage::on_postgres().await;
    let (mut first, second) = two(&mut stage).await;
    stage.wechat.always(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.ledger().until("c1", "waiting").await;
    assert_eq!(first.terminate().await, Some(0));
    stage.wechat.recover();
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(stage.settle(second).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_read_from_the_database_too() {
    let mut stage = Stage::on_postgres().await;
    let worker = stage.worker().await;
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    let mut result = crate::support::worker::kf_worker();
    result.args(["result", "c1", "--json", "--config"]).arg(worker.config());
    let output = result.output().await.expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told, event.json["data"]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}
