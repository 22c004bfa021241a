//! The most calls that an Official Account makes in a while: spread evenly, given out in turn, and nobody else is slowed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::calls;
use crate::support::stage::{Stage, account, add, adds, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::Settings;

/// Settings in which the Official Account `test` makes no more calls than this.
fn with_max_rate(stage: &Stage, rate: &str) -> Settings {
    let mut settings = stage.settings();
    let line = "wechat_id = \"test\"\n";
    settings.official_accounts = settings.official_accounts.replace(line, &format!("{line}max_rate = \"{rate}\"\n"));
    settings
}

fn apart(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).unsigned_abs()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_keep_to_the_rate_take_turns_and_slow_nobody_else() {
    let mut stage = Stage::new().await;
    let mut settings = with_max_rate(&stage, "20/s");
    settings.set("retry.budget", 1_000);
    let worker = stage.worker_with(&settings).await;
    let (slowed, free) = (adds("a", "test", 6), adds("b", "other", 30));
    // Ten calls for each account: with a backoff below 100 ms each waits for its next turn nearly at once.
    for command in &slowed {
        for _ in 0..9 {
            stage.wechat.next(Endpoint::Add, Some(account(command)), Answer::Errcode(-1));
        }
    }
    stage.send_all(&slowed).await;
    stage.send_all(&free).await;
    let outcomes = stage.settle_each(worker, &[slowed, free].concat()).await;
    assert!(outcomes.values().all(|event| event.status() == "succeeded"));

    let made = calls(&stage.wechat, "test");
    assert_eq!(made.len(), 60);
    let (first, last) = (made[0].at, made[59].at);
    assert!(apart(first, last) >= Duration::from_millis(2_800), "59 spaces of 50 ms: {:?}", apart(first, last));
    for (from, call) in made.iter().enumerate() {
        let within = made[from..].iter().filter(|later| apart(call.at, later.at) < Duration::from_secs(1)).count();
        assert!(within <= 22, "{within} calls in a second, from call {from} on");
    }
    let mut turns: BTreeMap<&str, usize> = made.iter().map(|call| (call.account.as_str(), 0)).collect();
    for call in &made {
        *turns.entry(&call.account).or_default() += 1;
        let (least, most) = (turns.values().min().expect("six"), turns.values().max().expect("six"));
        assert!(most - least <= 2, "{turns:?}");
    }
    let others = calls(&stage.wechat, "other");
    assert!(others.iter().all(|call| call.at < last), "whoever has no rate is long done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_supersedes_an_add_that_waits_for_its_rate() {
    let mut stage = Stage::new().await;
    let settings = with_max_rate(&stage, "60/m");
    let worker = stage.worker_with(&settings).await;
    let before = adds("a", "test", 4);
    stage.send_all(&before).await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    assert_eq!(stage.ledger().until("c1", "waiting").await.trouble.as_deref(), Some("rate_limited"));
    stage.send(&delete("c2", "anna@test")).await;
    stage.events.of("c1").await.assert_ended("superseded", "newer_command");
    stage.events.of("c2").await.assert_succeeded("none");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Delete]);
    stage.settle_each(worker, &before).await;
}
