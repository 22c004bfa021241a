//! Paused Official Accounts: nobody is called in vain, one call finds out when it is over, and then everybody goes on.

mod room;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::eventually;
use crate::support::stage::{Stage, account, add, adds, delete, deletes};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::Worker;

const PAUSED: &str = "the Official Account is paused";
const STILL_PAUSED: &str = "the Official Account is still paused";
const ANSWERS_AGAIN: &str = "the Official Account answers again";

/// The gauge that says whether the Official Account `test` is paused for this reason.
async fn gauge(worker: &Worker, reason: &str) -> Option<f64> {
    worker.metric(&format!("kf_official_account_paused{{official_account=\"test\",reason=\"{reason}\"}}")).await
}

/// Commands that were put off for this reason since the process began.
async fn put_off(worker: &Worker, reason: &str) -> f64 {
    worker.metric(&format!("kf_put_off_total{{reason=\"{reason}\"}}")).await.unwrap_or_default()
}

async fn until_put_off(worker: &Worker, reason: &str, count: u32) {
    let what = format!("{count} commands were put off");
    eventually(&what, async || (put_off(worker, reason).await >= f64::from(count)).then_some(())).await;
}

/// Waits until the ledger says that each of these commands waits.
async fn until_waiting(stage: &Stage, commands: &[Value]) {
    for command in commands {
        stage.ledger().until(command["command_id"].as_str().expect("an id"), "waiting").await;
    }
}

