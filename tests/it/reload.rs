//! SIGHUP reads all Official Accounts again: what has changed is taken up, what has not keeps all that is known of it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::Settings;

/// The `[[official_account]]` of one Official Account.
fn table(stage: &Stage, wechat_id: &str) -> String {
    let official = stage.wechat.official_account(wechat_id);
    format!(
        "[[official_account]]\nwechat_id = \"{wechat_id}\"\napp_id = \"{}\"\napp_secret = \"{}\"\n\n",
        official.app_id, official.app_secret
    )
}

/// Settings with these Official Accounts alone.
fn with(stage: &Stage, wechat_ids: &[&str]) -> Settings {
    let mut settings = stage.settings();
    settings.official_accounts = wechat_ids.iter().map(|wechat_id| table(stage, wechat_id)).collect();
    settings
}

/// How often the token of an Official Account was fetched.
fn fetches(stage: &Stage, wechat_id: &str) -> usize {
    let app_id = stage.wechat.official_account(wechat_id).app_id;
    stage.wechat.calls(Endpoint::StableToken).iter().filter(|call| call.account == app_id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_official_account_that_is_added_is_served_and_one_that_is_removed_no_more() {
    let mut stage = Stage::new().await;
    let settings = with(&stage, &["test"]);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@other", "安娜")).await.assert_ended("failed", "unknown_official_account");
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");

    worker.reload(&with(&stage, &["other"])).await;
    stage.outcome(&add("c3", "anna@other", "安娜")).await.assert_succeeded("created");
    let event = stage.outcome(&delete("c4", "ben@test")).await;
    event.assert_ended("failed", "unknown_official_account");
    assert_eq!(event.attempts(), 0);
    assert!(stage.wechat.has("ben@test"));
    let (_, metrics) = worker.get("/metrics").await.expect("the worker answers");
    assert!(!metrics.contains("official_account=\"test\""), "its gauges go with it");

    worker.reload(&with(&stage, &["test", "other"])).await;
    stage.outcome(&delete("c5", "ben@test")).await.assert_succeeded("deleted");
    assert_eq!((fetches(&stage, "other"), fetches(&stage, "test")), (1, 2), "what is forgotten is forgotten");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_put_right_ends_the_pause_at_once() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    let right = settings.official_accounts.clone();
    settings.set("retry.probe_interval", "1h");
    settings.official_accounts = right.replace(&stage.wechat.official_account("test").app_secret, "the-secret-before");
    let worker = stage.worker_with(&settings).await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.ledger().until("c1", "waiting").await;
    let paused = "kf_official_account_paused{official_account=\"test\",reason=\"misconfigured\"}";
    assert_eq!((worker.pauses().await.len(), worker.metric(paused).await), (1, Some(1.0)));

    settings.official_accounts = right;
    worker.reload(&settings).await;
    assert_eq!((worker.pauses().await, worker.metric(paused).await), (Vec::new(), Some(0.0)));
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(fetches(&stage, "test"), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_keeps_its_token_and_its_pause() {
    let mut stage = Stage::with_official_accounts(&["test", "paused", "new"]).await;
    let mut settings = with(&stage, &["test", "paused"]);
    settings.set("retry.probe_interval", "1h").set("retry.defer", json!(["10m"]));
    let mut worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.wechat.next(Endpoint::Add, Some("ben@paused"), Answer::Errcode(48001));
    stage.send(&add("c2", "ben@paused", "本")).await;
    stage.ledger().until("c2", "waiting").await;
    let since = async || {
        worker
            .pauses()
            .await
            .iter()
            .filter_map(|line| line.split_once(", next call"))
            .map(|(since, _)| since.to_owned())
            .collect::<Vec<_>>()
    };
    let before = since().await;
    assert_eq!(before.len(), 1, "{before:?}");

    settings.official_accounts.push_str(&table(&stage, "new"));
    worker.reload(&settings).await;
    stage.outcome(&add("c3", "carl@test", "卡尔")).await.assert_succeeded("created");
    stage.outcome(&add("c4", "dora@new", "朵拉")).await.assert_succeeded("created");
    assert_eq!((fetches(&stage, "test"), fetches(&stage, "paused"), fetches(&stage, "new")), (1, 1, 1));
    assert_eq!(since().await, before);
    stage.send(&delete("c5", "eva@paused")).await;
    stage.ledger().until("c5", "waiting").await;
    assert_eq!(stage.wechat.changes("eva@paused").len(), 0);
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_ends_as_if_nothing_had_changed() {
    let mut stage = Stage::with_official_accounts(&["test", "other", "stays"]).await;
    let mut settings = stage.settings();
    let worker = stage.worker_with(&settings).await;
    let mut removed = stage.wechat.hold(Endpoint::Add, "anna@test");
    let mut changed = stage.wechat.hold(Endpoint::Add, "ben@other");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.send(&add("c2", "ben@other", "本")).await;
    removed.arrived().await;
    changed.arrived().await;
    settings.official_accounts = table(&stage, "stays") + &table(&stage, "other").replace("app_id", "max_rate = \"10/s\"\napp_id");
    worker.reload(&settings).await;
    removed.release();
    changed.release();
    for command_id in ["c1", "c2"] {
        let event = stage.events.of(command_id).await;
        event.assert_succeeded("created");
        assert_eq!(event.attempts(), 1);
    }
    stage.outcome(&delete("c3", "ben@other")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_faults_changes_nothing_and_every_fault_is_logged() {
    let mut stage = Stage::new().await;
    let settings = stage.settings();
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    let mut broken = with(&stage, &["other"]);
    broken.set("worker.concurency", 3).set("retry.initial", "soon");
    broken.official_accounts.push_str("[[official_account]]\nwechat_id = \"not an id\"\napp_id = \"wx1\"\n\n");
    worker.configure(&broken);
    worker.signal("HUP").await;
    eventually("the faults are logged", async || worker.log().contains("read again and not taken up").then_some(())).await;
    let log = worker.log();
    for key in ["worker.concurency", "retry.initial", "official_account.1.wechat_id", "official_account.1.app_secret"] {
        assert!(log.contains(key), "{key} is not told of: {log}");
    }
    assert!(!log.contains(&stage.wechat.official_account("other").app_secret));
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(fetches(&stage, "test"), 1, "it is as it was");

    worker.reload(&settings).await;
    stage.outcome(&add("c3", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_two_thousand_official_accounts_is_read_within_seconds() {
    let mut stage = Stage::new().await;
    let folder = stage.path("official-accounts.d");
    std::fs::create_dir(&folder).expect("a folder");
    let mut settings = with(&stage, &["test"]);
    settings.set("wechat.official_account_dir", "official-accounts.d");
    let worker = stage.worker_with(&settings).await;
    for number in 0..2_000 {
        let account = format!("wechat_id = \"oa{number}\"\napp_id = \"wx{number}\"\napp_secret = \"a secret\"\n");
        std::fs::write(folder.join(format!("oa{number}.toml")), account).expect("a file");
    }
    let lines = table(&stage, "other").replace("[[official_account]]\n", "");
    std::fs::write(folder.join("zz-other.toml"), lines).expect("a file");
    let began = Instant::now();
    worker.reload(&settings).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    println!("2,001 Official Accounts were read in {took:?}");
    stage.outcome(&add("c1", "anna@other", "安娜")).await.assert_succeeded("created");
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");

    // All but one are taken away again.
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    std::fs::create_dir(&folder).expect("a folder");
    worker.reload(&settings).await;
    stage.outcome(&delete("c3", "anna@other")).await.assert_ended("failed", "unknown_official_account");
    stage.outcome(&delete("c4", "ben@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
