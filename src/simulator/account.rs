//! One Official Account as WeChat keeps it: its kf accounts, tokens and quotas, and the rules for each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::json;

use super::errcode::{
    KF_ACCOUNT_EXISTS, KF_ACCOUNT_ILLEGAL, KF_ACCOUNT_INVALID, KF_ACCOUNT_LIMIT, MINUTE_QUOTA, NICKNAME_ILLEGAL, OK_BODY,
};
use super::grant::Grant;
use super::official_account::{OfficialAccount, is_wechat_id};
use super::quota::{Action, Quota};
use super::request::KfBody;
use super::tokens::{Handout, Tokens};

/// How many kf accounts one Official Account holds.
const KF_ACCOUNTS: usize = 100;
/// The number of an Official Account's first kf account.
const FIRST_KF_ID: u64 = 1001;
/// How often a stable token may be forced anew in a day, and how far apart.
const FORCED_A_DAY: u32 = 20;
const FORCED_APART: Duration = Duration::from_secs(30);

/// The JSON body of an answer, or the code it is refused with.
pub(super) type Reply = Result<Cow<'static, str>, i32>;

/// The numbers that hold for every Official Account.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub token_lifetime: Duration,
    pub token_overlap: Duration,
    pub minute_quota: u32,
    pub day_quota: u32,
}

/// One Official Account with what it has.
pub(super) struct Account {
    pub who: OfficialAccount,
    kf_accounts: BTreeMap<String, KfAccount>,
    next_kf_id: u64,
    stable: Tokens,
    legacy: Tokens,
    /// Those who may act for it.
    pub grants: Vec<Grant>,
    forced: Quota,
    last_forced: Option<SystemTime>,
    adds: Quota,
    dels: Quota,
    lists: Quota,
}

struct KfAccount {
    nickname: String,
    kf_id: u64,
}

/// A kf account as the control endpoint shows it.
#[derive(Serialize)]
pub(super) struct KfAccountView<'a> {
    kf_account: &'a str,
    nickname: &'a str,
    kf_id: u64,
}

impl Account {
    /// An Official Account that has nothing yet.
    pub fn new(who: OfficialAccount) -> Self {
        Self {
            who,
            kf_accounts: BTreeMap::new(),
            next_kf_id: FIRST_KF_ID,
            stable: Tokens::default(),
            legacy: Tokens::default(),
            grants: Vec::new(),
            forced: Quota::default(),
            last_forced: None,
            adds: Quota::default(),
            dels: Quota::default(),
            lists: Quota::default(),
        }
    }

    /// Whether a token of this Official Account is good; `None` for one that it never had or has forgotten.
    pub fn knows(&self, token: &str, now: SystemTime) -> Option<Result<(), i32>> {
        let grants = self.grants.iter().map(|grant| &grant.tokens);
        [&self.stable, &self.legacy].into_iter().chain(grants).find_map(|tokens| tokens.check(token, now))
    }

    /// Ends every access token at once.
    pub fn expire_tokens(&mut self, now: SystemTime) {
        self.tokens().for_each(|tokens| tokens.expire(now));
    }

    /// Replaces the AppSecret, which makes every access token invalid.
    pub fn change_secret(&mut self, app_secret: String, now: SystemTime) {
        self.who.app_secret = app_secret;
        self.tokens().for_each(|tokens| tokens.revoke(now));
    }

    fn tokens(&mut self) -> impl Iterator<Item = &mut Tokens> {
        let grants = self.grants.iter_mut().map(|grant| &mut grant.tokens);
        [&mut self.stable, &mut self.legacy].into_iter().chain(grants)
    }

    /// What is left of the calls of one action.
    pub fn quota(&mut self, action: Action) -> &mut Quota {
        match action {
            Action::Add => &mut self.adds,
            Action::Del => &mut self.dels,
            Action::Getkflist => &mut self.lists,
        }
    }

