//! What the scripted WeChat knows and does: the accounts that exist, what tests have scripted, and the journal.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::tokens::{OfficialAccount, Platform};
use super::wire::Request;
use super::{Answer, Call, Endpoint, ROOM};

/// A customer-service account.
pub struct KfAccount {
    pub nickname: String,
    /// The Official Account that lists it.
    pub owner: String,
}

/// What a test wants to happen to the calls of one endpoint.
struct Script {
    endpoint: Endpoint,
    /// Any account where there is none.
    account: Option<String>,
    then: Then,
}

/// What happens to a scripted call.
pub enum Then {
    Once(Answer),
    Always(Answer),
    Hold { arrived: oneshot::Sender<String>, release: oneshot::Receiver<Answer> },
}

/// All that the scripted WeChat knows.
pub struct State {
    pub official: Vec<OfficialAccount>,
    pub platform: Platform,
    /// What the organisation's token server wants to see in `x-api-key`.
    pub api_key: String,
    /// How long every token is said to be good, in seconds.
    pub expires_in: u64,
    /// The accounts that exist, by their full names.
    pub accounts: BTreeMap<String, KfAccount>,
    scripts: Vec<Script>,
    pub calls: Vec<Call>,
    in_flight: HashMap<String, usize>,
    /// Accounts of which two calls were in flight at once.
    pub overlaps: Vec<String>,
    /// Requests that are none of WeChat's: method and path.
    pub strays: Vec<String>,
}

impl State {
    /// A WeChat that knows these Official Accounts, in which nothing has happened.
    pub fn new(wechat_ids: &[&str]) -> Self {
        Self {
            official: wechat_ids.iter().enumerate().map(|(number, wechat_id)| OfficialAccount::new(number, wechat_id)).collect(),
            platform: Platform::new(),
            api_key: format!("KEY{:016x}", rand::random::<u64>()),
            expires_in: 7200,
            accounts: BTreeMap::new(),
            scripts: Vec::new(),
            calls: Vec::new(),
            in_flight: HashMap::new(),
            overlaps: Vec::new(),
            strays: Vec::new(),
        }
    }

    /// Says what happens to calls of an endpoint, after what was said before.
    pub fn script(&mut self, endpoint: Endpoint, account: Option<&str>, then: Then) {
        self.scripts.push(Script { endpoint, account: account.map(str::to_owned), then });
    }

    /// From now on WeChat is itself.
    pub fn forget_scripts(&mut self) {
        self.scripts.clear();
    }

    /// Takes what was scripted for a call, where anything was.
    pub fn scripted(&mut self, endpoint: Endpoint, account: &str) -> Option<Then> {
        let fits = |script: &Script| script.endpoint == endpoint && script.account.as_deref().is_none_or(|only| only == account);
        let at = self.scripts.iter().position(fits)?;
        match &self.scripts[at].then {
            Then::Always(answer) => Some(Then::Always(answer.clone())),
            Then::Once(_) | Then::Hold { .. } => Some(self.scripts.remove(at).then),
        }
    }

    /// An Official Account that it knows.
    pub fn official_mut(&mut self, wechat_id: &str) -> &mut OfficialAccount {
        let official = self.official.iter_mut().find(|official| official.wechat_id == wechat_id);
        official.expect("a known Official Account")
    }

    /// Makes an account exist that this Official Account lists, whatever its suffix.
    pub fn put(&mut self, owner: &str, account: &str, nickname: &str) {
        let account = account.to_owned();
        self.accounts.insert(account, KfAccount { nickname: nickname.to_owned(), owner: owner.to_owned() });
    }

    /// The account that is asked about, the AppID at a token endpoint, else the WeChat ID.
    pub fn account(&self, endpoint: Endpoint, request: &Request) -> String {
        let body = |name: &str| request.body[name].as_str().map(str::to_owned);
        let account = match endpoint {
            Endpoint::Add | Endpoint::Delete => body("kf_account"),
            Endpoint::StableToken => body("appid"),
            Endpoint::Token => request.query.get("appid").cloned(),
            Endpoint::ComponentToken => body("component_appid"),
            Endpoint::AuthorizerToken => body("authorizer_appid"),
            Endpoint::TokenServer => request.path.rsplit('/').next().map(str::to_owned),
            Endpoint::List => self.caller(request).map(|official| official.wechat_id.clone()),
        };
        account.unwrap_or_default()
    }

