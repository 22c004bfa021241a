//! A scripted WeChat: answers as WeChat does unless a test says otherwise, holds calls at a barrier, and keeps a journal.
//!
//! It speaks HTTP by hand: a test must be able to drop a connection instead of answering, and to see that a caller hung up.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DEADLINE;

/// How many accounts one Official Account holds at most.
pub const ROOM: usize = 100;

/// The calls that the scripted WeChat knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    StableToken,
    Token,
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
    /// This HTTP status without a body, and nothing is done.
    Http(u16),
    /// HTTP 200 with these bytes, and nothing is done.
    Body(String),
    /// The work is done and the connection closed without a word.
    Lose,
}

/// An Official Account as the scripted WeChat knows it.
#[derive(Debug, Clone)]
pub struct OfficialAccount {
    pub wechat_id: String,
    pub app_id: String,
    pub app_secret: String,
    /// How many tokens were made for it; only the last one is good.
    tokens: usize,
}

impl OfficialAccount {
    /// The token that is good now.
    fn token(&self) -> String {
        format!("TOKEN-{}-{}", self.app_id, self.tokens)
    }
}

/// One line of the journal.
#[derive(Debug, Clone)]
pub struct Call {
    pub endpoint: Endpoint,
    /// The account, or for a token endpoint the AppID.
    pub account: String,
    pub token: String,
    /// The request's body as it was sent.
    pub body: String,
    /// It was answered, or the caller hung up.
    pub ended: bool,
}

/// What a test wants to happen to the calls of one endpoint.
struct Script {
    endpoint: Endpoint,
    /// Any account where there is none.
    account: Option<String>,
    then: Then,
}

enum Then {
    Once(Answer),
    Always(Answer),
    Hold { arrived: oneshot::Sender<String>, release: oneshot::Receiver<Answer> },
}

