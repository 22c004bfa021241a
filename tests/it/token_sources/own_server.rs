//! `token = "url"`: an organisation's own token server.

use super::{assert_not_shown, only};
use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, Worker};

/// The token server is asked for `test`, with its key as the header.
fn with_token_server(stage: &Stage) -> Settings {
    let (url, key) = (stage.wechat.token_server_url("test"), stage.wechat.api_key());
    let mut settings = only(stage, "test", &format!("token = \"url\"\ntoken_url = \"{url}\"\ntoken_headers = [\"X-Api-Key: {key}\"]"));
    settings.env("RUST_LOG", "info,lapin=error,kf_worker=debug");
    settings
}

/// Nothing of the token server's address, key or token is told anywhere.
async fn assert_kept_secret(stage: &Stage, worker: &Worker, event: &str) {
    let token = stage.wechat.calls(Endpoint::Add)[0].token.clone();
    let (_, metrics) = worker.get("/metrics").await.expect("the worker answers");
    let (_, readiness) = worker.get("/readyz").await.expect("the worker answers");
    assert_not_shown(&["/token-server", &stage.wechat.api_key(), &token], &[&worker.log(), &metrics, &readiness, event]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_is_asked_with_its_header_and_its_token_is_used() {
    let mut stage = Stage::new().await;
    let settings = with_token_server(&stage);
    let worker = stage.worker_with(&settings).await;
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    let asked = stage.wechat.calls(Endpoint::TokenServer);
    assert_eq!(asked.len(), 1, "one token serves both");
    assert_eq!(asked[0].headers.get("x-api-key"), Some(&stage.wechat.api_key()));
    assert_kept_secret(&stage, &worker, &event.data).await;
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn address_and_headers_of_a_token_server_may_stand_in_files() {
    let mut stage = Stage::new().await;
    let (url, headers) = (stage.path("url"), stage.path("headers"));
    std::fs::write(&url, stage.wechat.token_server_url("test") + "\n").expect("a file");
    std::fs::write(&headers, format!("x-purpose: kf accounts\n\nx-api-key: {}\n", stage.wechat.api_key())).expect("a file");
    let lines = format!("token = \"url\"\ntoken_url_file = \"{}\"\ntoken_headers_file = \"{}\"", url.display(), headers.display());
    let settings = only(&stage, "test", &lines);
    let worker = stage.worker_with(&settings).await;
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    let asked = &stage.wechat.calls(Endpoint::TokenServer)[0].headers;
    assert_eq!((asked.get("x-api-key"), asked["x-purpose"].as_str()), (Some(&stage.wechat.api_key()), "kf accounts"));
    assert_kept_secret(&stage, &worker, &event.data).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_asked_for_again_once_at_its_server() {
    let mut stage = Stage::new().await;
    let settings = with_token_server(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.wechat.end_token("test");
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("created");
    assert_eq!((event.attempts(), stage.wechat.calls(Endpoint::TokenServer).len()), (2, 2));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_refuses_the_worker_pauses_its_official_account() {
    let mut stage = Stage::new().await;
    let mut settings = with_token_server(&stage);
    settings.set("retry.probe_interval", "300ms");
    let worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::TokenServer, None, Answer::Http(401));
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1, "without a token nothing is called");
    assert_eq!(stage.wechat.calls(Endpoint::TokenServer).len(), 2, "one probe");
    let log = worker.log();
    let paused = log.lines().find(|line| line.contains("the Official Account is paused")).expect("the pause is logged");
    assert!(paused.contains("misconfigured") && paused.contains("token server") && paused.contains("HTTP 401"), "{paused}");
    assert_kept_secret(&stage, &worker, &event.data).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_in_passing_trouble_is_asked_again() {
    let mut stage = Stage::new().await;
    let mut settings = with_token_server(&stage);
    // No pause but that of a misconfiguration is to be had.
    settings.set("retry.budget", 10_000).set("retry.budget_in_all", 10_000);
    let worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::TokenServer, None, Answer::Http(502));
    stage.wechat.next(Endpoint::TokenServer, None, Answer::Body("<html>oops</html>".to_owned()));
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.wechat.calls(Endpoint::TokenServer).len(), 3, "it is left in peace for a while after each failure");
    assert!(!worker.log().contains("the Official Account is paused"));
    assert_kept_secret(&stage, &worker, &event.data).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_servers_in_trouble_are_not_taken_for_wechat_in_trouble() {
    let mut stage = Stage::with_official_accounts(&["a", "b", "c", "test"]).await;
    let mut settings = stage.settings();
    // Three Official Accounts may fail so often together, one alone not.
    settings.set("retry.budget", 10).set("retry.budget_in_all", 25).set("retry.probe_interval", "1h");
    let (_, tail) = settings.official_accounts.rsplit_once("[[official_account]]").expect("the last one has WeChat's own token");
    let mut accounts = format!("[[official_account]]{tail}");
    for wechat_id in ["a", "b", "c"] {
        let url = stage.wechat.token_server_url(wechat_id);
        accounts.push_str(&format!("[[official_account]]\nwechat_id = \"{wechat_id}\"\ntoken = \"url\"\ntoken_url = \"{url}\"\n\n"));
    }
    settings.official_accounts = accounts;
    stage.wechat.always(Endpoint::TokenServer, None, Answer::Http(502));
    let mut worker = stage.worker_with(&settings).await;
    for number in 0..30 {
        let account = format!("a{number}@{}", ["a", "b", "c"][number % 3]);
        stage.send(&add(&account, &account, "安娜")).await;
    }
    let paused = async || (worker.pauses().await.len() == 3).then_some(());
    eventually("each of them is only probed", paused).await;
    assert_eq!(worker.metric("kf_wechat_failing").await, Some(0.0), "WeChat was not even called");
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(worker.terminate().await, Some(0));
}
