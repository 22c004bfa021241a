//! What an operator does day by day as `kf-operator`, and what is refused by the program's own words.

use std::process::Output;

use serde_json::Value;

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add};
use crate::support::vhost::Vhost;
use crate::support::wechat::{Answer, Endpoint};
use crate::watching::Watcher;

/// Fails where the program didn't end for want of a right, on what these words name.
#[track_caller]
fn assert_forbidden(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("ACCESS_REFUSED") && words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_watches_results_and_handles_dead_letters_and_nobody_else_does() {
    let vhost = Vhost::new().await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let mut settings = stage.settings();
    settings.set("amqp.url", vhost.url("kf-worker")).publisher("hr-onboarding", &["add"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    let mut watcher = Watcher::start(&stage, Some(&vhost.url("kf-operator")), &["--json"]).await;

    // One dead letter is of a command that failed, and another of one that nobody has sent.
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(65403));
    let hr = vhost.client("hr-onboarding").await;
    hr.publish(Message::json(&add("c1", "anna@test", "安娜")).user_id("hr-onboarding")).await;
    let failed = stage.events.of("c1").await;
    failed.assert_ended("failed", "nickname_refused");
    assert_eq!(watcher.line().await, failed.data);
    hr.publish(Message::json(&add("c2", "ben@test", "本"))).await;

    let listed = eventually("both are listed", async || {
        let listed = vhost.printed("kf-operator", &["dead", "list"]).await;
        (listed.lines().count() == 2).then_some(listed)
    })
    .await;
    assert!(listed.contains("c1/dead/0") && listed.contains("not_authorised"), "{listed}");
    assert!(vhost.printed("kf-operator", &["dead", "show", "c1/dead/0"]).await.contains("安娜"));
    vhost.printed("kf-operator", &["dead", "replay", "c1/dead/0"]).await;
    let replayed = stage.events.of("c1").await;
    replayed.assert_succeeded("created");
    assert_eq!(watcher.line().await, replayed.data);
    vhost.printed("kf-operator", &["dead", "drop", "--reason", "not_authorised"]).await;
    assert_eq!(stage.broker.ready("dead").await, Some(0));
    assert_eq!(watcher.interrupt().await, Some(0));

    // The number of partitions is a matter of the worker's whole configuration.
    let config = worker.config().to_str().expect("a plain path");
    let shown = vhost.printed("kf-operator", &["--config", config, "partitions", "show", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["partitions"], 1, "looking needs no right");
    let set = vhost.program("kf-operator", &["--config", config, "partitions", "set", "2"]).await;
    assert_forbidden(&set, &["queue `kf.parked-owner`", "kf-operator"]);

    assert_forbidden(&vhost.program("hr-results", &["dead", "list"]).await, &["queue `kf.dead`", "grant it", "hr-results"]);
    assert_forbidden(&vhost.program("hr-onboarding", &["watch"]).await, &["queue `kf-watch-", "hr-onboarding"]);
    let sent = vhost.program("hr-results", &["send", "add", "carl@test", "卡尔"]).await;
    assert_forbidden(&sent, &["`kf.commands`", "hr-results"]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}
