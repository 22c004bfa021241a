//! Third-party platforms: programs that act for the Official Accounts that have authorised them. WeChat calls one a component.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::json;

use super::account::{Limits, Reply};
use super::errcode::{APPSECRET_INVALID, APPSECRET_MISSING, COMPONENT_TOKEN_EXPIRED, TOKEN_EXPIRED, TOKEN_INVALID};
use super::request::ComponentBody;
use super::tickets::Tickets;
use super::tokens::Tokens;

/// A third-party platform and what proves to be it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThirdPartyPlatform {
    /// Its AppID.
    pub app_id: String,
    /// Its AppSecret.
    pub app_secret: String,
}

/// An Official Account's leave for a third-party platform to act for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorisation {
    /// The WeChat ID of the Official Account.
    pub wechat_id: String,
    /// The AppID of the third-party platform.
    pub platform: String,
    /// The refresh token that the platform got when the Official Account gave its leave.
    pub refresh_token: String,
}

impl FromStr for ThirdPartyPlatform {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((app_id, app_secret)) if !app_id.is_empty() && !app_secret.is_empty() => {
                Ok(Self { app_id: app_id.to_owned(), app_secret: app_secret.to_owned() })
            }
            _ => Err("write it as APPID:SECRET"),
        }
    }
}

impl FromStr for Authorisation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':').filter(|part| !part.is_empty()).map(str::to_owned);
        let (Some(wechat_id), Some(platform), Some(refresh_token)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("write it as WECHAT_ID:PLATFORM_APPID:REFRESH_TOKEN");
        };
        Ok(Self { wechat_id, platform, refresh_token })
    }
}

/// One third-party platform with what it was handed out.
pub(super) struct ThirdParty {
    pub who: ThirdPartyPlatform,
    pub tokens: Tokens,
    pub tickets: Tickets,
}

/// A third-party platform as the control endpoint shows it.
#[derive(Serialize)]
pub(super) struct ThirdPartyView<'a> {
    pub ticket: &'a str,
    /// By WeChat ID.
    pub official_accounts: BTreeMap<&'a str, GrantView<'a>>,
}

/// What an Official Account has granted to a third-party platform, as the control endpoint shows it.
#[derive(Serialize)]
pub(super) struct GrantView<'a> {
    pub refresh_token: Option<&'a str>,
}

impl ThirdParty {
    /// A third-party platform that has its first ticket and no tokens.
    pub fn new(who: ThirdPartyPlatform, now: SystemTime) -> Self {
        Self { who, tokens: Tokens::default(), tickets: Tickets::new(now) }
    }

    /// A new component token: each call makes one. `index` is this platform's place, which its tokens carry.
    pub fn component_token(&mut self, index: usize, body: &ComponentBody, limits: Limits, now: SystemTime) -> Reply {
        if body.component_appsecret.is_empty() {
            return Err(APPSECRET_MISSING);
        }
        if body.component_appsecret != self.who.app_secret {
            return Err(APPSECRET_INVALID);
        }
        self.tickets.check(&body.component_verify_ticket, now)?;
        let token = self.tokens.renew(index, limits.token_lifetime, limits.token_overlap, now);
        Ok(json!({"component_access_token": token.text, "expires_in": token.expires_in}).to_string().into())
    }

    /// Whether a component token is good; the code for one that has expired is another than an Official Account's.
    pub fn check_token(&self, token: &str, now: SystemTime) -> Result<(), i32> {
        let checked = self.tokens.check(token, now).unwrap_or(Err(TOKEN_INVALID));
        checked.map_err(|errcode| if errcode == TOKEN_EXPIRED { COMPONENT_TOKEN_EXPIRED } else { errcode })
    }
}
