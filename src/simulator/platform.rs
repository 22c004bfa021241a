//! All Official Accounts as WeChat keeps them, and its answer to each call.
//!
//! Nothing here waits or looks at a clock: the time comes with the call.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Settings;
use super::account::{Account, KfAccountView, Limits, Reply};
use super::errcode::{
    APPID_INVALID, APPID_MISSING, APPSECRET_INVALID, APPSECRET_MISSING, GRANT_TYPE_INVALID, TOKEN_INVALID, TOKEN_MISSING,
};
use super::request::{Credentials, Request};
use super::tokens;

/// All of WeChat that a call can reach.
pub(super) struct Platform {
    accounts: Vec<Account>,
    limits: Limits,
}

impl Platform {
    /// The Official Accounts of the settings, with nothing in them.
    pub fn new(settings: &Settings) -> Self {
        let accounts = settings.official_accounts.iter().cloned();
        Self {
            accounts: accounts.map(Account::new).collect(),
            limits: Limits {
                token_lifetime: settings.token_lifetime,
                token_overlap: settings.token_overlap,
                minute_quota: settings.minute_quota.unwrap_or(u32::MAX),
                day_quota: settings.day_quota.unwrap_or(u32::MAX),
            },
        }
    }

    /// Does what the call asks for, if it may, and says so.
    pub fn answer(&mut self, request: &Request, now: SystemTime) -> Reply {
        let limits = self.limits;
        match request {
            Request::WrongMethod { errcode, .. } => Err(*errcode),
            Request::Add { token, body } => {
                let account = self.authorised(token.as_deref(), now)?;
                account.adds.spend(limits.minute_quota, limits.day_quota, now)?;
                account.add(body.as_ref().map_err(|errcode| *errcode)?)
            }
            Request::Del { token, body } => {
                let account = self.authorised(token.as_deref(), now)?;
                account.dels.spend(limits.minute_quota, limits.day_quota, now)?;
                account.del(body.as_ref().map_err(|errcode| *errcode)?)
            }
            Request::Getkflist { token } => {
                let account = self.authorised(token.as_deref(), now)?;
                account.lists.spend(limits.minute_quota, limits.day_quota, now)?;
                Ok(account.list())
            }
            Request::StableToken(credentials) => {
                let credentials = credentials.as_ref().map_err(|errcode| *errcode)?;
                let (index, account) = self.identified(credentials, APPSECRET_INVALID)?;
                account.stable_token(index, credentials.force_refresh, limits, now)
            }
            Request::LegacyToken(credentials) => {
                let (index, account) = self.identified(credentials, TOKEN_INVALID)?;
                Ok(account.legacy_token(index, limits, now))
            }
        }
    }

    /// The WeChat ID of the Official Account that a call is made for, as far as its token or AppID tells.
    pub fn wechat_id(&self, request: &Request, now: SystemTime) -> Option<&str> {
        let account = match request {
            Request::Add { token, .. } | Request::Del { token, .. } | Request::Getkflist { token } => {
                let token = token.as_deref()?;
                let account = self.accounts.get(tokens::owner(token)?)?;
                // A token that has run out still tells whose it was.
                account.knows(token, now).map(|_| account)?
            }
            Request::StableToken(Ok(credentials)) | Request::LegacyToken(credentials) => {
                self.accounts.iter().find(|account| account.who.app_id == credentials.appid)?
            }
            Request::StableToken(Err(_)) | Request::WrongMethod { .. } => return None,
        };
        Some(&account.who.wechat_id)
    }

    /// Every kf account by the WeChat ID of its Official Account.
    pub fn kf_accounts(&self) -> BTreeMap<&str, Vec<KfAccountView<'_>>> {
        self.accounts.iter().map(|account| (account.who.wechat_id.as_str(), account.view())).collect()
    }

    /// Ends every token at once.
    pub fn expire_tokens(&mut self, now: SystemTime) {
        for account in &mut self.accounts {
            account.stable.expire(now);
            account.legacy.expire(now);
        }
    }

    /// The Official Account that a token is good for.
    fn authorised(&mut self, token: Option<&str>, now: SystemTime) -> Result<&mut Account, i32> {
        let token = token.ok_or(TOKEN_MISSING)?;
        let account = tokens::owner(token).and_then(|owner| self.accounts.get_mut(owner)).ok_or(TOKEN_INVALID)?;
        account.knows(token, now).unwrap_or(Err(TOKEN_INVALID))?;
        Ok(account)
    }

    /// The Official Account that a token call's credentials prove, and its index.
    fn identified(&mut self, credentials: &Credentials, wrong_secret: i32) -> Result<(usize, &mut Account), i32> {
        if credentials.grant_type != "client_credential" {
            return Err(GRANT_TYPE_INVALID);
        }
        if credentials.appid.is_empty() {
            return Err(APPID_MISSING);
        }
        if credentials.secret.is_empty() {
            return Err(APPSECRET_MISSING);
        }
        let (index, account) =
            self.accounts.iter_mut().enumerate().find(|(_, account)| account.who.app_id == credentials.appid).ok_or(APPID_INVALID)?;
        if account.who.app_secret != credentials.secret {
            return Err(wrong_secret);
        }
        Ok((index, account))
    }
}
