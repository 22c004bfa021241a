//! The WeChat simulator as a process, and what it is told over its control endpoint.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::worker::Settings;

/// The running simulator; it ends with this value.
pub struct Simulator {
    address: SocketAddr,
    official_accounts: Vec<String>,
    _process: Child,
}

impl Simulator {
    /// Starts it with these Official Accounts, and nothing in them.
    pub async fn start(official_accounts: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wechat-simulator"));
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).kill_on_drop(true);
        for wechat_id in official_accounts {
            command.args(["--account", &account(wechat_id)]);
        }
        let mut process = command.spawn().expect("the simulator starts");
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await.expect("the simulator's output can be read");
        let address = line.trim().rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
        let official_accounts = official_accounts.iter().map(|wechat_id| (*wechat_id).to_owned()).collect();
        Self { address: address.expect("the simulator says where it listens"), official_accounts, _process: process }
    }

    /// Where it plays WeChat's API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a worker use it.
    pub fn configure(&self, settings: &mut Settings) {
        settings.set("wechat.base_url", self.url());
        for wechat_id in &self.official_accounts {
            let secret = secret_of(wechat_id);
            settings.official_accounts.push_str(&format!(
                "[[official_account]]\nwechat_id = \"{wechat_id}\"\napp_id = \"app-{wechat_id}\"\napp_secret = \"{secret}\"\n\n"
            ));
        }
    }

    /// Replaces the fault rules.
    pub async fn put_faults(&self, rules: &Value) {
        self.control("PUT", "faults", &rules.to_string()).await;
    }

    /// Changes an Official Account's AppSecret, which ends its tokens as well.
    pub async fn change_secret(&self, wechat_id: &str) {
        self.control("PUT", &format!("official-accounts/{wechat_id}/secret"), "another secret").await;
    }

    /// Gives an Official Account the AppSecret back that the worker knows.
    pub async fn put_secret_back(&self, wechat_id: &str) {
        self.control("PUT", &format!("official-accounts/{wechat_id}/secret"), &secret_of(wechat_id)).await;
    }

    /// Lets an Official Account add so often in each `day` or `minute`; without a number, as often as it likes.
    pub async fn set_quota_of_adds(&self, wechat_id: &str, each: &str, adds: Option<u64>) {
        let quota = json!({"action": "add", each: adds});
        self.control("PUT", &format!("official-accounts/{wechat_id}/quota"), &quota.to_string()).await;
    }

    /// Every kf account that exists.
    pub async fn accounts(&self) -> Value {
        self.control("GET", "accounts", "").await
    }

    /// The calls that it has counted.
    pub async fn calls(&self) -> Value {
        self.control("GET", "calls", "").await
    }

    /// One call of the control endpoint, which must be taken; gives the answer's JSON, null where it has no body.
    pub async fn control(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).await.expect("the simulator can be reached");
        let length = body.len();
        let request = format!("{method} /control/{path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("the simulator listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the simulator answers");
        let taken = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        assert!(taken, "the simulator takes {method} {path} {body}: {answer}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        match body {
            "" => Value::Null,
            text => serde_json::from_str(text).expect("the simulator answers with JSON"),
        }
    }
}

/// An Official Account as the simulator's `--account` takes it.
pub fn account(wechat_id: &str) -> String {
    format!("{wechat_id}:app-{wechat_id}:{}", secret_of(wechat_id))
}

fn secret_of(wechat_id: &str) -> String {
    format!("secret-{wechat_id}")
}
