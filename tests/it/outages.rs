//! The broker goes away in every way it can, and comes back: the worker says so, comes back by itself, and every command
//! has one outcome.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions, QueuePurgeOptions};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add};
use crate::support::wechat::{Endpoint, Held};
use crate::support::worker::{Settings, Worker};

/// Adds of accounts of their own, spread over both Official Accounts.
fn adds(count: usize) -> Vec<Value> {
    let wechat_id = |number: usize| if number.is_multiple_of(2) { "test" } else { "other" };
    (0..count).map(|number| add(&format!("c{number}"), &format!("a{number}@{}", wechat_id(number)), "客服")).collect()
}

/// Settings with time enough for calls that are held while a broker dies and comes back.
fn patient(stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "60s");
    settings
}

/// The account of a command.
fn account(command: &Value) -> &str {
    command["kf_account"].as_str().expect("a command names its account")
}

/// Holds the call of each of these commands.
fn hold(stage: &Stage, commands: &[Value]) -> Vec<Held> {
    commands.iter().map(|command| stage.wechat.hold(Endpoint::Add, account(command))).collect()
}

async fn all_arrived(held: &mut [Held]) {
    for call in held {
        call.arrived().await;
    }
}

/// Every command has succeeded in one call: WeChat was asked nothing twice.
async fn assert_each_done_once(mut stage: Stage, worker: Worker, commands: &[Value]) {
    for (_, event) in stage.settle_each(worker, commands).await {
        event.assert_succeeded("created");
    }
    for command in commands {
        assert_eq!(stage.wechat.changes(account(command)), [Endpoint::Add], "{command}");
    }
}

