//! Calls that fail, of one Official Account or of all: ever fewer are made, and everything is done once WeChat answers again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{assert_created, calls, hold, in_flight, patient, until_in_flight};
use crate::support::eventually;
use crate::support::stage::{Stage, account, adds, deletes};
use crate::support::wechat::{Answer, Endpoint, Held};

#[tokio::test(flavor = "multi_thread")]
async fn an_official_account_that_always_fails_is_soon_only_probed_and_the_others_are_undisturbed() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.concurrency", 8).set("retry.budget", 5).set("retry.max_interval", "400ms");
    let worker = stage.worker_with(&settings).await;
    let (failing, well) = ([deletes("a", "test", 30), adds("a", "test", 30)].concat(), adds("b", "other", 90));
    for command in &failing {
        stage.wechat.always(Endpoint::Delete, Some(account(command)), Answer::Errcode(-1));
        stage.wechat.always(Endpoint::Add, Some(account(command)), Answer::Errcode(-1));
    }
    let began = Instant::now();
    stage.send_all(&failing).await;
    stage.send_all(&well).await;
    assert_created(&stage.events.collect(90).await);
    assert_eq!(worker.metric("kf_wechat_failing").await, Some(0.0));
    // The budget, half of the concurrency in flight, and some sixteen probes, which would all be made within
    // milliseconds if each command went its own way. The waits between are 200 ms in the mean.
    eventually("probes are made", async || (calls(&stage.wechat, "test").len() >= 25).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_millis(800), "after {:?}", began.elapsed());
    let (count, elapsed) = (calls(&stage.wechat, "test").len(), began.elapsed());
    assert!(count as f64 <= 30.0 + elapsed.as_secs_f64() * 10.0, "{count} calls in {elapsed:?}");
    stage.wechat.recover();
    for (_, event) in stage.settle_each(worker, &failing).await {
        assert_eq!(event.status(), "succeeded", "{}", event.data);
    }
}

/// Lets the call that is held for an account fail.
fn fail(held: &mut BTreeMap<String, Held>, account: &str) {
    let call = held.remove(account).unwrap_or_else(|| panic!("{account} was called once too often"));
    call.answer(Answer::Http(502));
}

/// Held calls by their account.
fn by_account(commands: &[Value], held: Vec<Held>) -> BTreeMap<String, Held> {
    commands.iter().map(|command| account(command).to_owned()).zip(held).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_everything_fails_one_call_at_a_time_is_made_until_one_is_answered() {
    let mut stage = Stage::new().await;
    let mut settings = patient(&stage);
    settings.set("worker.concurrency", 40).set("retry.budget", 1_000).set("retry.budget_in_all", 10);
    let worker = stage.worker_with(&settings).await;
    let commands = [adds("a", "test", 20), adds("b", "other", 20)].concat();
    // Each account's first call fails while all are in flight; the second ones are let go one by one.
    let first = hold(&stage.wechat, &commands);
    let mut second = by_account(&commands, hold(&stage.wechat, &commands));
    stage.send_all(&commands).await;
    until_in_flight(&stage.wechat, 40).await;
    for call in first {
        call.answer(Answer::Http(502));
    }
    for command in &commands {
        stage.wechat.until_answered(Endpoint::Add, account(command), 1).await;
    }
    let failing = async || worker.metric("kf_wechat_failing").await.filter(|failing| *failing == 1.0);
    eventually("the outage is told", failing).await;
    // What was tried again before so much had failed.
    for called in in_flight(&stage.wechat).iter().skip(1) {
        fail(&mut second, called);
    }
    for round in 0..4 {
        until_in_flight(&stage.wechat, 1).await;
        // Newcomers wait as well, and so does what was to be tried again within 100 ms.
        let newcomers = [adds(&format!("c{round}x"), "test", 2), adds(&format!("d{round}x"), "other", 2)].concat();
        second.extend(by_account(&newcomers, hold(&stage.wechat, &newcomers)));
        stage.send_all(&newcomers).await;
        for command in &newcomers {
            stage.ledger().until(account(command), "accepted").await;
        }
        let called = in_flight(&stage.wechat);
        assert_eq!(called.len(), 1, "{called:?}");
        assert_eq!(failing().await, Some(1.0));
        fail(&mut second, &called[0]);
        eventually("it has ended", async || (!in_flight(&stage.wechat).contains(&called[0])).then_some(())).await;
    }
    second.into_values().for_each(Held::release);
    let events = stage.events.collect(56).await;
    assert!(events.iter().all(|event| event.status() == "succeeded"), "{events:?}");
    assert_eq!(worker.metric("kf_wechat_failing").await, Some(0.0));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_everything_is_told_and_its_end_as_well() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.budget_in_all", 10).set("retry.probe_interval", "500ms");
    let worker = stage.worker_with(&settings).await;
    for endpoint in [Endpoint::StableToken, Endpoint::Add, Endpoint::Delete] {
        stage.wechat.always(endpoint, None, Answer::Http(502));
    }
    let commands = ["test", "other"].map(|wechat_id| [adds("a", wechat_id, 20), deletes("b", wechat_id, 20)].concat()).concat();
    stage.send_all(&commands).await;
    let failing = async |yes: f64| worker.metric("kf_wechat_failing").await.filter(|failing| *failing == yes);
    eventually("the outage is told", async || failing(1.0).await).await;
    stage.wechat.recover();
    eventually("its end is told", async || failing(0.0).await).await;
    for (_, event) in stage.settle_each(worker, &commands).await {
        assert_eq!(event.status(), "succeeded", "{}", event.data);
    }
}