    /// Adds a kf account, if its names are legal and there is room.
    pub fn add(&mut self, body: &KfBody) -> Reply {
        let suffix = legal_suffix(&body.kf_account).ok_or(KF_ACCOUNT_ILLEGAL)?;
        if suffix != self.who.wechat_id {
            return Err(KF_ACCOUNT_INVALID);
        }
        if !is_nickname(&body.nickname) {
            return Err(NICKNAME_ILLEGAL);
        }
        // A repeat of the hundredth is told that it exists, not that there is no room for it.
        if self.kf_accounts.contains_key(&body.kf_account) {
            return Err(KF_ACCOUNT_EXISTS);
        }
        if self.kf_accounts.len() >= KF_ACCOUNTS {
            return Err(KF_ACCOUNT_LIMIT);
        }
        let kf_account = KfAccount { nickname: body.nickname.clone(), kf_id: self.next_kf_id };
        self.next_kf_id += 1;
        self.kf_accounts.insert(body.kf_account.clone(), kf_account);
        Ok(Cow::Borrowed(OK_BODY))
    }

    /// Deletes a kf account. Whatever is not there, also what could never be, is an invalid account.
    pub fn del(&mut self, body: &KfBody) -> Reply {
        match self.kf_accounts.remove(&body.kf_account) {
            Some(_) => Ok(Cow::Borrowed(OK_BODY)),
            None => Err(KF_ACCOUNT_INVALID),
        }
    }

    /// The kf accounts as `getkflist` shows them.
    pub fn list(&self) -> Cow<'static, str> {
        let kf_list: Vec<_> = self
            .view()
            .iter()
            .zip(0..)
            .map(|(kf, place)| {
                // WeChat shows the number as text and as a number, so every other one is a number here.
                let kf_id = if place % 2 == 0 { json!(kf.kf_id.to_string()) } else { json!(kf.kf_id) };
                json!({
                    "kf_account": kf.kf_account,
                    "kf_nick": kf.nickname,
                    "kf_id": kf_id,
                    "kf_headimgurl": "http://mmbiz.qpic.cn/mmbiz/simulated/300?wx_fmt=png",
                })
            })
            .collect();
        json!({ "kf_list": kf_list }).to_string().into()
    }

    /// The kf accounts in the order in which they were added.
    pub fn view(&self) -> Vec<KfAccountView<'_>> {
        let mut view: Vec<_> = self
            .kf_accounts
            .iter()
            .map(|(kf_account, KfAccount { nickname, kf_id })| KfAccountView { kf_account, nickname, kf_id: *kf_id })
            .collect();
        view.sort_unstable_by_key(|kf| kf.kf_id);
        view
    }

    /// The current stable token, or a new one where it is asked for or due. `index` is this account's place, which its tokens carry.
    pub fn stable_token(&mut self, index: usize, force: bool, limits: Limits, now: SystemTime) -> Reply {
        let lifetime = limits.token_lifetime;
        if force {
            self.may_force(now)?;
            // A forced token ends the former at once.
            let renewed = self.stable.renew(index, lifetime, Duration::ZERO, now);
            return Ok(token_body(&renewed));
        }
        let handout = self.stable.current(lifetime, now).unwrap_or_else(|| self.stable.renew(index, lifetime, limits.token_overlap, now));
        Ok(token_body(&handout))
    }

    /// A new legacy token: each call makes one.
    pub fn legacy_token(&mut self, index: usize, limits: Limits, now: SystemTime) -> Cow<'static, str> {
        let renewed = self.legacy.renew(index, limits.token_lifetime, limits.token_overlap, now);
        token_body(&renewed)
    }

    fn may_force(&mut self, now: SystemTime) -> Result<(), i32> {
        if self.last_forced.is_some_and(|last| now < last + FORCED_APART) {
            return Err(MINUTE_QUOTA);
        }
        self.forced.spend(u32::MAX, FORCED_A_DAY, now)?;
        self.last_forced = Some(now);
        Ok(())
    }
}

fn token_body(token: &Handout) -> Cow<'static, str> {
    json!({"access_token": token.text, "expires_in": token.expires_in}).to_string().into()
}

/// The part after `@` of a kf account that is well formed.
fn legal_suffix(kf_account: &str) -> Option<&str> {
    let (prefix, suffix) = kf_account.split_once('@')?;
    let legal_prefix = (1..=10).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (legal_prefix && is_wechat_id(suffix)).then_some(suffix)
}

fn is_nickname(text: &str) -> bool {
    // More than 64 bytes are more than 16 characters, so a huge one is not counted through.
    text.len() <= 64
        && (1..=16).contains(&text.chars().count())
        && !text.chars().any(char::is_control)
        && !text.chars().all(char::is_whitespace)
}
