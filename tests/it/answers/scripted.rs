//! The scripted WeChat itself: its tokens come and end as WeChat's do, so that what is built on it learns nothing wrong.

use serde_json::{Value, json};

use crate::support::wechat::{Answer, Endpoint, WeChat};

/// Somebody who asks WeChat by HTTP.
struct Caller<'a> {
    wechat: &'a WeChat,
    client: reqwest::Client,
}

impl<'a> Caller<'a> {
    fn of(wechat: &'a WeChat) -> Self {
        // The first one to install a provider of cryptography wins, and every one is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { wechat, client: reqwest::Client::new() }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(self.wechat.base_url() + path).body(body.to_string());
        answer(request).await.1
    }

    async fn component_token(&self, ticket: &str) -> Value {
        let platform = self.wechat.platform();
        let body =
            json!({"component_appid": platform.app_id, "component_appsecret": platform.app_secret, "component_verify_ticket": ticket});
        self.post("/cgi-bin/component/api_component_token", body).await
    }

    /// What the platform is answered that asks for a token of the first Official Account.
    async fn authorizer_token(&self, component_token: &str, refresh_token: &str) -> Value {
        let path = format!("/cgi-bin/component/api_authorizer_token?component_access_token={component_token}");
        let (platform, app_id) = (self.wechat.platform().app_id, &self.wechat.official_accounts()[0].app_id);
        let body = json!({"component_appid": platform, "authorizer_appid": app_id, "authorizer_refresh_token": refresh_token});
        self.post(&path, body).await
    }

    async fn stable_token(&self, force: bool) -> Value {
        let official = &self.wechat.official_accounts()[0];
        let (app_id, secret) = (&official.app_id, &official.app_secret);
        let body = json!({"grant_type": "client_credential", "appid": app_id, "secret": secret, "force_refresh": force});
        self.post("/cgi-bin/stable_token", body).await
    }

    async fn token_server(&self, wechat_id: &str, api_key: &str) -> (u16, Value) {
        answer(self.client.get(self.wechat.token_server_url(wechat_id)).header("X-Api-Key", api_key)).await
    }

    async fn list(&self, token: &Value) -> Value {
        let token = token.as_str().expect("a token");
        let url = format!("{}/cgi-bin/customservice/getkflist?access_token={token}", self.wechat.base_url());
        answer(self.client.get(url)).await.1
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("the scripted WeChat answers");
    let status = response.status().as_u16();
    let bytes = response.bytes().await.expect("the answer can be read");
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platforms_refresh_token_changes_with_every_use() {
    let wechat = WeChat::start(&["test"]).await;
    let caller = Caller::of(&wechat);
    assert_eq!(caller.component_token("another ticket").await["errcode"], 61006);
    wechat.set_ticket("another ticket");
    let component = caller.component_token("another ticket").await;
    let component = component["component_access_token"].as_str().expect("a token");

    let refresh_tokens = || wechat.official_accounts()[0].refresh_tokens();
    let first = refresh_tokens().pop().expect("one from the start");
    assert_eq!(caller.authorizer_token("unknown", &first).await["errcode"], 40001);
    let given = caller.authorizer_token(component, &first).await;
    let second = given["authorizer_refresh_token"].as_str().expect("another one");
    assert_eq!(refresh_tokens(), [&first, second]);
    assert_eq!(caller.authorizer_token(component, &first).await["errcode"], 61023);
    assert!(caller.list(&given["authorizer_access_token"]).await["kf_list"].is_array(), "the token is good");

    wechat.end_component_tokens();
    assert_eq!(caller.authorizer_token(component, second).await["errcode"], 42006);
    wechat.next(Endpoint::ComponentToken, None, Answer::Errcode(-1));
    assert_eq!(caller.component_token("another ticket").await["errcode"], -1);
    wechat.next(Endpoint::AuthorizerToken, None, Answer::Errcode(-1));
    assert_eq!(caller.authorizer_token(component, second).await["errcode"], -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_stable_token_ends_the_one_before_and_the_token_server_follows() {
    let wechat = WeChat::start(&["test"]).await;
    let caller = Caller::of(&wechat);
    wechat.set_expires_in(300);
    let first = caller.stable_token(false).await;
    assert_eq!(first["expires_in"], 300);
    assert_eq!(caller.stable_token(false).await, first, "the same again");
    let forced = caller.stable_token(true).await;
    assert_ne!(forced["access_token"], first["access_token"]);
    assert_eq!(caller.list(&first["access_token"]).await["errcode"], 40001);

    assert_eq!(caller.token_server("test", &wechat.api_key()).await, (200, forced));
    assert_eq!(caller.token_server("test", "a wrong key").await.0, 401);
    assert_eq!(caller.token_server("other", &wechat.api_key()).await.0, 404);
    let calls = wechat.calls(Endpoint::TokenServer);
    assert_eq!((calls[1].account.as_str(), calls[1].headers["x-api-key"].as_str()), ("test", "a wrong key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_the_test_has_put_there() {
    let wechat = WeChat::start(&["test"]).await;
    let caller = Caller::of(&wechat);
    wechat.put_for("test", "anna@swapped");
    wechat.rename("anna@swapped", "安娜");
    let token = caller.stable_token(false).await;
    let list = caller.list(&token["access_token"]).await;
    assert_eq!(list["kf_list"].as_array().map(Vec::len), Some(1));
    assert_eq!((&list["kf_list"][0]["kf_account"], &list["kf_list"][0]["kf_nick"]), (&json!("anna@swapped"), &json!("安娜")));
    assert_eq!(wechat.calls(Endpoint::List)[0].account, "test");
}