/// What `/readyz` says of the pause, but for the time of the next call. The worker is ready all the while.
async fn told_pause(worker: &Worker) -> String {
    let (status, text) = worker.get("/readyz").await.expect("the worker answers");
    assert_eq!(status, 200, "{text}");
    let line = text.lines().find(|line| line.starts_with("paused: test ")).unwrap_or_else(|| panic!("no pause is told: {text}"));
    line.split_once(", next call ").unwrap_or_else(|| panic!("no next call is told: {line}")).0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daily_quota_that_is_used_up_is_remembered_over_restarts_and_deletes_go_on() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    // Five calls are under way when WeChat says so, and twenty commands come later.
    let (first, later) = (adds("a", "test", 5), adds("b", "test", 20));
    let mut held: Vec<_> = first.iter().map(|command| stage.wechat.hold(Endpoint::Add, account(command))).collect();
    stage.send_all(&first).await;
    for call in &mut held {
        call.arrived().await;
    }
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(45009));
    for call in held {
        call.answer(Answer::Errcode(45009));
    }
    until_waiting(&stage, &first).await;
    stage.send_all(&later).await;
    until_put_off(&worker, "day_quota", 25).await;
    let told = told_pause(&worker).await;
    assert!(told.starts_with("paused: test (adds): day_quota since "), "{told}");
    assert_eq!(gauge(&worker, "day_quota").await, Some(1.0));

    assert_eq!(worker.terminate().await, Some(0));
    worker.restart().await;
    assert_eq!(told_pause(&worker).await, told);
    until_put_off(&worker, "day_quota", 25).await;
    worker.kill().await;
    worker.restart().await;
    assert_eq!(told_pause(&worker).await, told);
    until_put_off(&worker, "day_quota", 25).await;

    assert_eq!(gauge(&worker, "day_quota").await, Some(1.0));
    assert_eq!((worker.logged(PAUSED), worker.logged(STILL_PAUSED)), (1, 2), "told once in each life");
    stage.wechat.put("carl@test");
    stage.outcome(&delete("carl", "carl@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.wechat.calls(Endpoint::Add).len(), 5, "no add is called after the quota was used up");
    // A delete supersedes the add that waits, so that nothing is left.
    let ends = [deletes("a", "test", 5), deletes("b", "test", 20)].concat();
    stage.send_all(&ends).await;
    let all = [first, later, ends].concat();
    for (_, event) in stage.settle_each(worker, &all).await {
        let expected = if event.field("action") == "add" { ("superseded", "newer_command") } else { ("succeeded", "") };
        assert_eq!((event.status(), event.reason()), expected, "{}", event.data);
    }
    assert_eq!(stage.wechat.calls(Endpoint::Add).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_costs_one_call_for_each_probe_however_many_commands_wait() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1s");
    let worker = stage.worker_with(&settings).await;
    let app_id = stage.wechat.official_accounts()[0].app_id.clone();
    stage.wechat.always(Endpoint::StableToken, Some(&app_id), Answer::Errcode(40125));
    let commands = adds("a", "test", 100);
    stage.send_all(&commands).await;
    let fetches = || stage.wechat.calls(Endpoint::StableToken);
    eventually("three probes have come", async || (fetches().len() >= 4).then_some(())).await;
    assert_eq!(gauge(&worker, "misconfigured").await, Some(1.0));
    assert_eq!(stage.wechat.journal().len(), 0, "nothing is called without a token");
    stage.wechat.recover();
    let refused = fetches().len();
    eventually("the pause is over", async || gauge(&worker, "misconfigured").await.filter(|gauge| *gauge == 0.0)).await;
    assert_eq!((worker.logged(PAUSED), worker.logged(ANSWERS_AGAIN)), (1, 1));

    for (_, event) in stage.settle_each(worker, &commands).await {
        event.assert_succeeded("created");
        assert_eq!(event.attempts(), 1, "{}", event.data);
    }
    let at: Vec<_> = stage.wechat.calls(Endpoint::StableToken).iter().map(|call| call.at).collect();
    assert!(at.len() <= refused + 1, "one fetch after it was put right: {at:?}");
    // The clock of the journal is another one than the worker's.
    let apart = Duration::from_millis(950);
    assert!(at.windows(2).all(|pair| pair[1].duration_since(pair[0]).unsigned_abs() >= apart), "{at:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pause_one_call_goes_and_what_comes_meanwhile_waits_in_hand() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    // A paused command leaves at once and comes back when the pause is over.
    settings.set("worker.slow_after", "1ms").set("retry.probe_interval", "1s").set("retry.defer", json!(["1s", "15s"]));
    let worker = stage.worker_with(&settings).await;
    let first = adds("a", "test", 1);
    stage.wechat.next(Endpoint::Add, Some("a0@test"), Answer::Errcode(48001));
    let mut probe = stage.wechat.hold(Endpoint::Add, "a0@test");
    stage.send_all(&first).await;
    probe.arrived().await;

    let others = [adds("b", "test", 20), deletes("c", "test", 10)].concat();
    stage.send_all(&others).await;
    until_waiting(&stage, &others).await;
    assert_eq!(stage.wechat.journal().len(), 2, "nobody is called beside the probe");
    assert_eq!(put_off(&worker, "misconfigured").await, 1.0, "only what was there before the probe has left");
    let released = Instant::now();
    probe.release();
    for event in stage.events.collect(31).await {
        assert_eq!(event.status(), "succeeded", "{}", event.data);
    }
    assert!(released.elapsed() < Duration::from_secs(5), "after {:?}", released.elapsed());
    assert_eq!(gauge(&worker, "misconfigured").await, Some(0.0));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_just_as_the_probe_ends_is_not_forgotten() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.slow_after", "1ms").set("retry.probe_interval", "1s").set("retry.defer", json!(["1s", "15s"]));
    let worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::Add, Some("a0@test"), Answer::Errcode(48001));
    let mut probe = stage.wechat.hold(Endpoint::Add, "a0@test");
    stage.send_all(&adds("a", "test", 1)).await;
    probe.arrived().await;

    let (others, ledger) = (adds("b", "test", 90), stage.ledger());
    let mut sent = 0;
    // Until one has found the probe under way and has not yet recorded that it waits for it.
    let lock = 'caught: loop {
        stage.send(&others[sent]).await;
        sent += 1;
        loop {
            let lock = ledger.lock();
            match ledger.entry(account(&others[sent - 1])) {
                Some(entry) if entry.state == "accepted" => break 'caught lock,
                Some(_) => break,
                None => drop(lock),
            }
        }
    };
    probe.release();
    eventually("the pause is over", async || gauge(&worker, "misconfigured").await.filter(|gauge| *gauge == 0.0)).await;
    drop(lock);
    let released = Instant::now();
    for event in stage.events.collect(1 + sent).await {
        event.assert_succeeded("created");
    }
    // Two request timeouts are 20 s; so long is a probe waited for that is never heard of again.
    assert!(released.elapsed() < Duration::from_secs(8), "after {:?}, with {sent} commands", released.elapsed());
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_a_paused_official_account_leave_the_window_at_once() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.window", 8).set("worker.concurrency", 4);
    settings.set("retry.probe_interval", "1h").set("retry.defer", json!(["10m"]));
    let mut worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, Some("a0@test"), Answer::Errcode(48001));
    stage.send(&add("a0", "a0@test", "客服")).await;
    until_put_off(&worker, "misconfigured", 1).await;

    stage.send_all(&adds("b", "test", 25)).await;
    stage.send_all(&deletes("c", "test", 25)).await;
    stage.send_all(&adds("d", "other", 20)).await;
    for event in stage.events.collect(20).await {
        event.assert_succeeded("created");
        assert!(event.command_id().ends_with("@other"), "{}", event.data);
    }
    assert_eq!(stage.broker.ready("deferred.10m").await, Some(51));
    assert_eq!(stage.broker.ready("commands").await, Some(0));
    let called: Vec<_> = stage.wechat.journal().into_iter().filter(|call| call.account.ends_with("@test")).collect();
    assert_eq!(called.len(), 1, "{called:?}");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_supersedes_an_add_of_a_paused_official_account_and_is_carried_out_after_the_pause() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.slow_after", "1ms").set("retry.probe_interval", "1s");
    let worker = stage.worker_with(&settings).await;
    stage.wechat.put("anna@test");
    // No probe ends the pause before everything is as it should be.
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(48001));
    stage.wechat.always(Endpoint::Delete, None, Answer::Errcode(48001));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    until_put_off(&worker, "misconfigured", 1).await;
    stage.send(&delete("c2", "anna@test")).await;
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    let adds = stage.wechat.calls(Endpoint::Add).len();
    assert!(stage.wechat.has("anna@test"));
    stage.wechat.recover();
    stage.events.of("c2").await.assert_succeeded("deleted");
    assert_eq!(stage.wechat.calls(Endpoint::Add).len(), adds, "the add is never called again");
    assert_eq!(gauge(&worker, "misconfigured").await, Some(0.0));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_paused_official_account_are_given_up_at_their_age() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings
        .set("retry.max_in_process", "1s")
        .set("retry.max_age", "3s")
        .set("retry.probe_interval", "1h")
        .set("retry.defer", json!(["1s"]));
    let worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(48001));
    let called = adds("a", "test", 1);
    stage.send_all(&called).await;
    until_put_off(&worker, "misconfigured", 1).await;
    let never_called = [adds("b", "test", 5), deletes("c", "test", 5)].concat();
    let sent = Instant::now();
    stage.send_all(&never_called).await;
    for command in &never_called {
        let event = stage.events.of(command["command_id"].as_str().expect("an id")).await;
        event.assert_ended("failed", "retries_exhausted");
        assert_eq!((event.attempts(), &event.field("error")["errcode"]), (0, &json!(48001)), "{}", event.data);
        assert!(sent.elapsed() >= Duration::from_secs(3), "not before its time");
    }
    let event = stage.events.of("a0@test").await;
    event.assert_ended("failed", "retries_exhausted");
    assert_eq!((event.attempts(), &event.field("error")["errcode"]), (1, &json!(48001)), "{}", event.data);
    assert_eq!(stage.wechat.journal().len(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_shorter_than_the_greatest_age_costs_no_command() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings
        .set("retry.max_in_process", "2s")
        .set("retry.max_age", "20s")
        .set("retry.probe_interval", "500ms")
        .set("retry.defer", json!(["1s"]));
    let worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, None, Answer::Http(502));
    stage.wechat.always(Endpoint::Delete, None, Answer::Lose);
    let commands = ["test", "other"].map(|wechat_id| [adds("a", wechat_id, 20), deletes("b", wechat_id, 20)].concat()).concat();
    stage.send_all(&commands).await;
    // The retry budgets are used up after 40 calls; these are probes, and longer apart than deliveries are held.
    eventually("the outage has lasted", async || (stage.wechat.journal().len() >= 70).then_some(())).await;
    stage.wechat.recover();
    for (_, event) in stage.settle_each(worker, &commands).await {
        assert_eq!(event.status(), "succeeded", "{}", event.data);
    }
}
