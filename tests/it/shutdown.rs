//! A worker that is asked to stop finishes what it has begun, hands the rest back and ends in order.

use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::Endpoint;

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
