//! All Official Accounts and third-party platforms as WeChat keeps them, and its answer to each call.
//!
//! Nothing here waits or looks at a clock: the time comes with the call.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Settings;
use super::account::{Account, KfAccountView, Limits, Reply};
use super::errcode::{
    APPID_INVALID, APPID_MISSING, APPSECRET_INVALID, APPSECRET_MISSING, GRANT_TYPE_INVALID, NOT_AUTHORISED, TOKEN_INVALID, TOKEN_MISSING,
};
use super::grant::Grant;
use super::quota::Action;
use super::request::{AuthorizerBody, ComponentBody, Credentials, Request};
use super::third_party::{GrantView, ThirdParty, ThirdPartyView};
use super::tokens;

/// All of WeChat that a call can reach.
pub(super) struct Platform {
    accounts: Vec<Account>,
    third_parties: Vec<ThirdParty>,
    limits: Limits,
}

impl Platform {
    /// The Official Accounts of the settings, with nothing in them but what they have authorised, and the third-party
    /// platforms, each with its first ticket.
    pub fn new(settings: &Settings, now: SystemTime) -> Self {
        let mut accounts: Vec<_> = settings.official_accounts.iter().cloned().map(Account::new).collect();
        for authorisation in &settings.authorisations {
            for account in accounts.iter_mut().filter(|account| account.who.wechat_id == authorisation.wechat_id) {
                account.grants.push(Grant::new(&authorisation.platform, &authorisation.refresh_token));
            }
        }
        Self {
            accounts,
            third_parties: settings.platforms.iter().map(|who| ThirdParty::new(who.clone(), now)).collect(),
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
                account.quota(Action::Add).spend(limits.minute_quota, limits.day_quota, now)?;
                account.add(body.as_ref().map_err(|errcode| *errcode)?)
            }
            Request::Del { token, body } => {
                let account = self.authorised(token.as_deref(), now)?;
                account.quota(Action::Del).spend(limits.minute_quota, limits.day_quota, now)?;
                account.del(body.as_ref().map_err(|errcode| *errcode)?)
            }
            Request::Getkflist { token } => {
                let account = self.authorised(token.as_deref(), now)?;
                account.quota(Action::Getkflist).spend(limits.minute_quota, limits.day_quota, now)?;
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
            Request::ComponentToken(body) => {
                let body = body.as_ref().map_err(|errcode| *errcode)?;
                let (index, third_party) = self.third_party(body)?;
                third_party.component_token(index, body, limits, now)
            }
            Request::AuthorizerToken { component_token, body } => {
                let platform = self.acting_for_others(component_token.as_deref(), now)?.who.app_id.clone();
                let body = body.as_ref().map_err(|errcode| *errcode)?;
                self.authorizer_token(&platform, body, now)
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
            Request::StableToken(Ok(credentials)) | Request::LegacyToken(credentials) => self.with_app_id(&credentials.appid)?,
            Request::AuthorizerToken { body: Ok(body), .. } => self.with_app_id(&body.authorizer_appid)?,
            Request::StableToken(Err(_))
            | Request::ComponentToken(_)
            | Request::AuthorizerToken { body: Err(_), .. }
            | Request::WrongMethod { .. } => return None,
        };
        Some(&account.who.wechat_id)
    }

    /// Every kf account by the WeChat ID of its Official Account.
    pub fn kf_accounts(&self) -> BTreeMap<&str, Vec<KfAccountView<'_>>> {
        self.accounts.iter().map(|account| (account.who.wechat_id.as_str(), account.view())).collect()
    }

    /// Every third-party platform by its AppID.
    pub fn third_parties(&mut self, now: SystemTime) -> BTreeMap<&str, ThirdPartyView<'_>> {
        let mut view = BTreeMap::new();
        for third_party in &mut self.third_parties {
            let ticket = third_party.tickets.current(now);
            view.insert(third_party.who.app_id.as_str(), ThirdPartyView { ticket, official_accounts: BTreeMap::new() });
        }
        for account in &self.accounts {
            for grant in &account.grants {
                if let Some(third_party) = view.get_mut(grant.platform.as_str()) {
                    third_party.official_accounts.insert(&account.who.wechat_id, GrantView { refresh_token: grant.refresh_token() });
                }
            }
        }
        view
    }

    /// The third-party platforms, for what is done to their tickets.
    pub fn third_parties_mut(&mut self) -> &mut [ThirdParty] {
        &mut self.third_parties
    }

    /// The Official Account with a WeChat ID.
    pub fn official_account(&mut self, wechat_id: &str) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|account| account.who.wechat_id == wechat_id)
    }

    /// Ends every access token and component token at once.
    pub fn expire_tokens(&mut self, now: SystemTime) {
        for account in &mut self.accounts {
            account.expire_tokens(now);
        }
        for third_party in &mut self.third_parties {
            third_party.tokens.expire(now);
        }
    }

    fn with_app_id(&self, app_id: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.who.app_id == app_id)
    }

    /// The Official Account that a token is good for.
    fn authorised(&mut self, token: Option<&str>, now: SystemTime) -> Result<&mut Account, i32> {
        let token = token.ok_or(TOKEN_MISSING)?;
        let account = tokens::owner(token).and_then(|owner| self.accounts.get_mut(owner)).ok_or(TOKEN_INVALID)?;
        account.knows(token, now).unwrap_or(Err(TOKEN_INVALID))?;
        account.grants.iter_mut().for_each(|grant| grant.used(token));
        Ok(account)
    }

    /// The third-party platform that a component token is good for.
    fn acting_for_others(&self, component_token: Option<&str>, now: SystemTime) -> Result<&ThirdParty, i32> {
        let token = component_token.ok_or(TOKEN_MISSING)?;
        let third_party = tokens::owner(token).and_then(|owner| self.third_parties.get(owner)).ok_or(TOKEN_INVALID)?;
        third_party.check_token(token, now)?;
        Ok(third_party)
    }

    /// A token for the Official Account that has authorised this platform.
    fn authorizer_token(&mut self, platform: &str, body: &AuthorizerBody, now: SystemTime) -> Reply {
        if body.component_appid.is_empty() || body.authorizer_appid.is_empty() {
            return Err(APPID_MISSING);
        }
        if body.component_appid != platform {
            return Err(APPID_INVALID);
        }
        let mut accounts = self.accounts.iter_mut().enumerate();
        let (index, account) = accounts.find(|(_, account)| account.who.app_id == body.authorizer_appid).ok_or(NOT_AUTHORISED)?;
        let grant = account.grants.iter_mut().find(|grant| grant.platform == platform).ok_or(NOT_AUTHORISED)?;
        grant.refresh(index, &body.authorizer_refresh_token, self.limits, now)
    }

    /// The third-party platform that asks for a component token, and its index.
    fn third_party(&mut self, body: &ComponentBody) -> Result<(usize, &mut ThirdParty), i32> {
        if body.component_appid.is_empty() {
            return Err(APPID_MISSING);
        }
        let mut third_parties = self.third_parties.iter_mut().enumerate();
        third_parties.find(|(_, third_party)| third_party.who.app_id == body.component_appid).ok_or(APPID_INVALID)
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
