//! Several workers on one ledger: one takes over from another, and whoever wakes up late says and does nothing more.

mod database_away;
mod moving;

use std::time::Duration;

use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Call, Endpoint};
use crate::support::worker::{Settings, Worker};

/// A call may take so long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// A claim lasts for so much longer.
const SPARE: Duration = Duration::from_secs(5);

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
    two_with(stage, &settings).await
}

async fn two_with(stage: &mut Stage, settings: &Settings) -> (Worker, Worker) {
    let first = stage.worker_with(settings).await;
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
    // So long that nothing of this ends by itself, however slow the machine is.
    let request_timeout = Duration::from_secs(40);
    let settings = settings(&stage).set("wechat.request_timeout", format!("{}s", request_timeout.as_secs())).clone();
    let (mut first, second) = two_with(&mut stage, &settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    held.work();
    first.kill().await;
    drop(held);
    let lasts = "SELECT extract(epoch FROM lease_until - begun_at)::int FROM kf_worker.account JOIN kf_worker.command USING (kf_account)";
    assert_eq!(stage.database().rows(lasts), [[(request_timeout + SPARE).as_secs().to_string()]]);
    // Another account is not held up by the dead worker's claim.
    stage.database().execute("UPDATE kf_worker.account SET lease_until = now() + interval '1 hour'");
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    assert_eq!(calls(&stage, "anna@test", Endpoint::Add).len(), 1, "the claim of the dead worker still lasts");
    let ends = stage.database().rows(
        "UPDATE kf_worker.account SET lease_until = now() + interval '1 second' WHERE kf_account = 'anna@test'
         RETURNING (extract(epoch FROM lease_until) * 1000000)::bigint",
    );
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    assert_eq!(event.attempts(), 2);
    let second_call = calls(&stage, "anna@test", Endpoint::Add)[1].at.as_microsecond();
    let ends: i64 = ends[0][0].parse().expect("a number");
    assert!(second_call >= ends, "{} µs before the claim of the dead worker has run out", ends - second_call);
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
    let settings = settings(&stage).set("wechat.request_timeout", "40s").set("worker.drain", "30s").clone();
    let (mut first, second) = two_with(&mut stage, &settings).await;
    stage.wechat.always(Endpoint::Add, Some("ben@other"), Answer::Errcode(-1));
    stage.send(&add("c1", "ben@other", "本")).await;
    stage.ledger().until("c1", "waiting").await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c2", "anna@test", "安娜")).await;
    held.arrived().await;
    first.signal("TERM").await;
    eventually("it is ending", async || (first.logged("shutting down") == 1).then_some(())).await;
    stage.wechat.recover();
    held.release();
    let event = stage.events.of("c2").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1, "what was in flight has come to its end");
    assert_eq!(first.exit_code().await, Some(0));
    stage.events.of("c1").await.assert_succeeded("created");
    let claimed = "SELECT count(*) FROM kf_worker.account WHERE holder IS NOT NULL";
    assert_eq!(stage.database().rows(claimed), [["0"]]);
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
