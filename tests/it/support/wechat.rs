//! A scripted WeChat: answers as WeChat does unless a test says otherwise, holds calls at a barrier, and keeps a journal.

mod door;
mod held;
mod state;
mod tokens;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DEADLINE;
use state::{State, Then};
use tokens::{OfficialAccount, Platform};

pub use door::Door;
pub use held::Held;
pub use state::errmsg;

/// How many accounts one Official Account holds at most.
pub const ROOM: usize = 100;

/// The calls that the scripted WeChat knows, and that of an organisation's own token server, which stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    StableToken,
    Token,
    ComponentToken,
    AuthorizerToken,
    TokenServer,
    Add,
    Delete,
    List,
}

/// What a call is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What WeChat itself would do and say.
    Usual,
    /// This errcode, and nothing is done.
    Errcode(i64),
    /// This errcode, and the Official Account's token is ended: nothing else is done.
    EndToken(i64),
    /// This HTTP status without a body, and nothing is done.
    Http(u16),
    /// HTTP 200 with these bytes, and nothing is done.
    Body(String),
    /// These bytes in place of an answer, and then the end of the connection; nothing is done.
    Wire(Vec<Piece>),
    /// The work is done and the connection closed without a word.
    Lose,
    /// The work is done, and no answer comes for as long as the caller waits.
    Silence,
}

/// A piece of what comes in place of an answer.
#[derive(Debug, Clone)]
pub enum Piece {
    Once(Vec<u8>),
    /// Again and again, for as long as the caller reads.
    Endless(Vec<u8>),
    /// A byte now and then, for as long as the caller waits.
    Drip,
}

/// One line of the journal.
#[derive(Debug, Clone)]
pub struct Call {
    pub endpoint: Endpoint,
    /// The account; at a token endpoint the AppID; at the list and the token server the WeChat ID.
    pub account: String,
    pub token: String,
    /// The request's headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The request's body as it was sent.
    pub body: String,
    pub at: Timestamp,
    /// It was answered, or the caller hung up.
    pub ended: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Told of every change of the journal.
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the state")
    }
}

