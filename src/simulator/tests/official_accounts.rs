//! What the control endpoint changes of one Official Account, and the counts of each.

use reqwest::Method;
use serde_json::{Value, json};

use super::{LIST, STABLE, Wechat, credentials, text, with_platforms};
use crate::simulator::Settings;

const SECRET: &str = "official-accounts/test/secret";
const QUOTA: &str = "official-accounts/test/quota";

/// The token of the Official Account `two`, from a stable token call.
async fn second_token(wechat: &Wechat) -> String {
    let body = json!({"grant_type": "client_credential", "appid": "wx2", "secret": "s2"});
    text(&wechat.post(STABLE, body.to_string()).await["access_token"])
}

fn with_secret(secret: &str) -> String {
    credentials().replace(r#""secret":"secret""#, &format!(r#""secret":"{secret}""#))
}

async fn list(wechat: &Wechat, token: &str) -> Value {
    wechat.get(&format!("{LIST}?access_token={token}")).await["errcode"].clone()
}

#[tokio::test]
async fn a_new_secret_ends_the_old_one_and_every_token_of_the_official_account() {
    let wechat = Wechat::start(with_platforms()).await;
    let legacy = text(&wechat.get(super::LEGACY).await["access_token"]);
    let (stable, other) = (wechat.stable_token().await, second_token(&wechat).await);
    wechat.control(Method::PUT, SECRET, "new one\n").await;
    assert_eq!(list(&wechat, &stable).await, 40001);
    assert_eq!(list(&wechat, &legacy).await, 40001);
    assert_eq!(list(&wechat, &other).await, Value::Null);
    assert_eq!(wechat.post(STABLE, credentials()).await["errcode"], 40125);
    let renewed = text(&wechat.post(STABLE, with_secret("new one")).await["access_token"]);
    assert_ne!(renewed, stable);
    assert_eq!(list(&wechat, &renewed).await, Value::Null);
    // The token that came before is not brought back for the overlap time.
    assert_eq!(list(&wechat, &stable).await, 40001);
    let calls = wechat.get("/control/calls").await;
    assert_eq!(calls["official_accounts"]["test"]["getkflist"], json!({"0": 1, "40001": 3}));

    wechat.control(Method::POST, "reset", "").await;
    assert_eq!(wechat.post(STABLE, credentials()).await.get("errcode"), None);
}

#[tokio::test]
async fn a_new_secret_ends_what_a_platform_was_handed_out_and_not_its_leave() {
    let wechat = Wechat::start(with_platforms()).await;
    let ticket = wechat.ticket("wxp1").await;
    let component_token = text(&wechat.ask_component_token("wxp1", "ps1", &ticket).await["component_access_token"]);
    let path = format!("/cgi-bin/component/api_authorizer_token?component_access_token={component_token}");
    let refresh = async |refresh_token: &str| {
        let body = json!({"component_appid": "wxp1", "authorizer_appid": "wx0123456789abcdef", "authorizer_refresh_token": refresh_token});
        wechat.post(&path, body.to_string()).await
    };
    let answer = refresh("first").await;
    wechat.control(Method::PUT, SECRET, "new").await;
    assert_eq!(list(&wechat, &text(&answer["authorizer_access_token"])).await, 40001);
    let answer = refresh(&text(&answer["authorizer_refresh_token"])).await;
    assert_eq!(list(&wechat, &text(&answer["authorizer_access_token"])).await, Value::Null);
}

#[tokio::test]
async fn a_quota_of_its_own_holds_for_one_action_of_one_official_account() {
    let settings = Settings { day_quota: Some(2), ..with_platforms() };
    let wechat = Wechat::start(settings).await;
    let (token, other) = (wechat.stable_token().await, second_token(&wechat).await);
    wechat.control(Method::PUT, QUOTA, r#"{"action": "add", "day": 3}"#).await;
    let mut adds = Vec::new();
    for name in ["a", "b", "c", "d"] {
        adds.push((wechat.add(&token, &format!("{name}@test")).await, wechat.add(&other, &format!("{name}@two")).await));
    }
    let expected = [(0, 0), (0, 0), (0, 45009), (45009, 45009)];
    assert_eq!(adds, expected.map(|(own, flag)| (json!(own), json!(flag))));
    assert_eq!(wechat.del(&token, "a@test").await, 0);
    assert_eq!(wechat.del(&token, "b@test").await, 0);
    assert_eq!(wechat.del(&token, "c@test").await, 45009);

    wechat.control(Method::PUT, QUOTA, r#"{"action": "del", "day": 9, "minute": 0}"#).await;
    assert_eq!(wechat.del(&token, "c@test").await, 45011);
    wechat.control(Method::PUT, QUOTA, r#"{"action": "del", "day": 9, "minute": null}"#).await;
    assert_eq!(wechat.del(&token, "c@test").await, 0);
    wechat.control(Method::PUT, QUOTA, r#"{"action": "del"}"#).await;
    assert_eq!(wechat.del(&token, "c@test").await, 45009);
    wechat.control(Method::PUT, QUOTA, r#"{"action": "getkflist", "day": 0}"#).await;
    assert_eq!(list(&wechat, &token).await, 45009);
}

#[tokio::test]
async fn a_wrong_change_of_an_official_account_is_refused_with_a_sentence() {
    let wechat = Wechat::start(with_platforms()).await;
    let wrong = [
        ("official-accounts/nobody/secret", "new", 404, "there is no Official Account nobody"),
        ("official-accounts/nobody/quota", r#"{"action": "add"}"#, 404, "there is no Official Account nobody"),
        (SECRET, "", 400, "the body must be the new AppSecret"),
        (SECRET, " \n", 400, "the body must be the new AppSecret"),
        (QUOTA, "", 400, "this is no quota of an action"),
        (QUOTA, r#"{"day": 3}"#, 400, "missing field `action`"),
        (QUOTA, r#"{"action": "token", "day": 3}"#, 400, "unknown variant `token`, expected one of `add`, `del`, `getkflist`"),
        (QUOTA, r#"{"action": "add", "daily": 3}"#, 400, "unknown field `daily`"),
        (QUOTA, r#"{"action": "add", "day": -3}"#, 400, "this is no quota of an action"),
    ];
    for (path, body, status, sentence) in wrong {
        let answer = wechat.send(Method::PUT, &format!("/control/{path}"), body).await.unwrap();
        assert_eq!(answer.status(), status, "{path} {body}");
        let said = answer.text().await.unwrap();
        assert!(said.contains(sentence), "{path} {body}: {said}");
    }
    assert_eq!(wechat.post(STABLE, credentials()).await.get("errcode"), None);
}

#[tokio::test]
async fn calls_are_counted_for_each_official_account() {
    let wechat = Wechat::start(with_platforms()).await;
    let (token, other) = (wechat.stable_token().await, second_token(&wechat).await);
    wechat.add(&token, "a@test").await;
    wechat.add(&other, "a@test").await;
    wechat.add("0_no", "a@test").await;
    wechat.post(STABLE, with_secret("wrong")).await;
    let calls = wechat.get("/control/calls").await;
    assert_eq!(calls["calls"], json!({"token": {"0": 2, "40125": 1}, "add": {"0": 1, "40001": 1, "65401": 1}}));
    assert_eq!(
        calls["official_accounts"],
        json!({
            "test": {"token": {"0": 1, "40125": 1}, "add": {"0": 1}},
            "two": {"token": {"0": 1}, "add": {"65401": 1}},
        })
    );
}
