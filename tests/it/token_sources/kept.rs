//! What the ledger keeps of tokens: a refresh token that is lost would have to be authorised again by hand.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::{authorised, authorised_with_ticket_file, only, refresh_tokens_sent, restart, settle};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::Endpoint;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_kept_token_is_used_and_then_the_newest_refresh_token() {
    for kill in [false, true] {
        let mut stage = Stage::new().await;
        let settings = authorised_with_ticket_file(&stage);
        let mut worker = stage.worker_with(&settings).await;
        let mut told = vec![stage.outcome(&add("c0", "a0@test", "安娜")).await];
        for life in 1..3 {
            restart(&mut worker, kill).await;
            let kept = stage.outcome(&add(&format!("k{life}"), &format!("k{life}@test"), "安娜")).await;
            kept.assert_succeeded("created");
            assert_eq!((kept.attempts(), refresh_tokens_sent(&stage).len()), (1, life), "the access token was kept");
            stage.wechat.end_token("test");
            let renewed = stage.outcome(&add(&format!("c{life}"), &format!("a{life}@test"), "安娜")).await;
            renewed.assert_succeeded("created");
            told.extend([kept, renewed]);
        }
        let given = stage.wechat.official_account("test").refresh_tokens();
        assert_eq!(refresh_tokens_sent(&stage), given[..3], "each of them once, in the order in which WeChat gave them");
        assert_eq!(stage.wechat.calls(Endpoint::ComponentToken).len(), 1, "the platform's token is kept as well");
        settle(stage, worker, &told).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_refresh_token_is_in_the_ledger_before_the_access_token_is_used() {
    let mut stage = Stage::new().await;
    let settings = authorised_with_ticket_file(&stage);
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let kept = stage.ledger().token("test").expect("it is kept");
    assert_eq!(kept.refresh_token, stage.wechat.official_account("test").refresh_tokens().pop());
    assert_eq!(kept.access_token, stage.wechat.calls(Endpoint::Add)[0].token);
    worker.kill().await;
    drop(held);

    worker.restart().await;
    // The call that the worker died in was not done, which only WeChat knows.
    stage.events.of("c1").await.assert_succeeded("created");
    let calls = stage.wechat.calls(Endpoint::Add);
    assert_eq!((calls.len(), &calls[1].token), (2, &kept.access_token));
    assert_eq!(refresh_tokens_sent(&stage).len(), 1, "nothing is fetched again");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_ledger_cannot_keep_is_not_used() {
    let mut stage = Stage::new().await;
    let mut settings = authorised_with_ticket_file(&stage);
    // The watch needs nothing of the ledger but the token: it alone could use one that is not kept.
    settings.set("verify.enabled", true).set("verify.drift_interval", "1s");
    let app_id = stage.wechat.official_account("test").app_id;
    let mut fetch = stage.wechat.hold(Endpoint::AuthorizerToken, &app_id);
    let worker = stage.worker_with(&settings).await;
    fetch.arrived().await;
    let lock = stage.ledger().lock();
    fetch.release();
    stage.wechat.until_answered(Endpoint::AuthorizerToken, &app_id, 1).await;
    // What the ledger is asked to write later fails later.
    stage.send(&add("c1", "anna@test", "安娜")).await;
    assert!(worker.not_ready().await.starts_with("ledger"));
    assert_eq!(stage.wechat.calls(Endpoint::List).len(), 0, "nothing is called with it");
    assert_eq!(stage.ledger().token("test"), None);
    drop(lock);

    stage.wechat.until_answered(Endpoint::List, "test", 1).await;
    let kept = stage.ledger().token("test").expect("it is kept");
    assert_eq!(kept.refresh_token, stage.wechat.official_account("test").refresh_tokens().pop());
    let given = stage.wechat.official_account("test").refresh_tokens();
    let sent = refresh_tokens_sent(&stage);
    assert_eq!(sent, given[..sent.len()], "what could not be kept at first is not forgotten");
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_read_the_ledger() {
    let mut stage = Stage::new().await;
    let settings = authorised_with_ticket_file(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    let files = stage.ledger().files();
    assert_eq!(files.len(), 3, "the ledger, its log and its index: {files:?}");
    for file in files {
        let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_of_a_new_authorisation_goes_before_the_kept_one() {
    let mut stage = Stage::new().await;
    let settings = authorised_with_ticket_file(&stage);
    let mut worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(worker.terminate().await, Some(0));

    let new = stage.wechat.authorise_again("test");
    let ticket = format!("verify_ticket_file = \"{}\"", stage.path("ticket").display());
    worker.configure(&authorised(&stage, &[("test", &new)], &ticket));
    worker.restart().await;
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1, "the kept access token is of no use either");
    assert_eq!(refresh_tokens_sent(&stage).last(), Some(&new));

    // From here on what WeChat made of it is kept.
    assert_eq!(worker.terminate().await, Some(0));
    worker.restart().await;
    stage.outcome(&delete("c3", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(refresh_tokens_sent(&stage).len(), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_with_another_secret_fetches_a_token_of_its_own() {
    let mut stage = Stage::new().await;
    let settings = authorised_with_ticket_file(&stage);
    let mut worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(worker.terminate().await, Some(0));

    stage.wechat.set_platform_secret("SECRET-of-the-platform-changed");
    stage.wechat.end_token("test");
    worker.configure(&authorised_with_ticket_file(&stage));
    worker.restart().await;
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    let fetched = stage.wechat.calls(Endpoint::ComponentToken);
    assert_eq!(fetched.len(), 2, "the token that was kept under the former secret is not used");
    let body: Value = serde_json::from_str(&fetched[1].body).expect("JSON");
    assert_eq!(body["component_appsecret"], "SECRET-of-the-platform-changed");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_token_outlives_the_process() {
    for kill in [false, true] {
        let mut stage = Stage::new().await;
        let official = stage.wechat.official_account("test");
        let lines = format!("token = \"legacy\"\napp_id = \"{}\"\napp_secret = \"{}\"", official.app_id, official.app_secret);
        let settings = only(&stage, "test", &lines);
        let mut worker = stage.worker_with(&settings).await;
        let added = stage.outcome(&add("c1", "anna@test", "安娜")).await;
        added.assert_succeeded("created");
        restart(&mut worker, kill).await;
        let deleted = stage.outcome(&delete("c2", "anna@test")).await;
        deleted.assert_succeeded("deleted");
        let fetches = stage.wechat.calls(Endpoint::Token).len();
        assert_eq!((deleted.attempts(), fetches), (1, 1), "another fetch would end the token for others");
        settle(stage, worker, &[added, deleted]).await;
    }
}