/// The quorum queues that a worker declares.
fn quorum_queues(stage: &Stage) -> Vec<String> {
    ["commands", "dead", "deferred.1s", "deferred.2s"].map(|name| stage.broker.name(name).to_string()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_waited_for_and_every_command_has_one_outcome() {
    let mut node = OwnNode::start();
    let mut stage = Stage::at(node.url()).await;
    stage.broker.keep_events().await;
    let mut worker = stage.worker_with(&patient(&stage)).await;
    node.saved(&quorum_queues(&stage)).await;

    let commands = adds(120);
    let mut held = hold(&stage, &commands[40..60]);
    stage.broker.publish_all(commands.iter().map(Message::json)).await;
    all_arrived(&mut held).await;
    node.kill();
    let reason = worker.not_ready().await;
    assert!(reason.starts_with("disconnected"), "{reason}");
    // These calls end while there is no broker to be told.
    for call in held {
        call.release();
    }
    node.start_again();
    stage.reconnect().await;
    worker.ready().await;
    assert_each_done_once(stage, worker, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_under_load_again_and_again_cost_nothing() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    let mut settings = patient(&stage);
    settings.set("amqp.url", proxy.url()).set("worker.concurrency", 8);
    let mut worker = stage.worker_with(&settings).await;
    let commands = adds(150);
    let cuts: Vec<Vec<Held>> = [0..3, 60..63, 120..123].map(|some| hold(&stage, &commands[some])).into();
    stage.broker.publish_all(commands.iter().map(Message::json)).await;
    for (mut held, reconnects) in cuts.into_iter().zip([1.0, 2.0, 3.0]) {
        all_arrived(&mut held).await;
        proxy.cut();
        let again = async || (worker.metric("kf_broker_reconnects_total").await? >= reconnects).then_some(());
        eventually("the worker is connected again", again).await;
        // These calls began in a session that is over; by now their commands have come again.
        for call in held {
            call.release();
        }
    }
    worker.ready().await;
    assert_each_done_once(stage, worker, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_deleted_is_declared_again() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker_with(&patient(&stage)).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let deleted = stage.broker.channel().await.queue_delete(stage.broker.name("commands"), QueueDeleteOptions::default()).await;
    deleted.expect("the queue is deleted");
    eventually("the queue is declared again", async || stage.broker.ready("commands").await).await;
    worker.ready().await;
    held.release();
    // Its message went with the queue, so it is sent again; what was done is remembered.
    stage.ledger().until("c1", "finished").await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_was_deleted_is_declared_again_when_a_publish_finds_it_missing() {
    let mut stage = Stage::new().await;
    let mut replies = stage.broker.replies().await;
    let mut worker = stage.worker().await;
    let deleted = stage.broker.channel().await.exchange_delete(stage.broker.name("events"), ExchangeDeleteOptions::default()).await;
    deleted.expect("the exchange is deleted");
    let command = add("c1", "anna@test", "安娜");
    // The bindings to the events went with the exchange, so that only the reply tells of the outcome.
    stage.broker.publish(Message::json(&command).reply_to(replies.queue.as_str())).await;
    replies.of("c1").await.assert_succeeded("created");
    worker.ready().await;
    assert_eq!(worker.metric("kf_broker_reconnects_total").await, Some(1.0), "the error of one channel ends the session");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_falls_silent_is_noticed_by_its_missing_heartbeats() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    let mut settings = patient(&stage);
    settings.set("amqp.url", format!("{}?heartbeat=2", proxy.url()));
    let mut worker = stage.worker_with(&settings).await;
    let commands = adds(1);
    let mut held = hold(&stage, &commands);
    stage.send(&commands[0]).await;
    all_arrived(&mut held).await;

    let silent_since = Instant::now();
    proxy.fall_silent();
    let reason = worker.not_ready().await;
    // Two heartbeats are 4 s; nothing else would tell an idle worker before minutes.
    assert!(silent_since.elapsed() < Duration::from_secs(8), "after {:?}: {reason}", silent_since.elapsed());
    for call in held {
        call.release();
    }
    assert!(worker.is_running());
    proxy.cut();
    worker.ready().await;
    assert_each_done_once(stage, worker, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_wrong_after_a_rotation_is_tried_until_it_is_right() {
    let node = OwnNode::start();
    let mut stage = Stage::at(node.url()).await;
    stage.broker.keep_events().await;
    let mut worker = stage.worker_with(&patient(&stage)).await;
    let commands = adds(40);
    let mut held = hold(&stage, &commands[..4]);
    stage.broker.publish_all(commands.iter().map(Message::json)).await;
    all_arrived(&mut held).await;

    node.control(&["change_password", "guest", "rotated"]);
    node.control(&["close_all_connections", "the password was rotated"]);
    let refused = async || worker.get("/readyz").await.filter(|(status, reason)| *status == 503 && reason.contains("ACCESS_REFUSED"));
    eventually("the worker says that it is refused", refused).await;
    for call in held {
        call.release();
    }
    assert!(worker.is_running());
    node.control(&["change_password", "guest", "guest"]);
    stage.reconnect().await;
    worker.ready().await;
    assert_each_done_once(stage, worker, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_at_the_broker_holds_events_back_and_nothing_is_done_twice() {
    let node = OwnNode::start();
    let mut stage = Stage::at(node.url()).await;
    let mut worker = stage.worker_with(&patient(&stage)).await;
    let commands = adds(80);
    let mut held = hold(&stage, &commands[..20]);
    stage.broker.publish_all(commands.iter().map(Message::json)).await;
    all_arrived(&mut held).await;
    // All others are done and told, so that what is held is what meets the alarm.
    for command in &commands[20..] {
        let command_id = command["command_id"].as_str().expect("an id");
        stage.ledger().until(command_id, "finished").await;
    }

    node.control(&["set_vm_memory_high_watermark", "0.0001"]);
    for call in held {
        call.release();
    }
    let reason = worker.not_ready().await;
    assert!(reason.starts_with("blocked"), "{reason}");
    for command in &commands {
        stage.wechat.until_answered(Endpoint::Add, account(command), 1).await;
    }
    node.control(&["set_vm_memory_high_watermark", "0.4"]);
    worker.ready().await;
    assert_each_done_once(stage, worker, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_command_whose_message_is_gone_is_reported() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.max_age", "2s").set("retry.max_in_process", "1s").set("retry.defer", json!(["1s"]));
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let seen = Instant::now();
    worker.kill().await;
    let queue = stage.broker.name("commands");
    eventually("the broker has the message back", async || stage.broker.ready("commands").await.filter(|ready| *ready == 1)).await;
    stage.broker.channel().await.queue_purge(queue, QueuePurgeOptions::default()).await.expect("the queue is purged");
    // Only what was not seen for `max_age` and the longest delay is taken for gone.
    eventually("enough time has passed", async || (seen.elapsed() > Duration::from_secs(4)).then_some(())).await;
    worker.restart().await;
    const GONE: &str = "the message of an accepted command is gone";
    eventually("it is told", async || (worker.logged(GONE) > 0).then_some(())).await;
    assert!(worker.log().lines().any(|line| line.contains(GONE) && line.contains("c1") && line.contains("anna@test")), "{}", worker.log());
    // Sent again under the same id, it is carried out.
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
}