/// The server; it ends with this value.
pub struct WeChat {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl WeChat {
    /// Starts a WeChat that knows these Official Accounts.
    pub async fn start(wechat_ids: &[&str]) -> Self {
        let shared = Arc::new(Shared { state: Mutex::new(State::new(wechat_ids)), changed: watch::Sender::new(()) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(wire::serve(listener, shared.clone()));
        Self { shared, address, server }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens another address at which the same WeChat answers.
    pub async fn open_door(&self) -> Door {
        Door::open(self.shared.clone()).await
    }

    pub fn official_accounts(&self) -> Vec<OfficialAccount> {
        self.shared.state().official.clone()
    }

    /// One of them.
    pub fn official_account(&self, wechat_id: &str) -> OfficialAccount {
        self.shared.state().official_mut(wechat_id).clone()
    }

    /// Answers the next call of an endpoint (and account, where given) this way.
    pub fn next(&self, endpoint: Endpoint, account: Option<&str>, answer: Answer) {
        self.script(endpoint, account, Then::Once(answer));
    }

    /// Answers every further call of an endpoint (and account, where given) this way, after what was scripted before.
    pub fn always(&self, endpoint: Endpoint, account: Option<&str>, answer: Answer) {
        self.script(endpoint, account, Then::Always(answer));
    }

    /// Forgets every script: from now on WeChat is itself.
    pub fn recover(&self) {
        self.shared.state().forget_scripts();
    }

    /// Holds the next call of an endpoint and account at a barrier.
    pub fn hold(&self, endpoint: Endpoint, account: &str) -> Held {
        let (arrived, told) = oneshot::channel();
        let (go, release) = oneshot::channel();
        self.script(endpoint, Some(account), Then::Hold { arrived, release });
        Held::new(self.shared.clone(), endpoint, account, told, go)
    }

    /// Makes another token and ends the one before.
    pub fn end_token(&self, wechat_id: &str) {
        self.shared.state().official_mut(wechat_id).tokens += 1;
    }

    /// How long every token is said to be good from now on.
    pub fn set_expires_in(&self, seconds: u64) {
        self.shared.state().expires_in = seconds;
    }

    /// The third-party platform that acts for the Official Accounts.
    pub fn platform(&self) -> Platform {
        self.shared.state().platform.clone()
    }

    /// Pushes another ticket to the platform; the former one is no longer good.
    pub fn set_ticket(&self, ticket: &str) {
        ticket.clone_into(&mut self.shared.state().platform.ticket);
    }

    /// Gives the platform another AppSecret; the former one is no longer good.
    pub fn set_platform_secret(&self, secret: &str) {
        secret.clone_into(&mut self.shared.state().platform.app_secret);
    }

    /// The Official Account authorises the platform once more: the refresh token that is given here alone is good, and no
    /// access token is any more.
    pub fn authorise_again(&self, wechat_id: &str) -> String {
        self.shared.state().official_mut(wechat_id).authorise_again()
    }

    /// Ends every component token of the platform.
    pub fn end_component_tokens(&self) {
        self.shared.state().platform.end_tokens();
    }

    /// Where the organisation's own token server gives out the token of an Official Account.
    pub fn token_server_url(&self, wechat_id: &str) -> String {
        format!("{}/token-server/{wechat_id}", self.base_url())
    }

    /// What the token server wants to see in the header `x-api-key`.
    pub fn api_key(&self) -> String {
        self.shared.state().api_key.clone()
    }

    /// Makes an account exist without a call. The Official Account of its suffix lists it.
    pub fn put(&self, account: &str) {
        let (_, suffix) = account.split_once('@').unwrap_or_default();
        self.put_for(suffix, account);
    }

    /// Makes an account exist that this Official Account lists, whatever the account's suffix.
    pub fn put_for(&self, wechat_id: &str, account: &str) {
        self.shared.state().put(wechat_id, account, "put by the test");
    }

    /// Changes the nickname of an account without a call.
    pub fn rename(&self, account: &str, nickname: &str) {
        let mut state = self.shared.state();
        let account = state.accounts.get_mut(account).expect("the account exists");
        nickname.clone_into(&mut account.nickname);
    }

    /// Removes an account without a call.
    pub fn remove(&self, account: &str) {
        self.shared.state().accounts.remove(account);
    }

    /// The nickname of an account, where it exists.
    pub fn nickname(&self, account: &str) -> Option<String> {
        self.shared.state().accounts.get(account).map(|account| account.nickname.clone())
    }

    pub fn has(&self, account: &str) -> bool {
        self.nickname(account).is_some()
    }

    /// The calls of an endpoint, oldest first.
    pub fn calls(&self, endpoint: Endpoint) -> Vec<Call> {
        self.shared.state().calls.iter().filter(|call| call.endpoint == endpoint).cloned().collect()
    }

    /// The adds and deletes of an account, oldest first.
    pub fn changes(&self, account: &str) -> Vec<Endpoint> {
        let state = self.shared.state();
        let of_account = state.calls.iter().filter(|call| call.account == account);
        of_account.map(|call| call.endpoint).filter(|endpoint| matches!(endpoint, Endpoint::Add | Endpoint::Delete)).collect()
    }

    /// Every add and delete of the journal, oldest first.
    pub fn journal(&self) -> Vec<Call> {
        let state = self.shared.state();
        state.calls.iter().filter(|call| matches!(call.endpoint, Endpoint::Add | Endpoint::Delete)).cloned().collect()
    }

    /// Accounts that ever had two calls in flight at once.
    pub fn overlaps(&self) -> Vec<String> {
        self.shared.state().overlaps.clone()
    }

    /// Requests that are none of WeChat's: method and path.
    pub fn strays(&self) -> Vec<String> {
        self.shared.state().strays.clone()
    }

    /// Waits until so many calls of an endpoint and account have been answered.
    pub async fn until_answered(&self, endpoint: Endpoint, account: &str, count: usize) {
        let mut changed = self.shared.changed.subscribe();
        let enough = |state: &State| {
            let of_account = state.calls.iter().filter(|call| call.endpoint == endpoint && call.account == account);
            of_account.filter(|call| call.ended).count() >= count
        };
        let wait = async {
            while !enough(&self.shared.state()) {
                changed.changed().await.expect("the server lives");
            }
        };
        let waited = timeout(DEADLINE, wait).await;
        waited.unwrap_or_else(|_| panic!("{endpoint:?} of {account} was not answered {count} times: {:?}", self.journal()));
    }

    fn script(&self, endpoint: Endpoint, account: Option<&str>, then: Then) {
        self.shared.state().script(endpoint, account, then);
    }
}

impl Drop for WeChat {
    fn drop(&mut self) {
        self.server.abort();
    }
}
