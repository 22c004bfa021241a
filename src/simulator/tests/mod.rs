//! The simulator proven over real HTTP, and its clockwork with times of our own.

mod answers;
mod clockwork;
mod component;
mod control;
mod faults;
mod limits;
mod official_accounts;
mod rotation;
mod tickets;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{OfficialAccount, Settings, Simulator};

const ADD: &str = "/customservice/kfaccount/add";
const DEL: &str = "/customservice/kfaccount/del";
const LIST: &str = "/cgi-bin/customservice/getkflist";
const STABLE: &str = "/cgi-bin/stable_token";
const LEGACY: &str = "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret=secret";

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running simulator and a caller.
struct Wechat {
    address: SocketAddr,
    client: reqwest::Client,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Drop for Wechat {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Wechat {
    async fn start(settings: Settings) -> Self {
        // Fails when another test was first, which is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::bind(settings).await.unwrap();
        let shutdown = CancellationToken::new();
        Self {
            address: simulator.address(),
            client: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            running: tokio::spawn(simulator.run(shutdown.clone())),
            shutdown,
        }
    }

    /// A call as it comes back from the wire.
    async fn send(&self, method: Method, path: &str, body: impl Into<String>) -> reqwest::Result<reqwest::Response> {
        let body = body.into();
        let mut request = self.client.request(method.clone(), format!("http://{}{path}", self.address));
        if method != Method::GET {
            request = request.header("content-length", body.len()).body(body);
        }
        request.send().await
    }

    /// A call that must be answered by JSON.
    async fn ask(&self, method: Method, path: &str, body: impl Into<String>) -> Value {
        let answer = self.send(method, path, body).await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn post(&self, path: &str, body: impl Into<String>) -> Value {
        self.ask(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, "").await
    }

    async fn stable_token(&self) -> String {
        text(&self.post(STABLE, credentials()).await["access_token"])
    }

    async fn add(&self, token: &str, kf_account: &str) -> Value {
        let body = json!({"kf_account": kf_account, "nickname": "客服1"});
        let path = format!("{ADD}?access_token={token}");
        self.post(&path, body.to_string()).await["errcode"].clone()
    }

    async fn del(&self, token: &str, kf_account: &str) -> Value {
        let body = json!({"kf_account": kf_account});
        let path = format!("{DEL}?access_token={token}");
        self.post(&path, body.to_string()).await["errcode"].clone()
    }

    async fn set_faults(&self, rules: Value) {
        self.control(Method::PUT, "faults", &rules.to_string()).await;
    }

    /// A control call that must be done.
    async fn control(&self, method: Method, path: &str, body: &str) {
        let answer = self.send(method, &format!("/control/{path}"), body).await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
    }

    /// The kf accounts of the Official Account `test`.
    async fn kf_accounts(&self) -> Vec<String> {
        let accounts = self.get("/control/accounts").await;
        let list = accounts["test"].as_array().unwrap().iter();
        list.map(|kf| text(&kf["kf_account"])).collect()
    }

    /// Waits until a value that the control endpoint shows is as wanted.
    async fn until(&self, path: &str, pointer: &str, wanted: Value) {
        let poll = async {
            while self.get(path).await.pointer(pointer) != Some(&wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, poll).await;
        assert!(waited.is_ok(), "{path} never showed {wanted} at {pointer}");
    }
}

/// Two Official Accounts and two third-party platforms; `test` has authorised the first of them.
fn with_platforms() -> Settings {
    Settings {
        official_accounts: vec![OfficialAccount::default(), "two:wx2:s2".parse().unwrap()],
        platforms: vec!["wxp1:ps1".parse().unwrap(), "wxp2:ps2".parse().unwrap()],
        authorisations: vec!["test:wxp1:first".parse().unwrap()],
        ..Settings::default()
    }
}

/// What a token call sends for the default Official Account.
fn credentials() -> String {
    json!({
        "grant_type": "client_credential",
        "appid": "wx0123456789abcdef",
        "secret": "secret",
        "force_refresh": false,
    })
    .to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
