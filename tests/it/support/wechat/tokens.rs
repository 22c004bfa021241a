//! The tokens of the scripted WeChat: one Official Account's own, those of a third-party platform, and those of an organisation's token server.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::state::{State, error_body};

/// An Official Account as the scripted WeChat knows it.
#[derive(Debug, Clone)]
pub struct OfficialAccount {
    pub wechat_id: String,
    pub app_id: String,
    pub app_secret: String,
    /// How many tokens were made for it; only the last one is good.
    pub(super) tokens: usize,
    /// How often the platform's refresh token was replaced; only the last one is good.
    refreshes: usize,
}

impl OfficialAccount {
    pub(super) fn new(number: usize, wechat_id: &str) -> Self {
        Self {
            wechat_id: wechat_id.to_owned(),
            app_id: format!("wx{:016x}", 0x0123_4567_89ab_cde0 + number),
            app_secret: format!("SECRET{:026x}", rand::random::<u64>()),
            tokens: 1,
            refreshes: 0,
        }
    }

    /// The token that is good now.
    pub(super) fn token(&self) -> String {
        format!("TOKEN-{}-{}", self.app_id, self.tokens)
    }

    /// Ends what the platform had, and gives the refresh token that it has from now on.
    pub(super) fn authorise_again(&mut self) -> String {
        self.tokens += 1;
        self.refreshes += 1;
        self.refresh_tokens().pop().expect("there is always one")
    }

    /// The refresh tokens that the platform was ever given, oldest first: only the last one is good.
    pub fn refresh_tokens(&self) -> Vec<String> {
        (0..=self.refreshes).map(|number| format!("REFRESH-{}-{number}", self.app_id)).collect()
    }
}

/// The third-party platform that every Official Account has authorised.
#[derive(Debug, Clone)]
pub struct Platform {
    pub app_id: String,
    pub app_secret: String,
    /// The `component_verify_ticket` that WeChat pushed last.
    pub ticket: String,
    /// How many component tokens were made, and how many of them have ended.
    tokens: usize,
    ended: usize,
}

impl Platform {
    pub(super) fn new() -> Self {
        Self {
            app_id: "wxfedcba9876543210".to_owned(),
            app_secret: format!("SECRET{:026x}", rand::random::<u64>()),
            ticket: format!("ticket@@@{:016x}", rand::random::<u64>()),
            tokens: 0,
            ended: 0,
        }
    }

    /// Ends every component token there is.
    pub(super) fn end_tokens(&mut self) {
        self.ended = self.tokens;
    }

    fn token(number: usize) -> String {
        format!("COMPONENT-{number}")
    }

    fn errcode_of(&self, token: &str) -> i64 {
        match (1..=self.tokens).find(|number| Self::token(*number) == token) {
            None => 40001,
            Some(number) if number <= self.ended => 42006,
            Some(_) => 0,
        }
    }
}

impl State {
    /// `POST /cgi-bin/stable_token`: the same token again, unless another one is forced.
    pub(super) fn stable_token(&mut self, body: &Value) -> Value {
        let forced = body["force_refresh"] == true;
        self.own_token(&body["appid"], &body["secret"], forced)
    }

    /// `GET /cgi-bin/token`: another token with every call. The former one ends at once, which WeChat does after minutes.
    pub(super) fn legacy_token(&mut self, query: &HashMap<String, String>) -> Value {
        let query = |name: &str| Value::from(query.get(name).cloned());
        self.own_token(&query("appid"), &query("secret"), true)
    }

    fn own_token(&mut self, app_id: &Value, secret: &Value, another: bool) -> Value {
        let Some(official) = self.official.iter_mut().find(|official| *app_id == official.app_id) else { return error_body(40013) };
        if *secret != official.app_secret {
            return error_body(40125);
        }
        official.tokens += usize::from(another);
        json!({"access_token": official.token(), "expires_in": self.expires_in})
    }

    /// `POST /cgi-bin/component/api_component_token`: another token with every call. The others stay good until a test ends them.
    pub(super) fn component_token(&mut self, body: &Value) -> Value {
        let platform = &mut self.platform;
        if body["component_appid"] != platform.app_id {
            return error_body(40013);
        }
        if body["component_appsecret"] != platform.app_secret {
            return error_body(40125);
        }
        if body["component_verify_ticket"] != platform.ticket {
            return error_body(61006);
        }
        platform.tokens += 1;
        json!({"component_access_token": Platform::token(platform.tokens), "expires_in": self.expires_in})
    }

    /// `POST /cgi-bin/component/api_authorizer_token`: another token and another refresh token; the former ones end at once.
    pub(super) fn authorizer_token(&mut self, component_token: &str, body: &Value) -> Value {
        let refused = self.platform.errcode_of(component_token);
        if refused != 0 {
            return error_body(refused);
        }
        if body["component_appid"] != self.platform.app_id {
            return error_body(40013);
        }
        let app_id = &body["authorizer_appid"];
        let Some(official) = self.official.iter_mut().find(|official| *app_id == official.app_id) else { return error_body(61003) };
        let current = official.refresh_tokens().pop();
        if body["authorizer_refresh_token"].as_str() != current.as_deref() {
            return error_body(61023);
        }
        official.tokens += 1;
        official.refreshes += 1;
        let refresh_token = official.refresh_tokens().pop();
        json!({"authorizer_access_token": official.token(), "expires_in": self.expires_in, "authorizer_refresh_token": refresh_token})
    }

    /// `GET /token-server/<wechat_id>` of an organisation that keeps the tokens itself: the one that is good now.
    pub(super) fn token_server(&self, wechat_id: &str, api_key: Option<&String>) -> (u16, Value) {
        let official = self.official.iter().find(|official| official.wechat_id == wechat_id);
        match official {
            _ if api_key != Some(&self.api_key) => (401, json!({"error": "unauthorised"})),
            None => (404, json!({"error": "not found"})),
            Some(official) => (200, json!({"access_token": official.token(), "expires_in": self.expires_in})),
        }
    }
}
