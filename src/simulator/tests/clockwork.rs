//! WeChat at a time that only the test moves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::simulator::Settings;
use crate::simulator::platform::Platform;
use crate::simulator::request::{ComponentBody, Credentials, KfBody, Request};

/// 2026-01-01 12:00:00 at UTC+8, the start of a minute.
const NOON: u64 = 1_767_240_000;

/// A platform at a time that only the test moves.
pub struct Clockwork {
    pub platform: Platform,
    pub now: SystemTime,
}

impl Clockwork {
    /// At noon.
    pub fn new(settings: &Settings) -> Self {
        let now = UNIX_EPOCH + Duration::from_secs(NOON);
        Self { platform: Platform::new(settings, now), now }
    }

    /// Lets time go by.
    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// The answer of a call that is not refused.
    pub fn ask(&mut self, request: &Request) -> Result<Value, i32> {
        let body = self.platform.answer(request, self.now)?;
        Ok(serde_json::from_str(&body).unwrap())
    }

    /// The token and the seconds it is good for.
    fn token(&mut self, request: &Request) -> Result<(String, u64), i32> {
        let body = self.ask(request)?;
        let token = body["access_token"].as_str().unwrap().to_owned();
        Ok((token, body["expires_in"].as_u64().unwrap()))
    }

    /// The stable token.
    pub fn stable(&mut self) -> (String, u64) {
        self.token(&Request::StableToken(Ok(credentials(false)))).unwrap()
    }

    /// A stable token that is forced anew.
    pub fn force(&mut self) -> Result<(String, u64), i32> {
        self.token(&Request::StableToken(Ok(credentials(true))))
    }

    /// A new legacy token.
    pub fn legacy(&mut self) -> (String, u64) {
        self.token(&Request::LegacyToken(credentials(false))).unwrap()
    }

    /// The code that a list with this token is answered with.
    pub fn list(&mut self, token: &str) -> i32 {
        let token = Some(token.to_owned());
        self.code(&Request::Getkflist { token })
    }

    /// The code that an add is answered with.
    pub fn add(&mut self, token: &str, kf_account: &str) -> i32 {
        let body = serde_json::json!({"kf_account": kf_account, "nickname": "a"});
        let body: KfBody = serde_json::from_value(body).unwrap();
        self.code(&Request::Add { token: Some(token.to_owned()), body: Ok(body) })
    }

    /// The current ticket of the platform `wxp1`.
    pub fn ticket(&mut self) -> String {
        self.platform.third_parties(self.now)["wxp1"].ticket.to_owned()
    }

    /// The answer to `wxp1` asking for a component token with this ticket.
    pub fn show(&mut self, ticket: &str) -> Result<Value, i32> {
        self.ask(&Request::ComponentToken(Ok(ComponentBody {
            component_appid: "wxp1".to_owned(),
            component_appsecret: "ps1".to_owned(),
            component_verify_ticket: ticket.to_owned(),
        })))
    }

    /// The code of the answer.
    fn code(&mut self, request: &Request) -> i32 {
        self.platform.answer(request, self.now).err().unwrap_or(0)
    }
}

fn credentials(force_refresh: bool) -> Credentials {
    Credentials {
        grant_type: "client_credential".to_owned(),
        appid: "wx0123456789abcdef".to_owned(),
        secret: "secret".to_owned(),
        force_refresh,
    }
}
