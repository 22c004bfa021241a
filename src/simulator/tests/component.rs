//! Third-party platforms: their calls over real HTTP, and which of them a simulator is started with.

use reqwest::Method;
use serde_json::{Value, json};

use super::answers::refused;
use super::{LIST, Wechat, text, with_platforms};
use crate::simulator::{Authorisation, Settings, ThirdPartyPlatform};

const COMPONENT: &str = "/cgi-bin/component/api_component_token";
const AUTHORIZER: &str = "/cgi-bin/component/api_authorizer_token";
/// The AppID of the Official Account `test`.
const TEST: &str = "wx0123456789abcdef";

impl Wechat {
    /// The current ticket of a platform.
    pub async fn ticket(&self, platform: &str) -> String {
        text(&self.get("/control/platforms").await[platform]["ticket"])
    }

    pub async fn ask_component_token(&self, platform: &str, secret: &str, ticket: &str) -> Value {
        let body = json!({"component_appid": platform, "component_appsecret": secret, "component_verify_ticket": ticket});
        self.post(COMPONENT, body.to_string()).await
    }

    async fn component_token(&self, platform: &str, secret: &str) -> String {
        let ticket = self.ticket(platform).await;
        text(&self.ask_component_token(platform, secret, &ticket).await["component_access_token"])
    }

    async fn ask_authorizer_token(&self, component_token: &str, body: Value) -> Value {
        let path = format!("{AUTHORIZER}?component_access_token={component_token}");
        self.post(&path, body.to_string()).await
    }
}

fn authorizer_body(platform: &str, app_id: &str, refresh_token: &str) -> Value {
    json!({"component_appid": platform, "authorizer_appid": app_id, "authorizer_refresh_token": refresh_token})
}

#[tokio::test]
async fn a_platform_acts_for_an_official_account_that_has_authorised_it() {
    let wechat = Wechat::start(with_platforms()).await;
    let ticket = wechat.ticket("wxp1").await;
    let answer = wechat.ask_component_token("wxp1", "ps1", &ticket).await;
    assert_eq!(answer["expires_in"], 7200);
    assert_eq!(answer.get("errcode"), None);
    let component_token = text(&answer["component_access_token"]);

    let answer = wechat.ask_authorizer_token(&component_token, authorizer_body("wxp1", TEST, "first")).await;
    assert_eq!(answer["expires_in"], 7200);
    assert_eq!(answer.get("errcode"), None);
    let refresh_token = text(&answer["authorizer_refresh_token"]);
    assert_ne!(refresh_token, "first");
    let token = text(&answer["authorizer_access_token"]);
    assert_eq!(wechat.add(&token, "a@test").await, 0);
    let listed = wechat.get(&format!("{LIST}?access_token={token}")).await;
    assert_eq!(listed["kf_list"][0]["kf_account"], "a@test");
    assert_eq!(wechat.del(&token, "a@test").await, 0);

    let shown = wechat.get("/control/platforms").await;
    let second = wechat.ticket("wxp2").await;
    assert_ne!(second, ticket);
    assert_eq!(
        shown,
        json!({
            "wxp1": {"ticket": ticket, "official_accounts": {"test": {"refresh_token": refresh_token}}},
            "wxp2": {"ticket": second, "official_accounts": {}},
        })
    );
}

