//! A worker that is asked to stop finishes what it has begun, hands the rest back and ends in order.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::proxy::{Proxy, Role};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Endpoint, Held};
use crate::support::worker::Worker;

/// What ending may take besides the drain time, where the broker does not answer.
const MORE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_is_finished_and_what_waits_is_handed_back() {
    for signal in ["TERM", "INT"] {
        let mut stage = Stage::new().await;
        let mut settings = stage.settings();
        settings.set("worker.concurrency", 1);
        let mut worker = stage.worker_with(&settings).await;
        let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
        stage.send(&add("a1", "anna@test", "安娜")).await;
        held.arrived().await;
        stage.send(&add("b1", "ben@test", "本")).await;
        stage.ledger().until("b1", "accepted").await;

        worker.signal(signal).await;
        let reason = worker.not_ready().await;
        assert!(reason.contains("drain"), "{reason}");
        stage.send(&delete("late", "carl@test")).await;
        held.release();
        stage.events.of("a1").await.assert_succeeded("created");
        assert_eq!(worker.exit_code().await, Some(0));
        let back = async || (stage.broker.ready("commands").await? == 2).then_some(());
        eventually("what was not begun is back at the broker", back).await;
        assert_eq!(stage.wechat.changes("ben@test").len() + stage.wechat.changes("carl@test").len(), 0);
        assert_eq!(stage.events.rest().await.len(), 0, "nothing is said of what was not begun");

        worker.restart().await;
        stage.events.of("b1").await.assert_succeeded("created");
        stage.events.of("late").await.assert_succeeded("none");
        assert_eq!(stage.wechat.changes("anna@test").len(), 1);
        assert_eq!(stage.settle(worker).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "60s").set("worker.drain", "5m");
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    worker.signal("TERM").await;
    worker.not_ready().await;
    worker.signal("TERM").await;
    // The call is still held: only an end at once comes before the deadline.
    worker.exit_code().await;
    drop(held);

    worker.restart().await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_drain_time_is_over_it_ends_and_the_command_comes_back() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.drain", "500ms").set("wechat.request_timeout", "60s");
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    held.work();
    assert_eq!(worker.terminate().await, Some(0));
    drop(held);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    assert_eq!(event.attempts(), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

/// Adds of accounts of their own.
fn adds(count: usize) -> Vec<Value> {
    (0..count).map(|number| add(&format!("c{number}"), &format!("a{number}@test"), "客服")).collect()
}

/// SIGTERM; the worker ends in order, and within the drain time and a little more.
async fn assert_ends_within(worker: &mut Worker, drain: Duration) {
    let asked_at = Instant::now();
    assert_eq!(worker.terminate().await, Some(0));
    assert!(asked_at.elapsed() < drain + MORE, "it took {:?}", asked_at.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_with_a_slow_wechat_it_ends_in_time_and_every_command_has_one_outcome() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.drain", "1s").set("wechat.request_timeout", "60s").set("worker.concurrency", 16);
    let mut worker = stage.worker_with(&settings).await;
    let commands = adds(80);
    let slow = |number: usize| stage.wechat.hold(Endpoint::Add, &format!("a{number}@test"));
    let mut held: Vec<Held> = (20..36).map(slow).collect();
    stage.broker.publish_all(commands.iter().map(Message::json)).await;
    for call in &mut held {
        call.arrived().await;
    }
    // Half of the calls have done their work and only their answers are slow.
    for call in &held[..8] {
        call.work();
    }
    assert_ends_within(&mut worker, Duration::from_secs(1)).await;
    drop(held);

    worker.restart().await;
    for (command_id, event) in stage.settle_each(worker, &commands).await {
        let number: usize = command_id[1..].parse().expect("the number of a command");
        let (effect, calls) = match number {
            20..28 => ("unknown", 2),
            28..36 => ("created", 2),
            _ => ("created", 1),
        };
        event.assert_succeeded(effect);
        assert_eq!((event.attempts(), stage.wechat.changes(&format!("a{number}@test")).len()), (calls, calls as usize), "{}", event.data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_broker_that_takes_no_events_it_ends_in_time_and_tells_them_in_its_next_life() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url()).set("worker.drain", "1s");
    let mut worker = stage.worker_with(&settings).await;
    proxy.withhold(Role::Publish);
    let commands = adds(40);
    stage.broker.publish_all(commands.iter().map(Message::json)).await;
    for command in &commands {
        stage.ledger().until(command["command_id"].as_str().expect("an id"), "finished").await;
    }
    assert_ends_within(&mut worker, Duration::from_secs(1)).await;
    assert_eq!(stage.events.rest().await.len(), 0);

    proxy.cut();
    worker.restart().await;
    for event in stage.settle_each(worker, &commands).await.values() {
        event.assert_succeeded("created");
        assert_eq!(event.attempts(), 1, "what was recorded is not done again");
    }
    assert_eq!(stage.wechat.journal().len(), commands.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_broker_that_has_fallen_silent_it_ends_all_the_same() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url()).set("worker.drain", "1s").set("wechat.request_timeout", "60s");
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "a0@test");
    stage.send(&adds(1)[0]).await;
    held.arrived().await;
    proxy.fall_silent();
    assert_ends_within(&mut worker, Duration::from_secs(1)).await;
    drop(held);

    proxy.cut();
    worker.restart().await;
    let outcomes = stage.settle_each(worker, &adds(1)).await;
    outcomes["c0"].assert_succeeded("created");
    assert_eq!(outcomes["c0"].attempts(), 2);
}
