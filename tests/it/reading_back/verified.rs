//! `[verify]`: what rests on WeChat's word that an account exists, or doesn't, is checked against its list.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lists;
use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint, Held};
use crate::support::worker::Settings;

fn verifying(stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.set("verify.enabled", true);
    settings
}

/// Adds of so many accounts, all under the nickname that a test's own accounts have.
fn adds(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|number| Message::json(&add(&format!("c{number}"), &format!("a{number}@test"), "put by the test")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_effect_of_a_call_whose_answer_was_lost_is_known() {
    let mut stage = Stage::new().await;
    for account in ["there@test", "leaves@test"] {
        stage.wechat.put(account);
    }
    let settings = verifying(&stage);
    let worker = stage.worker_with(&settings).await;
    for (account, effect) in [("new@test", "created"), ("there@test", "none")] {
        stage.wechat.next(Endpoint::Add, Some(account), Answer::Lose);
        let event = stage.outcome(&add(account, account, "安娜")).await;
        event.assert_succeeded(effect);
        assert_eq!(event.attempts(), 2);
    }
    for (command_id, account, effect) in [("c3", "leaves@test", "deleted"), ("c4", "gone@test", "none")] {
        stage.wechat.next(Endpoint::Delete, Some(account), Answer::Lose);
        let event = stage.outcome(&delete(command_id, account)).await;
        event.assert_succeeded(effect);
        assert_eq!(event.attempts(), 2);
    }
    // What the worker itself did since it listed the accounts counts.
    stage.wechat.next(Endpoint::Delete, Some("new@test"), Answer::Lose);
    stage.outcome(&delete("c5", "new@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nickname_that_differs_is_told_where_it_does_and_only_there() {
    let mut stage = Stage::new().await;
    stage.wechat.put("differs@test");
    stage.wechat.put("same@test");
    stage.wechat.rename("same@test", "安娜");
    let settings = verifying(&stage);
    let mut worker = stage.worker_with(&settings).await;
    for (account, effect, differs) in
        [("differs@test", "none", json!(true)), ("same@test", "none", Value::Null), ("new@test", "created", Value::Null)]
    {
        let event = stage.outcome(&add(account, account, "安娜")).await;
        event.assert_succeeded(effect);
        assert_eq!(*event.field("nickname_differs"), differs, "{}", event.data);
        assert_eq!(event.data.contains("nickname_differs"), differs == true, "absent where it does not: {}", event.data);
    }
    stage.outcome(&delete("c4", "never@test")).await.assert_succeeded("none");
    assert_eq!(worker.terminate().await, Some(0));

    worker.configure(&stage.settings());
    worker.restart().await;
    let event = stage.outcome(&add("c5", "differs@test", "安娜")).await;
    event.assert_succeeded("none");
    assert!(!event.data.contains("nickname_differs"), "nothing is read back: {}", event.data);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_accounts_that_exist_already_are_read_back_with_a_few_lists() {
    let mut stage = Stage::new().await;
    (0..50).for_each(|number| stage.wechat.put(&format!("a{number}@test")));
    let mut settings = verifying(&stage);
    // All of them are called at once, and answered at once.
    settings.set("worker.concurrency", 100);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("first", "first@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(lists(&stage, "test"), 1, "whether an account existed before is known from now on");
    let mut calls: Vec<Held> = (0..50).map(|number| stage.wechat.hold(Endpoint::Add, &format!("a{number}@test"))).collect();
    stage.broker.publish_all(adds(50)).await;
    for call in &mut calls {
        call.arrived().await;
    }
    calls.into_iter().for_each(Held::release);
    for event in stage.events.collect(50).await {
        event.assert_succeeded("none");
        assert!(!event.data.contains("nickname_differs"), "{}", event.data);
    }
    assert!(lists(&stage, "test") < 5, "{} lists", lists(&stage, "test"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_under_way_holds_up_no_command_that_a_former_one_will_do_for() {
    let mut stage = Stage::new().await;
    stage.wechat.put("there@test");
    let settings = verifying(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("first", "first@test", "安娜")).await.assert_succeeded("created");
    let mut list = stage.wechat.hold(Endpoint::List, "test");
    stage.send(&add("c1", "there@test", "put by the test")).await;
    list.arrived().await;
    let call = stage.wechat.hold(Endpoint::Add, "new@test");
    stage.send(&add("c2", "new@test", "本")).await;
    let called = async || (!stage.wechat.changes("new@test").is_empty()).then_some(());
    eventually("the command is called", called).await;
    let ended = stage.wechat.calls(Endpoint::List).iter().filter(|list| list.ended && list.account == "test").count();
    assert_eq!(ended, 1, "before the second list came");
    call.release();
    list.release();
    stage.events.of("c2").await.assert_succeeded("created");
    stage.events.of("c1").await.assert_succeeded("none");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_outcomes_are_what_they_are_without_verifying() {
    for answer in [Answer::Errcode(48001), Answer::Http(502), Answer::Body("{\"kf_list\": 1}".to_owned())] {
        let mut stage = Stage::new().await;
        stage.wechat.put("there@test");
        stage.wechat.always(Endpoint::List, None, answer.clone());
        let settings = verifying(&stage);
        let worker = stage.worker_with(&settings).await;
        stage.wechat.next(Endpoint::Add, Some("new@test"), Answer::Lose);
        for (account, effect) in [("new@test", "unknown"), ("there@test", "none")] {
            let event = stage.outcome(&add(account, account, "安娜")).await;
            event.assert_succeeded(effect);
            assert!(!event.data.contains("nickname_differs"), "{answer:?}: {}", event.data);
        }
        assert_eq!(stage.settle(worker).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_is_not_asked_for_again_by_each_command() {
    let mut stage = Stage::new().await;
    (0..50).for_each(|number| stage.wechat.put(&format!("a{number}@test")));
    stage.wechat.always(Endpoint::List, Some("test"), Answer::Errcode(48001));
    let settings = verifying(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.broker.publish_all(adds(50)).await;
    for event in stage.events.collect(50).await {
        event.assert_succeeded("none");
    }
    assert!(lists(&stage, "test") < 5, "{} lists", lists(&stage, "test"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_never_comes_holds_up_no_command_for_long() {
    let mut stage = Stage::new().await;
    stage.wechat.always(Endpoint::List, Some("test"), Answer::Silence);
    let mut settings = verifying(&stage);
    settings.set("wechat.request_timeout", "1s");
    let worker = stage.worker_with(&settings).await;
    let began = Instant::now();
    stage.broker.publish_all(adds(15)).await;
    for event in stage.events.collect(15).await {
        event.assert_succeeded("created");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "they don't wait for it one after the other: {:?}", began.elapsed());
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_waits_until_the_list_agrees_that_the_account_is_gone() {
    let mut stage = Stage::new().await;
    stage.wechat.put("anna@test");
    let settings = verifying(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Delete, Some("anna@test"), Answer::Errcode(65401));
    stage.send(&delete("c1", "anna@test")).await;
    assert_eq!(stage.ledger().until("c1", "waiting").await.trouble.as_deref(), Some("list_disagrees"));
    // It is asked for again, and goes on disagreeing.
    stage.wechat.until_answered(Endpoint::Delete, "anna@test", 3).await;
    assert_eq!(stage.events.rest().await.len(), 0, "it is not done");
    stage.wechat.remove("anna@test");
    stage.events.of("c1").await.assert_succeeded("none");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
