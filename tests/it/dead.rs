//! Dead letters by the command line: listed, shown, replayed as a new generation, dropped; and commands that kill.

use std::process::Output;

use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Worker, kf_worker};

/// Runs `kf-worker dead …` with a worker's configuration.
async fn dead(worker: &Worker, arguments: &[&str]) -> Output {
    let output = kf_worker().arg("--config").arg(worker.config()).arg("dead").args(arguments).output();
    output.await.expect("the program runs")
}

/// What it printed, where it ended well.
async fn printed(worker: &Worker, arguments: &[&str]) -> String {
    let output = dead(worker, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_command_is_listed_shown_and_replayed_as_its_next_generation() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(65403));
    let failed = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    failed.assert_ended("failed", "nickname_refused");

    let listed = printed(&worker, &["list"]).await;
    assert!(listed.contains("c1/dead/0") && listed.contains("nickname_refused"), "{listed}");
    assert_eq!(printed(&worker, &["list", "--reason", "worker_bug"]).await, "");
    let shown: serde_json::Value = serde_json::from_str(&printed(&worker, &["show", "c1/dead/0", "--json"]).await).unwrap();
    assert_eq!(shown["reason"], "nickname_refused");
    assert!(shown["body"].as_str().unwrap().contains("安娜"));

    assert_eq!(printed(&worker, &["replay", "c1/dead/0", "--dry-run"]).await.trim(), "c1/dead/0");
    assert_eq!(stage.broker.ready("dead").await, Some(1), "a dry run moves nothing");
    printed(&worker, &["replay", "c1/dead/0"]).await;
    let replayed = stage.events.of("c1").await;
    replayed.assert_succeeded("created");
    assert_ne!(replayed.event_id(), failed.event_id(), "a generation has an event of its own");
    assert_eq!(replayed.attempts(), 2, "all calls for this command");
    replayed.assert_repeated_by(&stage.outcome(&add("c1", "anna@test", "安娜")).await);
    assert_eq!(stage.broker.ready("dead").await, Some(0));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_way_to_a_newer_command() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(65403));
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_ended("failed", "nickname_refused");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("none");
    printed(&worker, &["replay", "--all"]).await;
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    assert!(!stage.wechat.has("anna@test"), "an offboarded person does not come back");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_official_account_is_mended_by_configuration_and_replay() {
    let mut stage = Stage::new().await;
    let mut without = stage.settings();
    without.official_accounts = without.official_accounts.replace("wechat_id = \"other\"", "wechat_id = \"another\"");
    let mut worker = stage.worker_with(&without).await;
    let failed = stage.outcome(&add("c1", "anna@other", "安娜")).await;
    failed.assert_ended("failed", "unknown_official_account");
    assert_eq!(failed.attempts(), 0);
    assert_eq!(worker.terminate().await, Some(0));

    let worker = stage.worker().await;
    printed(&worker, &["replay", "--reason", "unknown_official_account"]).await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replay_cannot_mend_is_left_alone_and_can_be_dropped() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.broker.publish(crate::support::broker::Message::raw("{")).await;
    let id = crate::support::eventually("the dead letter is listed", async || {
        let listed = printed(&worker, &["list", "--json"]).await;
        let letter: serde_json::Value = serde_json::from_str(listed.lines().next()?).ok()?;
        letter["id"].as_str().map(str::to_owned)
    })
    .await;
    let output = dead(&worker, &["replay", &id]).await;
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't be mended by a replay"));
    assert_eq!(stage.broker.ready("dead").await, Some(1));
    printed(&worker, &["drop", &id]).await;
    assert_eq!(stage.broker.ready("dead").await, Some(0));
    assert_eq!(dead(&worker, &["show", &id]).await.status.code(), Some(1));
    assert_eq!(dead(&worker, &["replay"]).await.status.code(), Some(2), "which ones must be said");
    assert_eq!(dead(&worker, &["drop"]).await.status.code(), Some(2));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_alone_under_way_at_three_deaths_is_given_up_as_poison() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    for _ in 0..2 {
        held.arrived().await;
        worker.kill().await;
        drop(held);
        held = stage.wechat.hold(Endpoint::Add, "anna@test");
        worker.restart().await;
    }
    held.arrived().await;
    // A command of another account comes while the suspect runs: it has to wait, so that the suspect is alone.
    stage.send(&add("c2", "ben@test", "本")).await;
    stage.ledger().until("c2", "accepted").await;
    worker.kill().await;
    drop(held);

    worker.restart().await;
    let event = stage.events.of("c1").await;
    event.assert_ended("failed", "poison");
    assert_eq!(event.attempts(), 3);
    stage.events.of("c2").await.assert_succeeded("created");
    assert!(printed(&worker, &["list"]).await.contains("poison"));
    printed(&worker, &["drop", "--reason", "poison"]).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_takes_no_other_command_with_it_and_ends_as_poison() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.env("KF_FAULT_PANIC", "c2");
    let worker = stage.worker_with(&settings).await;
    for command in [add("c1", "anna@test", "安娜"), add("c2", "ben@test", "本"), add("c3", "cleo@test", "克")] {
        stage.send(&command).await;
    }
    stage.events.of("c1").await.assert_succeeded("created");
    stage.events.of("c3").await.assert_succeeded("created");
    stage.events.of("c2").await.assert_ended("failed", "poison");
    assert_eq!(stage.wechat.changes("ben@test").len(), 0);
    stage.outcome(&delete("c4", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
