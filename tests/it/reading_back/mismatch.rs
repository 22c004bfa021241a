//! With the credentials of another Official Account every delete would look as if the account was gone already.

use std::time::Duration;

use serde_json::json;

use super::lists;
use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// Deletes of accounts that don't exist.
fn deletes(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|number| Message::json(&delete(&format!("d{number}"), &format!("gone{number}@test"))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_not_done_while_the_list_shows_accounts_of_another_official_account() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1500ms").set("retry.defer", json!(["200ms"]));
    let worker = stage.worker_with(&settings).await;
    stage.wechat.put_for("test", "stranger@other");
    stage.send(&delete("c1", "anna@test")).await;
    assert_eq!(stage.ledger().until("c1", "waiting").await.trouble.as_deref(), Some("wechat_id_mismatch"));
    let pauses = worker.pauses().await;
    assert!(pauses.len() == 1 && pauses[0].starts_with("paused: test (official_account): wechat_id_mismatch"), "{pauses:?}");
    let log = worker.log();
    let paused = log.lines().find(|line| line.contains("the Official Account is paused")).expect("the pause is logged");
    assert!(paused.contains("`other`") && !paused.contains("stranger@"), "the cause is told, and nobody's name: {paused}");

    // Each probe asks for the list and calls nothing, however many commands wait.
    stage.broker.publish_all(deletes(5)).await;
    stage.send(&add("c2", "ben@test", "本")).await;
    eventually("it was probed three times", async || (lists(&stage, "test") >= 4).then_some(())).await;
    let calls = stage.wechat.calls(Endpoint::List);
    for pair in calls.windows(2) {
        let between = Duration::try_from(pair[1].at.duration_since(pair[0].at)).expect("later");
        assert!(between >= Duration::from_millis(1_400), "one list for each probe: {between:?}");
    }
    assert_eq!(stage.wechat.journal().len(), 1, "nothing but the first delete is called");
    assert_eq!(stage.events.rest().await.len(), 0, "nothing is decided");

    stage.wechat.remove("stranger@other");
    stage.wechat.put("anna@test");
    stage.events.of("c1").await.assert_succeeded("deleted");
    stage.events.of("c2").await.assert_succeeded("created");
    for number in 0..5 {
        stage.events.of(&format!("d{number}")).await.assert_succeeded("none");
    }
    assert_eq!(worker.pauses().await, Vec::<String>::new());
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_credentials_delete_nothing_and_succeed_in_nothing() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    let right = settings.official_accounts.clone();
    settings.set("retry.probe_interval", "1h");
    let (test, other) = (stage.wechat.official_account("test"), stage.wechat.official_account("other"));
    settings.official_accounts = right
        .replace(&test.app_id, "swapped")
        .replace(&other.app_id, &test.app_id)
        .replace("swapped", &other.app_id)
        .replace(&test.app_secret, "swapped")
        .replace(&other.app_secret, &test.app_secret)
        .replace("swapped", &other.app_secret);
    stage.wechat.put("anna@test");
    stage.wechat.put("ben@other");
    let worker = stage.worker_with(&settings).await;
    for (command_id, account) in [("c1", "anna@test"), ("c2", "ben@other")] {
        stage.send(&delete(command_id, account)).await;
        assert_eq!(stage.ledger().until(command_id, "waiting").await.trouble.as_deref(), Some("wechat_id_mismatch"));
    }
    assert!(stage.wechat.has("anna@test") && stage.wechat.has("ben@other"));

    settings.official_accounts = right;
    worker.reload(&settings).await;
    for command_id in ["c1", "c2"] {
        stage.events.of(command_id).await.assert_succeeded("deleted");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_says_nothing_and_is_asked_for_once() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.outcome(&delete("c1", "anna@test")).await.assert_succeeded("none");
    assert_eq!(lists(&stage, "test"), 1);
    stage.broker.publish_all(deletes(20)).await;
    for event in stage.events.collect(20).await {
        event.assert_succeeded("none");
    }
    assert_eq!(lists(&stage, "test"), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

/// Holds the first list until so many deletes wait for what it says, then answers it.
async fn answer_the_list_that_all_wait_for(stage: &mut Stage, count: usize, answer: Answer) {
    let mut list = stage.wechat.hold(Endpoint::List, "test");
    stage.broker.publish_all(deletes(count)).await;
    list.arrived().await;
    for number in 0..count {
        stage.wechat.until_answered(Endpoint::Delete, &format!("gone{number}@test"), 1).await;
    }
    stage.wechat.always(Endpoint::List, Some("test"), answer.clone());
    list.answer(answer);
    for event in stage.events.collect(count).await {
        event.assert_succeeded("none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_list_of_its_own_accounts_serves_all_deletes_that_wait_for_it() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.put("dora@test");
    answer_the_list_that_all_wait_for(&mut stage, 20, Answer::Usual).await;
    assert_eq!(lists(&stage, "test"), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_permitted_says_nothing_and_is_asked_for_once() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    answer_the_list_that_all_wait_for(&mut stage, 20, Answer::Errcode(48001)).await;
    assert_eq!(lists(&stage, "test"), 1);
    assert_eq!(worker.pauses().await, Vec::<String>::new(), "what only the list may not do holds up nothing");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_goes_on_failing_is_waited_for_a_few_times_and_then_does_without() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.always(Endpoint::List, None, Answer::Http(502));
    let event = stage.outcome(&delete("c1", "anna@test")).await;
    event.assert_succeeded("none");
    assert_eq!(stage.wechat.calls(Endpoint::List).len(), 5);
    stage.outcome(&delete("c2", "ben@test")).await.assert_succeeded("none");
    assert!(stage.wechat.calls(Endpoint::List).len() <= 6, "each further delete asks once at most");
    stage.wechat.recover();
    stage.wechat.put_for("test", "carl@elsewhere");
    eventually("the list is asked for again", async || {
        stage.send(&delete(&format!("c{}", rand::random::<u32>()), "dora@test")).await;
        worker.pauses().await.iter().any(|pause| pause.contains("wechat_id_mismatch")).then_some(())
    })
    .await;
}
