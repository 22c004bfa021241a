//! An Official Account that holds its 100 accounts: adds wait for room, a delete lets in as many as fit, and the others are not called in vain.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::until_waiting;
use crate::support::broker::Received;
use crate::support::eventually;
use crate::support::stage::{Stage, account, add, adds, delete};
use crate::support::wechat::{Answer, Call, Endpoint, Held, ROOM, WeChat};

/// Fills the Official Account `test`.
fn fill(wechat: &WeChat) {
    (0..ROOM).for_each(|number| wechat.put(&format!("old{number}@test")));
}

/// The adds that are in flight now.
fn in_flight(wechat: &WeChat) -> Vec<Call> {
    wechat.calls(Endpoint::Add).into_iter().filter(|call| !call.ended).collect()
}

/// Fails where the event is not that of an add for which there was never room.
fn assert_no_room(event: &Received) {
    event.assert_ended("failed", "account_limit_reached");
    assert_eq!(event.field("error")["errcode"], 65405, "{}", event.data);
    assert!(event.attempts() >= 1, "each has asked for itself: {}", event.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_lets_in_as_many_as_there_is_room_for_and_the_others_fail_in_the_end() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.capacity_wait", "10s").set("retry.probe_interval", "1h");
    let worker = stage.worker_with(&settings).await;
    fill(&stage.wechat);
    let commands = adds("new", "test", 6);
    let sent = Instant::now();
    stage.send(&commands[0]).await;
    until_waiting(&stage, &commands[..1]).await;
    stage.send_all(&commands[1..]).await;
    until_waiting(&stage, &commands).await;
    assert_eq!(stage.wechat.calls(Endpoint::Add).len(), 1, "one answer speaks for all");

    let deletes: Vec<Value> = (0..2).map(|number| delete(&format!("d{number}"), &format!("old{number}@test"))).collect();
    for (number, command) in deletes.iter().enumerate() {
        stage.outcome(command).await.assert_succeeded("deleted");
        // One add takes the room, the next one finds that there is no more.
        let called = 1 + 2 * (number + 1);
        eventually("two adds were called", async || (stage.wechat.calls(Endpoint::Add).len() >= called).then_some(())).await;
        assert_eq!(stage.wechat.calls(Endpoint::Add).len(), called);
    }
    let mut ended = stage.events.collect(6).await;
    ended.sort_by_key(|event| event.status() != "succeeded");
    for event in &ended[..2] {
        event.assert_succeeded("created");
    }
    for event in &ended[2..] {
        assert_no_room(event);
    }
    assert!(sent.elapsed() >= Duration::from_secs(10), "after {:?}", sent.elapsed());
    let calls = stage.wechat.calls(Endpoint::Add).len();
    assert_eq!(calls, 1 + 2 * 2 + 4, "one last call for each that fails");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn adds_for_which_there_may_be_room_go_one_at_a_time() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1h");
    let worker = stage.worker_with(&settings).await;
    fill(&stage.wechat);
    let commands = adds("new", "test", 6);
    stage.send(&commands[0]).await;
    until_waiting(&stage, &commands[..1]).await;
    stage.send_all(&commands[1..]).await;
    until_waiting(&stage, &commands).await;
    (1..=6).for_each(|number| stage.wechat.remove(&format!("old{number}@test")));
    let mut held: BTreeMap<&str, Held> =
        commands.iter().map(|command| (account(command), stage.wechat.hold(Endpoint::Add, account(command)))).collect();
    stage.outcome(&delete("d0", "old0@test")).await.assert_succeeded("deleted");
    while !held.is_empty() {
        let call = eventually("the next add is called", async || in_flight(&stage.wechat).pop()).await;
        // Time enough for another one to be called beside it.
        stage
            .outcome(&add(&format!("beside-{}", call.account), &format!("b{}@other", held.len()), "客服"))
            .await
            .assert_succeeded("created");
        assert_eq!(in_flight(&stage.wechat).len(), 1, "{:?}", in_flight(&stage.wechat));
        held.remove(call.account.as_str()).expect("each is called once").release();
        stage.events.of(&call.account).await.assert_succeeded("created");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_makes_room_while_an_add_is_being_refused_wakes_it_as_well() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1h");
    let worker = stage.worker_with(&settings).await;
    fill(&stage.wechat);
    let mut refused = stage.wechat.hold(Endpoint::Add, "new@test");
    stage.send(&add("c1", "new@test", "客服")).await;
    refused.arrived().await;
    stage.outcome(&delete("c2", "old0@test")).await.assert_succeeded("deleted");
    refused.answer(Answer::Errcode(65405));
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_somebody_else_made_is_found_by_one_probe_at_a_time() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "500ms");
    let worker = stage.worker_with(&settings).await;
    fill(&stage.wechat);
    let commands = adds("new", "test", 20);
    stage.send(&commands[0]).await;
    until_waiting(&stage, &commands[..1]).await;
    stage.send_all(&commands[1..]).await;
    let calls = || stage.wechat.calls(Endpoint::Add);
    eventually("five probes have come", async || (calls().len() >= 6).then_some(())).await;
    let at: Vec<_> = calls().iter().map(|call| call.at).collect();
    // The clock of the journal is another one than the worker's.
    let apart = Duration::from_millis(450);
    assert!(at.windows(2).all(|pair| pair[1].duration_since(pair[0]).unsigned_abs() >= apart), "{at:?}");

    (0..20).for_each(|number| stage.wechat.remove(&format!("old{number}@test")));
    let removed = Instant::now();
    for (_, event) in stage.settle_each(worker, &commands).await {
        event.assert_succeeded("created");
    }
    assert!(removed.elapsed() < Duration::from_secs(10), "twenty probes would be 10 s: {:?}", removed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_always_wakes_the_one_add_that_waits() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1h").set("retry.capacity_wait", "1h").set("retry.defer", json!(["10m"]));
    let worker = stage.worker_with(&settings).await;
    fill(&stage.wechat);
    for number in 0..40 {
        let waiting = add(&format!("c{number}"), &format!("new{number}@test"), "客服");
        stage.send(&waiting).await;
        until_waiting(&stage, std::slice::from_ref(&waiting)).await;
        stage.outcome(&delete(&format!("d{number}"), &format!("old{number}@test"))).await.assert_succeeded("deleted");
        stage.events.of(&format!("c{number}")).await.assert_succeeded("created");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}
