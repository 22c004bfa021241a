//! Tokens that WeChat gives to the Official Account itself: renewed in time, and never fetched in a loop.

use jiff::SignedDuration;
use serde_json::json;

use super::only;
use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_that_comes_back_unchanged_is_not_fetched_in_a_loop() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    // Waiting commands come back again and again while this test looks.
    settings.set("retry.defer", json!(["100ms", "300ms"])).env("KF_LOG_FORMAT", "json");
    let mut worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, Some("anna@test"), Answer::Errcode(40001));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    let entry = stage.ledger().until("c1", "waiting").await;
    assert_eq!((entry.trouble.as_deref(), entry.attempts), (Some("token_refused"), 1));
    // Between the refusal and the pause it is asked for once.
    let paused = async || Some(worker.pauses().await).filter(|pauses| !pauses.is_empty());
    let pauses = eventually("the Official Account is paused", paused).await;
    assert!(pauses.len() == 1 && pauses[0].starts_with("paused: test (official_account): token_refused since "), "{pauses:?}");
    let log = worker.log();
    let paused = log.lines().find(|line| line.contains("the Official Account is paused")).expect("the pause is logged");
    let paused: serde_json::Value = serde_json::from_str(paused).expect("JSON");
    let seconds = paused["fields"]["pause_s"].as_u64().expect("a number");
    assert!((20..=30).contains(&seconds), "it is asked once more half a minute after the refusal: {seconds} s");

    let names: Vec<String> = (0..20).map(|number| format!("a{number}")).collect();
    stage.broker.publish_all(names.iter().map(|name| Message::json(&add(name, &format!("{name}@test"), "安娜")))).await;
    for name in &names {
        stage.ledger().until(name, "waiting").await;
    }
    // Commands of another Official Account go on meanwhile.
    for number in 0..20 {
        stage.outcome(&add(&format!("o{number}"), &format!("o{number}@other"), "本")).await.assert_succeeded("created");
    }
    let app_id = stage.wechat.official_account("test").app_id;
    let fetches = stage.wechat.calls(Endpoint::StableToken).into_iter().filter(|call| call.account == app_id).count();
    assert_eq!(fetches, 2, "the first, and one after the refusal");
    let calls = stage.wechat.calls(Endpoint::Add).into_iter().filter(|call| call.account.ends_with("@test")).count();
    assert_eq!(calls, 1, "nothing is called with a token that was refused");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_its_end() {
    let mut stage = Stage::new().await;
    // The worker itself spreads the calls, so that one comes in each twentieth of a second.
    let official = stage.wechat.official_account("test");
    let lines = format!("app_id = \"{}\"\napp_secret = \"{}\"\nmax_rate = \"20/s\"", official.app_id, official.app_secret);
    let settings = only(&stage, "test", &lines);
    stage.wechat.set_expires_in(8);
    let worker = stage.worker_with(&settings).await;
    stage.broker.publish_all((0..200).map(|number| Message::json(&delete(&format!("c{number}"), &format!("a{number}@test"))))).await;
    for event in stage.events.collect(200).await {
        event.assert_succeeded("none");
        assert_eq!(event.attempts(), 1, "{}", event.data);
    }
    let fetches = stage.wechat.calls(Endpoint::StableToken);
    let between = fetches[1].at.duration_since(fetches[0].at);
    let (early, end) = (SignedDuration::from_millis(7_000), SignedDuration::from_secs(8));
    assert!(early < between && between < end, "a tenth of its life before its end: after {between:#}");
    assert_eq!((fetches.len(), stage.settle(worker).await.len()), (2, 0));
}
