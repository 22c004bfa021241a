//! Faults on demand: what the caller sees of each, and what it did at WeChat.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::json;

use super::{ADD, DEADLINE, LIST, Wechat};
use crate::simulator::{Effect, Rule, Settings};

/// Adds `a@test` and gives back what came over the wire.
async fn add(wechat: &Wechat, token: &str) -> reqwest::Result<Response> {
    let path = format!("{ADD}?access_token={token}");
    let body = r#"{"kf_account": "a@test", "nickname": "a"}"#;
    wechat.send(Method::POST, &path, body).await
}

/// Whether the connection was reset rather than ended.
fn is_reset(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionReset;
        }
        source = error.source();
    }
    false
}

#[tokio::test]
async fn a_lost_answer_did_the_work() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.set_faults(json!([{"times": 1, "effect": "lost_answer", "endpoint": "add"}])).await;
    let error = add(&wechat, &token).await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect() && !is_reset(&error), "{error:?}");
    assert_eq!(wechat.kf_accounts().await, ["a@test"]);
    assert_eq!(wechat.add(&token, "a@test").await, 65406);
}

#[tokio::test]
async fn a_reset_did_nothing() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.set_faults(json!([{"times": 1, "effect": "reset", "endpoint": "add"}])).await;
    let error = add(&wechat, &token).await.unwrap_err();
    assert!(is_reset(&error), "{error:?}");
    assert!(wechat.kf_accounts().await.is_empty());
    assert_eq!(wechat.add(&token, "a@test").await, 0);
}

#[tokio::test]
async fn a_hanging_call_did_the_work_and_ends_with_the_simulator() {
    let mut wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.set_faults(json!([{"kf_account": "a@test", "effect": "hang"}])).await;
    let mut call = Box::pin(add(&wechat, &token));
    let worked = wechat.until("/control/calls", "/calls/add/hang", json!(1));
    tokio::select! {
        answer = &mut call => panic!("answered: {answer:?}"),
        () = worked => {}
    }
    assert_eq!(wechat.kf_accounts().await, ["a@test"]);
    wechat.shutdown.cancel();
    assert!(call.await.is_err());
    let ended = tokio::time::timeout(DEADLINE, &mut wechat.running).await;
    assert!(ended.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn errors_of_the_gateway_did_nothing() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat
        .set_faults(json!([
            {"times": 1, "effect": {"http_status": 502}},
            {"times": 1, "effect": {"http_status": 302}},
            {"times": 1, "effect": "malformed"},
            {"times": 2, "effect": {"errcode": -1}},
            {"times": 1, "effect": {"errcode": 40164}},
        ]))
        .await;
    assert_eq!(add(&wechat, &token).await.unwrap().status(), 502);
    let redirect = add(&wechat, &token).await.unwrap();
    assert_eq!(redirect.status(), 302);
    assert!(redirect.headers().contains_key("location"));
    let page = add(&wechat, &token).await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().starts_with("<html>"));
    assert_eq!(wechat.add(&token, "a@test").await, -1);
    assert_eq!(wechat.add(&token, "a@test").await, -1);
    let refused = add(&wechat, &token).await.unwrap().text().await.unwrap();
    assert!(refused.contains("invalid ip 127.0.0.1"), "{refused}");
    assert!(wechat.kf_accounts().await.is_empty());
    assert_eq!(wechat.get("/control/faults").await, json!([]));
    assert_eq!(wechat.add(&token, "a@test").await, 0);
}

#[tokio::test]
async fn a_rule_hits_only_the_calls_that_it_names() {
    let settings = Settings {
        official_accounts: vec!["test:wx0123456789abcdef:secret".parse().unwrap(), "two:wx2:s2".parse().unwrap()],
        ..Settings::default()
    };
    let wechat = Wechat::start(settings).await;
    let first = wechat.stable_token().await;
    let path = "/cgi-bin/token?grant_type=client_credential&appid=wx2&secret=s2";
    let second = super::text(&wechat.get(path).await["access_token"]);
    wechat
        .set_faults(json!([
            {"wechat_id": "two", "effect": {"errcode": 48001}},
            {"kf_account": "a@test", "endpoint": "del", "effect": {"errcode": 45011}},
            {"endpoint": "token", "effect": {"errcode": 40164}},
            {"probability": 0.0, "effect": {"errcode": 61450}},
        ]))
        .await;
    assert_eq!(wechat.add(&first, "a@test").await, 0);
    assert_eq!(wechat.add(&first, "b@test").await, 0);
    assert_eq!(wechat.del(&first, "a@test").await, 45011);
    assert_eq!(wechat.del(&first, "b@test").await, 0);
    assert_eq!(wechat.add(&second, "a@two").await, 48001);
    assert_eq!(wechat.get(super::LEGACY).await["errcode"], 40164);
    assert_eq!(wechat.get(path).await["errcode"], 48001);
}

#[tokio::test]
async fn the_list_is_refused_where_a_rule_says_so() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.set_faults(json!([{"endpoint": "getkflist", "wechat_id": "test", "times": 1, "effect": {"errcode": 48001}}])).await;
    let path = format!("{LIST}?access_token={token}");
    assert_eq!(wechat.get(LIST).await["errcode"], 41001);
    assert_eq!(wechat.get(&path).await["errcode"], 48001);
    assert_eq!(wechat.get(&path).await, json!({"kf_list": []}));
}

#[tokio::test]
async fn delays_add_up_and_overlapping_calls_are_counted() {
    let settings = Settings {
        faults: vec![
            Rule { latency: Some(Duration::from_millis(60)), ..Rule::default() },
            Rule { latency: Some(Duration::from_millis(40)), jitter: Some(Duration::from_millis(1)), ..Rule::default() },
            Rule { effect: Some(Effect::Errcode(-1)), probability: Some(0.0), ..Rule::default() },
        ],
        ..Settings::default()
    };
    let wechat = Wechat::start(settings).await;
    let begin = Instant::now();
    let token = wechat.stable_token().await;
    assert!(begin.elapsed() >= Duration::from_millis(100));
    let both = tokio::join!(wechat.add(&token, "a@test"), wechat.add(&token, "a@test"));
    assert!(both == (json!(0), json!(65406)) || both == (json!(65406), json!(0)));
    let calls = wechat.get("/control/calls").await;
    assert_eq!(calls["highest_overlap"], 2);
    assert_eq!(calls["kf_accounts"]["a@test"]["in_flight"], 0);
}

#[tokio::test]
async fn a_delayed_call_lands_although_its_caller_hung_up() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.set_faults(json!([{"latency": "300ms", "endpoint": "add"}])).await;
    let in_flight = wechat.until("/control/calls", "/kf_accounts/a@test/in_flight", json!(1));
    tokio::select! {
        answer = add(&wechat, &token) => panic!("answered: {answer:?}"),
        () = in_flight => {}
    }
    assert!(wechat.kf_accounts().await.is_empty());
    wechat.until("/control/calls", "/calls/add/0", json!(1)).await;
    assert_eq!(wechat.kf_accounts().await, ["a@test"]);
}

#[tokio::test]
async fn a_share_of_calls_is_about_that_share() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.set_faults(json!([{"probability": 0.5, "effect": {"errcode": -1}}])).await;
    let mut hit = 0;
    for _ in 0..400 {
        hit += i32::from(wechat.del(&token, "a@test").await == -1);
    }
    // Ten standard deviations.
    assert!((100..=300).contains(&hit), "{hit}");
}