    /// Writes a call into the journal and gives its number there.
    pub fn begin(&mut self, endpoint: Endpoint, request: &Request) -> usize {
        let account = self.account(endpoint, request);
        if matches!(endpoint, Endpoint::Add | Endpoint::Delete) {
            let others = self.in_flight.entry(account.clone()).or_default();
            *others += 1;
            if *others > 1 {
                self.overlaps.push(account.clone());
            }
        }
        let token = request.access_token().to_owned();
        let (body, headers) = (request.text.clone(), request.headers.clone());
        self.calls.push(Call { endpoint, account, token, headers, body, at: Timestamp::now(), ended: false });
        self.calls.len() - 1
    }

    /// Ends a call in the journal.
    pub fn end(&mut self, call: usize) {
        let call = &mut self.calls[call];
        call.ended = true;
        if let Some(others) = self.in_flight.get_mut(&call.account) {
            *others -= 1;
        }
    }

    /// Changes the accounts as WeChat would and gives its errcode.
    pub fn work(&mut self, endpoint: Endpoint, account: &str, nickname: &str) -> i64 {
        let (_, suffix) = account.split_once('@').unwrap_or_default();
        match endpoint {
            Endpoint::Add if self.accounts.contains_key(account) => 65406,
            Endpoint::Add if self.of_official_account(suffix).count() >= ROOM => 65405,
            Endpoint::Add => {
                self.put(suffix, account, nickname);
                0
            }
            Endpoint::Delete if self.accounts.remove(account).is_none() => 65401,
            _ => 0,
        }
    }

    /// HTTP status and body as WeChat itself would answer.
    pub fn usual(&mut self, endpoint: Endpoint, request: &Request) -> (u16, Value) {
        let body = match endpoint {
            Endpoint::StableToken => self.stable_token(&request.body),
            Endpoint::Token => self.legacy_token(&request.query),
            Endpoint::ComponentToken => self.component_token(&request.body),
            Endpoint::AuthorizerToken => {
                let component_token = request.query.get("component_access_token").cloned().unwrap_or_default();
                self.authorizer_token(&component_token, &request.body)
            }
            Endpoint::TokenServer => return self.token_server(&self.account(endpoint, request), request.headers.get("x-api-key")),
            Endpoint::Add | Endpoint::Delete | Endpoint::List => self.call(endpoint, request),
        };
        (200, body)
    }

    /// Ends the token of the Official Account that a call is about.
    pub fn end_token_of(&mut self, endpoint: Endpoint, request: &Request) {
        let account = self.account(endpoint, request);
        let (_, suffix) = account.split_once('@').unwrap_or(("", &account));
        self.official_mut(suffix).tokens += 1;
    }

    fn of_official_account<'a>(&'a self, wechat_id: &'a str) -> impl Iterator<Item = (&'a String, &'a KfAccount)> {
        self.accounts.iter().filter(move |(_, account)| account.owner == wechat_id)
    }

    /// Whose token a call carries, if it is good.
    fn caller(&self, request: &Request) -> Option<&OfficialAccount> {
        self.official.iter().find(|official| official.token() == request.access_token())
    }

    fn call(&mut self, endpoint: Endpoint, request: &Request) -> Value {
        let Some(wechat_id) = self.caller(request).map(|official| official.wechat_id.clone()) else { return error_body(40001) };
        if endpoint == Endpoint::List {
            let list = self.of_official_account(&wechat_id);
            let list = list.map(|(name, account)| json!({"kf_account": name, "kf_nick": account.nickname, "kf_id": "1001"}));
            return json!({"kf_list": list.collect::<Vec<_>>()});
        }
        let account = self.account(endpoint, request);
        if !account.ends_with(&format!("@{wechat_id}")) {
            return error_body(65401);
        }
        let nickname = request.body["nickname"].as_str().unwrap_or_default();
        error_body(self.work(endpoint, &account, nickname))
    }
}

/// WeChat's answer with an errcode.
pub fn error_body(errcode: i64) -> Value {
    json!({"errcode": errcode, "errmsg": errmsg(errcode)})
}

/// The words that go with an errcode, the id of the request among them as WeChat does it.
pub fn errmsg(errcode: i64) -> &'static str {
    if errcode == 0 { "ok" } else { "scripted rid: 61725984-6126f6f9-040f19c4" }
}