#[tokio::test]
async fn each_wrong_call_of_a_platform_gets_its_documented_code() {
    let wechat = Wechat::start(with_platforms()).await;
    let ticket = wechat.ticket("wxp1").await;
    let others = wechat.ticket("wxp2").await;
    let wrong = [
        ("", "ps1", &*ticket, 41002),
        ("wxp1", "", &ticket, 41004),
        ("wxp3", "ps1", &ticket, 40013),
        (TEST, "secret", &ticket, 40013),
        ("wxp1", "ps2", &ticket, 40125),
        ("wxp1", "ps1", "", 61006),
        ("wxp1", "ps1", "ticket@@@no", 61006),
        ("wxp1", "ps1", &others, 61006),
    ];
    for (platform, secret, ticket, errcode) in wrong {
        refused(&wechat.ask_component_token(platform, secret, ticket).await, errcode);
    }
    let token = wechat.component_token("wxp1", "ps1").await;
    let good = authorizer_body("wxp1", TEST, "first");
    refused(&wechat.post(AUTHORIZER, good.to_string()).await, 41001);
    let wrong = [
        ("0_no", good.clone(), 40001),
        ("9_no", good.clone(), 40001),
        (&*token, authorizer_body("", TEST, "first"), 41002),
        (&token, authorizer_body("wxp1", "", "first"), 41002),
        (&token, authorizer_body("wxp2", TEST, "first"), 40013),
        (&token, authorizer_body("wxp1", "wx2", "first"), 61003),
        (&token, authorizer_body("wxp1", "wx9", "first"), 61003),
        (&token, authorizer_body("wxp1", TEST, "no"), 61023),
        (&token, authorizer_body("wxp1", TEST, ""), 61023),
    ];
    for (token, body, errcode) in wrong {
        refused(&wechat.ask_authorizer_token(token, body).await, errcode);
    }
    for path in [COMPONENT, &format!("{AUTHORIZER}?component_access_token={token}")] {
        refused(&wechat.get(path).await, 43002);
        refused(&wechat.post(path, "").await, 44002);
        refused(&wechat.post(path, "[]").await, 47001);
        refused(&wechat.post(path, r#"{"component_appid": "\u0061"}"#).await, 40033);
    }
    let second = wechat.component_token("wxp2", "ps2").await;
    refused(&wechat.ask_authorizer_token(&second, authorizer_body("wxp2", TEST, "first")).await, 61003);
}

#[tokio::test]
async fn the_two_kinds_of_token_are_no_use_for_each_other() {
    let wechat = Wechat::start(with_platforms()).await;
    let component_token = wechat.component_token("wxp1", "ps1").await;
    assert_eq!(wechat.add(&component_token, "a@test").await, 40001);
    let body = authorizer_body("wxp1", TEST, "first");
    let answer = wechat.ask_authorizer_token(&component_token, body.clone()).await;
    let token = text(&answer["authorizer_access_token"]);
    refused(&wechat.ask_authorizer_token(&token, body).await, 40001);
}

#[tokio::test]
async fn faults_counts_and_the_end_of_all_tokens_know_platforms() {
    let wechat = Wechat::start(with_platforms()).await;
    let component_token = wechat.component_token("wxp1", "ps1").await;
    let body = authorizer_body("wxp1", TEST, "first");
    wechat.set_faults(json!([{"endpoint": "authorizer_token", "wechat_id": "test", "times": 1, "effect": {"errcode": 61004}}])).await;
    refused(&wechat.ask_authorizer_token(&component_token, body.clone()).await, 61004);
    let answer = wechat.ask_authorizer_token(&component_token, body.clone()).await;
    let (token, refresh_token) = (text(&answer["authorizer_access_token"]), text(&answer["authorizer_refresh_token"]));
    wechat.control(Method::POST, "tokens/expire", "").await;
    assert_eq!(wechat.add(&token, "a@test").await, 42001);
    refused(&wechat.ask_authorizer_token(&component_token, body).await, 42006);
    wechat.set_faults(json!([{"endpoint": "component_token", "times": 1, "effect": "reset"}])).await;
    let ticket = wechat.ticket("wxp1").await;
    assert!(wechat.send(Method::POST, COMPONENT, "{}").await.is_err());
    let answer = wechat.ask_component_token("wxp1", "ps1", &ticket).await;
    let renewed = text(&answer["component_access_token"]);
    let answer = wechat.ask_authorizer_token(&renewed, authorizer_body("wxp1", TEST, &refresh_token)).await;
    assert_eq!(answer.get("errcode"), None);

    let calls = wechat.get("/control/calls").await;
    let authorizer_token = json!({"0": 2, "61004": 1, "42006": 1});
    assert_eq!(
        calls["calls"],
        json!({
            "component_token": {"0": 2, "reset": 1},
            "authorizer_token": authorizer_token,
            "add": {"42001": 1},
        })
    );
    assert_eq!(calls["official_accounts"], json!({"test": {"authorizer_token": authorizer_token, "add": {"42001": 1}}}));
}

#[tokio::test]
async fn a_reset_brings_back_the_first_refresh_token() {
    let wechat = Wechat::start(with_platforms()).await;
    let body = authorizer_body("wxp1", TEST, "first");
    let component_token = wechat.component_token("wxp1", "ps1").await;
    let answer = wechat.ask_authorizer_token(&component_token, body.clone()).await;
    wechat.add(&text(&answer["authorizer_access_token"]), "a@test").await;
    refused(&wechat.ask_authorizer_token(&component_token, body.clone()).await, 61023);
    wechat.control(Method::POST, "reset", "").await;
    let component_token = wechat.component_token("wxp1", "ps1").await;
    let answer = wechat.ask_authorizer_token(&component_token, body).await;
    assert_eq!(answer.get("errcode"), None);
}

#[test]
fn platforms_and_authorisations_are_read_from_text() {
    let platform = ThirdPartyPlatform { app_id: "wxp".to_owned(), app_secret: "s:e:c".to_owned() };
    assert_eq!("wxp:s:e:c".parse(), Ok(platform));
    let authorisation =
        Authorisation { wechat_id: "test".to_owned(), platform: "wxp".to_owned(), refresh_token: "refreshtoken@@@a:b".to_owned() };
    assert_eq!("test:wxp:refreshtoken@@@a:b".parse(), Ok(authorisation));
    for wrong in ["", "wxp", "wxp:", ":s"] {
        assert!(wrong.parse::<ThirdPartyPlatform>().is_err(), "{wrong}");
    }
    for wrong in ["", "test", "test:wxp", "test:wxp:", "test::a:b", ":wxp:a"] {
        assert!(wrong.parse::<Authorisation>().is_err(), "{wrong}");
    }
}

#[test]
fn settings_that_contradict_themselves_are_refused_with_a_sentence() {
    let check = |change: fn(&mut Settings)| {
        let mut settings = with_platforms();
        change(&mut settings);
        settings.check().err().unwrap_or_default()
    };
    assert_eq!(check(|_| ()), "");
    assert_eq!(check(|it| it.official_accounts.push("test:wx9:s".parse().unwrap())), "test is given twice");
    assert_eq!(check(|it| it.official_accounts.push("nine:wx2:s".parse().unwrap())), "wx2 is given twice");
    assert_eq!(check(|it| it.platforms.push("wx2:s".parse().unwrap())), "wx2 is given twice");
    let authorise = |text: &str| {
        let mut settings = with_platforms();
        settings.authorisations.push(text.parse().unwrap());
        settings.check().err().unwrap_or_default()
    };
    assert_eq!(authorise("two:wxp1:first"), "");
    assert_eq!(authorise("nine:wxp1:a"), "nine authorises a platform and is no Official Account");
    assert_eq!(authorise("two:wxp9:a"), "two authorises wxp9, which is no platform");
    assert_eq!(authorise("test:wxp1:a"), "test authorises wxp1 twice");
}