#[derive(Default)]
struct State {
    official: Vec<OfficialAccount>,
    /// The accounts that exist, and their nicknames.
    accounts: BTreeMap<String, String>,
    scripts: Vec<Script>,
    calls: Vec<Call>,
    in_flight: HashMap<String, usize>,
    /// Accounts of which two calls were in flight at once.
    overlaps: Vec<String>,
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
        let official = wechat_ids.iter().enumerate().map(|(number, wechat_id)| OfficialAccount {
            wechat_id: (*wechat_id).to_owned(),
            app_id: format!("wx{:016x}", 0x0123_4567_89ab_cde0 + number),
            app_secret: format!("SECRET{:026x}", rand::random::<u64>()),
            tokens: 1,
        });
        let state = State { official: official.collect(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(()) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(serve(listener, shared.clone()));
        Self { shared, address, server }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn official_accounts(&self) -> Vec<OfficialAccount> {
        self.shared.state().official.clone()
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
        self.shared.state().scripts.clear();
    }

    /// Holds the next call of an endpoint and account at a barrier.
    pub fn hold(&self, endpoint: Endpoint, account: &str) -> Held {
        let (arrived, told) = oneshot::channel();
        let (go, release) = oneshot::channel();
        self.script(endpoint, Some(account), Then::Hold { arrived, release });
        Held { shared: self.shared.clone(), endpoint, account: account.to_owned(), told, go }
    }

    /// Makes another token and ends the one before.
    pub fn end_token(&self, wechat_id: &str) {
        let mut state = self.shared.state();
        let official = state.official.iter_mut().find(|official| official.wechat_id == wechat_id);
        official.expect("a known Official Account").tokens += 1;
    }

    /// Makes an account exist without a call.
    pub fn put(&self, account: &str) {
        self.shared.state().accounts.insert(account.to_owned(), "put by the test".to_owned());
    }

    /// Removes an account without a call.
    pub fn remove(&self, account: &str) {
        self.shared.state().accounts.remove(account);
    }

    /// The nickname of an account, where it exists.
    pub fn nickname(&self, account: &str) -> Option<String> {
        self.shared.state().accounts.get(account).cloned()
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
        let account = account.map(str::to_owned);
        self.shared.state().scripts.push(Script { endpoint, account, then });
    }
}

impl Drop for WeChat {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A call that waits at a barrier, or will. Dropped, it closes the connection with nothing done.
pub struct Held {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    account: String,
    told: oneshot::Receiver<String>,
    go: oneshot::Sender<Answer>,
}

impl Held {
    /// Waits until the call is there.
    pub async fn arrived(&mut self) {
        let told = timeout(DEADLINE, &mut self.told).await;
        told.unwrap_or_else(|_| panic!("{:?} of {} was not called", self.endpoint, self.account)).expect("the server lives");
    }

    /// Does the work of the call and goes on holding its answer.
    pub fn work(&self) {
        let errcode = self.shared.state().work(self.endpoint, &self.account, "held");
        assert_eq!(errcode, 0, "the held call had something to do");
    }

    /// Lets WeChat do and say its usual.
    pub fn release(self) {
        self.answer(Answer::Usual);
    }

    /// Answers the call.
    pub fn answer(self, answer: Answer) {
        self.go.send(answer).expect("the caller still waits for an answer");
    }
}

impl State {
    /// Takes what was scripted for a call, where anything was.
    fn scripted(&mut self, endpoint: Endpoint, account: &str) -> Option<Then> {
        let fits = |script: &Script| script.endpoint == endpoint && script.account.as_deref().is_none_or(|only| only == account);
        let at = self.scripts.iter().position(fits)?;
        match &self.scripts[at].then {
            Then::Always(answer) => Some(Then::Always(answer.clone())),
            Then::Once(_) | Then::Hold { .. } => Some(self.scripts.remove(at).then),
        }
    }

    fn begin(&mut self, endpoint: Endpoint, request: &Request) -> usize {
        let account = request.account();
        if matches!(endpoint, Endpoint::Add | Endpoint::Delete) {
            let others = self.in_flight.entry(account.clone()).or_default();
            *others += 1;
            if *others > 1 {
                self.overlaps.push(account.clone());
            }
        }
        let token = request.query.get("access_token").cloned().unwrap_or_default();
        self.calls.push(Call { endpoint, account, token, body: request.text.clone(), ended: false });
        self.calls.len() - 1
    }

    fn end(&mut self, call: usize) {
        let call = &mut self.calls[call];
        call.ended = true;
        if let Some(others) = self.in_flight.get_mut(&call.account) {
            *others -= 1;
        }
    }

    /// Changes the accounts as WeChat would and gives its errcode.
    fn work(&mut self, endpoint: Endpoint, account: &str, nickname: &str) -> i64 {
        let (_, suffix) = account.split_once('@').unwrap_or_default();
        match endpoint {
            Endpoint::Add if self.accounts.contains_key(account) => 65406,
            Endpoint::Add if self.of_official_account(suffix).count() >= ROOM => 65405,
            Endpoint::Add => {
                self.accounts.insert(account.to_owned(), nickname.to_owned());
                0
            }
            Endpoint::Delete if self.accounts.remove(account).is_none() => 65401,
            Endpoint::Delete | Endpoint::List | Endpoint::StableToken | Endpoint::Token => 0,
        }
    }

    fn of_official_account<'a>(&'a self, wechat_id: &'a str) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.accounts.iter().filter(move |(account, _)| account.split_once('@').is_some_and(|(_, suffix)| suffix == wechat_id))
    }

    fn usual(&mut self, endpoint: Endpoint, request: &Request) -> Value {
        match endpoint {
            Endpoint::StableToken => self.give_token(&request.body["appid"], &request.body["secret"], false),
            Endpoint::Token => {
                let query = |name: &str| Value::from(request.query.get(name).cloned());
                self.give_token(&query("appid"), &query("secret"), true)
            }
            Endpoint::Add | Endpoint::Delete | Endpoint::List => self.call(endpoint, request),
        }
    }

    fn give_token(&mut self, app_id: &Value, secret: &Value, another: bool) -> Value {
        let fits = |official: &&mut OfficialAccount| *app_id == official.app_id && *secret == official.app_secret;
        match self.official.iter_mut().find(fits) {
            Some(official) => {
                official.tokens += usize::from(another);
                json!({"access_token": official.token(), "expires_in": 7200})
            }
            None => error_body(40125),
        }
    }

    fn call(&mut self, endpoint: Endpoint, request: &Request) -> Value {
        let token = request.query.get("access_token").cloned().unwrap_or_default();
        let Some(official) = self.official.iter().find(|official| official.token() == token).cloned() else {
            return error_body(40001);
        };
        if endpoint == Endpoint::List {
            let list = self.of_official_account(&official.wechat_id);
            let list = list.map(|(account, nickname)| json!({"kf_account": account, "kf_nick": nickname, "kf_id": "1001"}));
            return json!({"kf_list": list.collect::<Vec<_>>()});
        }
        let account = request.account();
        if !account.ends_with(&format!("@{}", official.wechat_id)) {
            return error_body(65401);
        }
        let nickname = request.body["nickname"].as_str().unwrap_or_default();
        error_body(self.work(endpoint, &account, nickname))
    }
}

fn error_body(errcode: i64) -> Value {
    let errmsg = if errcode == 0 { "ok" } else { "scripted rid: 61725984-6126f6f9-040f19c4" };
    json!({"errcode": errcode, "errmsg": errmsg})
}

/// Ends a call in the journal however its connection ends.
struct InFlight {
    shared: Arc<Shared>,
    call: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.state().end(self.call);
        self.shared.changed.send_replace(());
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the server: dropping the set aborts them.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, shared.clone()));
    }
}

