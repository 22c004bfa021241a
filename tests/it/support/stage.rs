//! One test's world: a prefix of its own at the broker, a scripted WeChat, a folder, and the workers it starts there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::broker::{Broker, Inbox, Message, Received};
use super::ledger::Ledger;
use super::ports::free_port;
use super::postgres;
use super::rabbitmq;
use super::vhost::{self, Vhost};
use super::wechat::WeChat;
use super::worker::{Settings, Worker};

/// The delays of the deferred queues that a test's worker declares unless the test says otherwise.
const DEFER: [&str; 2] = ["1s", "2s"];

/// Everything a test needs besides a worker. Drop its workers first: they use what it cleans up.
pub struct Stage {
    pub broker: Broker,
    pub events: Inbox,
    pub wechat: WeChat,
    /// The broker's URL.
    url: String,
    folder: TempDir,
    /// Where the workers keep their ledger, where that is no file.
    database: Option<postgres::Database>,
    /// The delays for which deferred queues may have been declared.
    deferred: Vec<String>,
    /// How many partitions the last worker was told.
    partitions: usize,
}

impl Stage {
    /// A world in which nothing has happened, and whose events are all read from here on.
    pub async fn new() -> Self {
        Self::at(rabbitmq::url()).await
    }

    /// A world whose workers keep their ledger in a database of its own.
    pub async fn on_postgres() -> Self {
        let mut stage = Self::new().await;
        stage.database = Some(postgres::database());
        stage
    }

    /// The same with these Official Accounts.
    pub async fn with_official_accounts(wechat_ids: &[&str]) -> Self {
        Self::set_up(rabbitmq::url(), own_prefix(), wechat_ids).await
    }

    /// A world at a broker of the test's own.
    pub async fn at(url: &str) -> Self {
        Self::set_up(url, own_prefix(), &["test", "other"]).await
    }

    /// A world in a vhost of its own, under the prefix for which rights are given there.
    pub async fn in_vhost(vhost: &Vhost) -> Self {
        Self::set_up(&vhost.url_of_guest(), vhost::PREFIX.to_owned(), &["test", "other"]).await
    }

