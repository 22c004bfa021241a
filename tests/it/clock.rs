//! A machine whose clock is wrong: order and outcomes don't come from it, and where it does count, it errs on the side of a delete.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::broker::Message;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::Endpoint;
use crate::support::worker::Settings;

/// Debian's libfaketime, under the folder of this machine's architecture.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("it is a Debian").flatten();
    let mut places = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    places.find(|place| place.exists()).expect("libfaketime is installed: apt-get install libfaketime")
}

/// A worker whose clock is so wrong (`-2d`, `+2d`); what only counts time, as timeouts do, is right.
fn wrong_by(offset: &str, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.env("LD_PRELOAD", faketime().to_str().expect("a plain path")).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    settings
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_changes_no_outcome_and_brings_nobody_back() {
    let mut stage = Stage::new().await;
    let right = stage.settings();
    let ahead = stage.worker_with(&wrong_by("+2d", &right)).await;
    let first = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    first.assert_succeeded("created");
    assert!(
        first.json["data"]["finished_at"].as_str() > Some(jiff::Timestamp::now().to_string().as_str()),
        "its clock is ahead: {}",
        first.data
    );
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(ahead).await.len(), 0);

    let behind = stage.worker_with(&wrong_by("-2d", &right)).await;
    first.assert_repeated_by(&stage.outcome(&add("c1", "anna@test", "安娜")).await);
    stage.outcome(&add("c3", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.outcome(&delete("c4", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(behind).await.len(), 0);

    let worker = stage.worker_with(&right).await;
    first.assert_repeated_by(&stage.outcome(&add("c1", "anna@test", "安娜")).await);
    // The latest delete was noted two days ahead: whatever says that it was sent before that is refused, to be safe.
    stage.broker.publish(Message::json(&add("c5", "anna@test", "安娜")).timestamp(now())).await;
    stage.events.of("c5").await.assert_ended("superseded", "sent_before_delete");
    assert!(!stage.wechat.has("anna@test"));
    stage.outcome(&add("c6", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add, Endpoint::Delete, Endpoint::Add, Endpoint::Delete, Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}