/// One kept-alive connection: requests one after the other until one side closes it.
async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = Request::read(&mut stream).await {
        let Some(endpoint) = request.endpoint() else {
            let _ = stream.write_all(&response(404, "")).await;
            return;
        };
        let call = shared.state().begin(endpoint, &request);
        let in_flight = InFlight { shared: shared.clone(), call };
        shared.changed.send_replace(());
        let mut one_byte = [0];
        let answer = tokio::select! {
            answer = answer(endpoint, &request, &shared) => answer,
            // Nothing more is sent before the answer, so that a readable stream means a caller who hung up.
            _ = stream.peek(&mut one_byte) => return,
        };
        drop(in_flight);
        let Some(answer) = answer else { return };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The bytes to answer with; none where the connection is to be closed instead.
async fn answer(endpoint: Endpoint, request: &Request, shared: &Shared) -> Option<Vec<u8>> {
    let scripted = shared.state().scripted(endpoint, &request.account());
    let answer = match scripted {
        None => Answer::Usual,
        Some(Then::Once(answer) | Then::Always(answer)) => answer,
        Some(Then::Hold { arrived, release }) => {
            // Nobody listens where the test no longer cares.
            let _ = arrived.send(request.account());
            release.await.ok()?
        }
    };
    match answer {
        Answer::Usual => Some(response(200, &shared.state().usual(endpoint, request).to_string())),
        Answer::Errcode(errcode) => Some(response(200, &error_body(errcode).to_string())),
        Answer::Http(status) => Some(response(status, "")),
        Answer::Body(body) => Some(response(200, &body)),
        Answer::Lose => {
            shared.state().usual(endpoint, request);
            None
        }
    }
}

/// WeChat says `text/plain` of its JSON more often than not.
fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Scripted\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// What the worker asked.
struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    text: String,
    /// The text as JSON; null where it is none.
    body: Value,
}

impl Request {
    /// The next request; `None` at the end of the connection.
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let mut headers = lines.filter_map(|line| line.split_once(':'));
        let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.map_or(Some(0), |(_, length)| length.trim().parse().ok())?;
        let mut body = bytes.split_off(head_end + 4);
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
            (name.to_owned(), value)
        });
        let text = String::from_utf8_lossy(&body).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Some(Self { method, path: path.to_owned(), query: query.collect(), text, body })
    }

    fn endpoint(&self) -> Option<Endpoint> {
        match (self.method.as_str(), self.path.as_str()) {
            ("POST", "/cgi-bin/stable_token") => Some(Endpoint::StableToken),
            ("GET", "/cgi-bin/token") => Some(Endpoint::Token),
            ("POST", "/customservice/kfaccount/add") => Some(Endpoint::Add),
            ("POST", "/customservice/kfaccount/del") => Some(Endpoint::Delete),
            ("GET", "/cgi-bin/customservice/getkflist") => Some(Endpoint::List),
            _ => None,
        }
    }

    /// The account that is asked about, or at a token endpoint the AppID.
    fn account(&self) -> String {
        let body = |name: &str| self.body[name].as_str().map(str::to_owned);
        body("kf_account").or_else(|| body("appid")).or_else(|| self.query.get("appid").cloned()).unwrap_or_default()
    }
}