    async fn set_up(url: &str, prefix: String, wechat_ids: &[&str]) -> Self {
        let broker = Broker::connect(url, prefix).await;
        let events = broker.events().await;
        let wechat = WeChat::start(wechat_ids).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            broker,
            events,
            wechat,
            url: url.to_owned(),
            folder,
            database: None,
            deferred: DEFER.map(str::to_owned).to_vec(),
            partitions: 1,
        }
    }

    /// The settings of a worker in this world: quick retries, and time enough for calls that a test holds.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings
            .set("amqp.url", self.url.as_str())
            .set("amqp.prefix", self.broker.prefix.as_str())
            .set("wechat.base_url", self.wechat.base_url())
            .set("wechat.request_timeout", "10s")
            .set("retry.initial", "10ms")
            .set("retry.max_interval", "100ms")
            .set("retry.defer", json!(DEFER))
            .set("ledger.url", self.ledger_url())
            .set("admin.listen", format!("127.0.0.1:{}", free_port()));
        for official in self.wechat.official_accounts() {
            settings.official_accounts.push_str(&format!(
                "[[official_account]]\nwechat_id = \"{}\"\napp_id = \"{}\"\napp_secret = \"{}\"\n\n",
                official.wechat_id, official.app_id, official.app_secret
            ));
        }
        settings
    }

    /// A worker with the usual settings, ready.
    pub async fn worker(&mut self) -> Worker {
        let settings = self.settings();
        self.worker_with(&settings).await
    }

    /// A worker with settings of the test's own, ready.
    pub async fn worker_with(&mut self, settings: &Settings) -> Worker {
        let mut worker = self.spawn(settings);
        worker.ready().await;
        worker
    }

    /// A worker that may never get ready.
    pub fn spawn(&mut self, settings: &Settings) -> Worker {
        self.remember(settings);
        Worker::spawn(self.folder.path(), settings)
    }

    /// A second worker, with a folder of its own for its configuration and log.
    pub fn spawn_second(&mut self, settings: &Settings) -> Worker {
        self.remember(settings);
        let folder = self.folder.path().join("second");
        std::fs::create_dir_all(&folder).expect("a folder for the second worker");
        Worker::spawn(&folder, settings)
    }

    /// The ledger of this world's worker.
    pub fn ledger(&self) -> Ledger {
        match &self.database {
            Some(database) => Ledger::in_database(database.url()),
            None => Ledger::at(&self.ledger_path()),
        }
    }

    /// The database of the workers' ledger.
    pub fn database(&self) -> &postgres::Database {
        self.database.as_ref().expect("the ledger of this world is in a database")
    }

    fn ledger_url(&self) -> String {
        match &self.database {
            Some(database) => database.url().to_owned(),
            None => format!("sqlite:{}", self.ledger_path().display()),
        }
    }

    /// A path in this world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Publishes a command as a producer does.
    pub async fn send(&self, command: &Value) {
        self.broker.publish(Message::json(command)).await;
    }

    /// Publishes commands in order.
    pub async fn send_all(&self, commands: &[Value]) {
        self.broker.publish_all(commands.iter().map(Message::json)).await;
    }

    /// Publishes a command and waits for its outcome.
    pub async fn outcome(&mut self, command: &Value) -> Received {
        self.send(command).await;
        self.events.of(command["command_id"].as_str().expect("a command with an id")).await
    }

    /// Ends the worker in order and gives what nobody has read of its events: usually nothing. Whatever the test was
    /// about, nothing may be left at the broker, and WeChat must not have seen two calls for one account at once.
    pub async fn settle(&mut self, mut worker: Worker) -> Vec<Received> {
        assert_eq!(worker.terminate().await, Some(0), "the worker ends in order");
        for queue in self.command_queues() {
            assert_eq!(self.broker.ready(&queue).await, Some(0), "every command of `{queue}` is acknowledged");
        }
        for delay in self.deferred.clone() {
            assert!(self.broker.ready(&format!("deferred.{delay}")).await.is_none_or(|count| count == 0), "nothing is put off");
        }
        assert_eq!(self.wechat.overlaps(), Vec::<String>::new(), "one call at a time for each account");
        self.events.rest().await
    }

    /// Ends the worker in order once each of these commands has an outcome, and gives that outcome; whatever was told
    /// again said the same, and nothing was told of any other command.
    pub async fn settle_each(&mut self, worker: Worker, commands: &[Value]) -> BTreeMap<String, Received> {
        let mut outcomes = BTreeMap::new();
        for command in commands {
            let command_id = command["command_id"].as_str().expect("a command with an id");
            outcomes.insert(command_id.to_owned(), self.events.of(command_id).await);
        }
        for again in self.settle(worker).await {
            let first = outcomes.get(again.command_id());
            first.unwrap_or_else(|| panic!("nobody ordered {again:?}")).assert_repeated_by(&again);
        }
        outcomes
    }

    /// Connects again after the broker was away. What was told meanwhile is read where the events were kept.
    pub async fn reconnect(&mut self) {
        self.broker = Broker::connect(&self.url, self.broker.prefix.clone()).await;
        self.events = self.broker.kept_events().await;
    }

    /// The queues that the last worker consumes, without the prefix.
    pub fn command_queues(&self) -> Vec<String> {
        match self.partitions {
            1 => vec!["commands".to_owned()],
            several => (0..several).map(|number| format!("commands.{number}")).collect(),
        }
    }

    fn ledger_path(&self) -> PathBuf {
        self.path("ledger.db")
    }

    fn remember(&mut self, settings: &Settings) {
        let delays = settings.get("retry.defer").and_then(Value::as_array).into_iter().flatten();
        self.deferred.extend(delays.filter_map(Value::as_str).map(str::to_owned));
        self.partitions = settings.get("amqp.partitions").and_then(Value::as_u64).map_or(1, |number| number.try_into().expect("a number"));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.broker.remove_now(&self.deferred);
    }
}

/// A prefix that no other test has.
fn own_prefix() -> String {
    format!("kft-{:08x}", rand::random::<u32>())
}

/// An `add` command.
pub fn add(command_id: &str, account: &str, nickname: &str) -> Value {
    json!({"command_id": command_id, "action": "add", "kf_account": account, "nickname": nickname})
}

/// A `delete` command.
pub fn delete(command_id: &str, account: &str) -> Value {
    json!({"command_id": command_id, "action": "delete", "kf_account": account})
}

/// So many `add` commands for accounts of one Official Account, `<name>0` and so on; the account is the id as well.
pub fn adds(name: &str, wechat_id: &str, count: usize) -> Vec<Value> {
    let accounts = (0..count).map(|number| format!("{name}{number}@{wechat_id}"));
    accounts.map(|account| add(&account, &account, "客服")).collect()
}

/// The `delete` commands of the same accounts, each under an id of its own.
pub fn deletes(name: &str, wechat_id: &str, count: usize) -> Vec<Value> {
    let accounts = (0..count).map(|number| format!("{name}{number}@{wechat_id}"));
    accounts.map(|account| delete(&format!("delete-{account}"), &account)).collect()
}

/// The account of a command.
pub fn account(command: &Value) -> &str {
    command["kf_account"].as_str().expect("a command names its account")
}

/// A command with one more field, or with another value of a field.
pub fn with(mut command: Value, field: &str, value: impl Into<Value>) -> Value {
    command[field] = value.into();
    command
}
