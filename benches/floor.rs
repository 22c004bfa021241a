//! The floor under the worker: the smallest honest loop on the same crates that makes a call and an event of each command.
//!
//! It takes commands with a prefetch of twice its concurrency, makes one call to WeChat for each, publishes one persistent and
//! confirmed event, and acknowledges all at once that are done. Only the call holds one of the places, so that confirms and
//! acknowledgements cost none.
//!
//! What it leaves out is what the worker is for. It has no ledger: a repeat acts again, and after a crash nothing is known of
//! the calls in flight. It keeps no order among the commands of an account, and treats no Official Account fairly. It checks
//! neither commands nor senders, and takes WeChat's answer as it comes: nothing is tried again, put off or left to a person.
//! It has no metrics, traces, log, time limits or orderly end, fetches each token once, and ends at the first fault.

#![expect(clippy::expect_used, reason = "it ends at the first fault")]

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

/// Channels that publish at the same time, each with many events that wait for their confirms.
const PUBLISHERS: usize = 4;
/// Acknowledgements that are merged into one at most.
const MERGED: usize = 1_024;

/// The smallest honest loop from a command to its event; `make bench` runs it.
#[derive(Parser)]
struct Arguments {
    /// The broker, at which a worker has declared everything
    #[arg(long, value_name = "URL")]
    amqp: String,
    #[arg(long)]
    prefix: String,
    /// WeChat's API
    #[arg(long, value_name = "URL")]
    wechat: String,
    /// Calls in flight at WeChat at once
    #[arg(long, value_name = "N")]
    concurrency: usize,
    /// An Official Account; may be repeated
    #[arg(long = "account", value_name = "WECHAT_ID:APPID:SECRET")]
    accounts: Vec<String>,
}

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    command_id: Cow<'a, str>,
    action: Action,
    #[serde(borrow)]
    kf_account: Cow<'a, str>,
    #[serde(borrow)]
    nickname: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Add,
    Delete,
}

#[derive(Serialize)]
struct Call<'a> {
    kf_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    errcode: i64,
}

/// An event of the same form as the worker's, and so about as long.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    command_id: &'a str,
    action: Action,
    kf_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<&'a str>,
    status: &'a str,
    errcode: i64,
    attempts: u32,
    received_at: Timestamp,
    finished_at: Timestamp,
}

/// All that commands share.
struct Floor {
    exchange: String,
    publishers: Vec<Channel>,
    client: Client,
    /// Where to add and to delete, by Official Account, tokens included.
    urls: HashMap<String, [Url; 2]>,
    places: Semaphore,
}

// As the worker does; several threads were no faster.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A task that fails would leave the others waiting.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |fault| {
        tell(fault);
        std::process::exit(1);
    }));
    let arguments = Arguments::parse();
    // Nothing here is encrypted, but the clients want to know by whom it would be.
    rustls::crypto::ring::default_provider().install_default().expect("nobody has chosen before");
    let floor = Arc::new(Floor::new(&arguments).await);
    let connection = connect(&arguments.amqp).await;
    let channel = connection.create_channel().await.expect("a channel opens");
    let prefetch = u16::try_from(2 * arguments.concurrency).expect("a concurrency that AMQP can count to");
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.expect("the prefetch is taken");
    let queue = format!("{}.commands", arguments.prefix);
    let consumer = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
    let mut consumer = consumer.expect("the queue can be read");
    let (done, acknowledged) = mpsc::unbounded_channel();
    tokio::spawn(acknowledge(channel, acknowledged));
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.expect("the channel lives");
        let (floor, done) = (Arc::clone(&floor), done.clone());
        tokio::spawn(async move {
            floor.carry_out(&delivery).await;
            done.send(delivery.delivery_tag).expect("somebody acknowledges");
        });
    }
}

impl Floor {
    async fn new(arguments: &Arguments) -> Self {
        let connection = connect(&arguments.amqp).await;
        let publishers = join_all((0..PUBLISHERS).map(async |_| {
            let channel = connection.create_channel().await.expect("a channel opens");
            channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker confirms");
            channel
        }));
        let client = Client::builder().no_proxy().tls_certs_only([]).build().expect("a client of HTTP");
        let mut urls = HashMap::new();
        for account in &arguments.accounts {
            let (wechat_id, credentials) = account.split_once(':').expect("an account is WECHAT_ID:APPID:SECRET");
            let token = token(&client, &arguments.wechat, credentials).await;
            let url = |call| format!("{}/customservice/kfaccount/{call}?access_token={token}", arguments.wechat);
            let urls_of_one = ["add", "del"].map(|call| Url::parse(&url(call)).expect("a URL"));
            urls.insert(wechat_id.to_owned(), urls_of_one);
        }
        Self {
            exchange: format!("{}.events", arguments.prefix),
            publishers: publishers.await,
            client,
            urls,
            places: Semaphore::new(arguments.concurrency),
        }
    }

    /// One call and one confirmed event.
    async fn carry_out(&self, delivery: &Delivery) {
        let received_at = Timestamp::now();
        let command: Command<'_> = serde_json::from_slice(&delivery.data).expect("a command");
        let errcode = self.call(&command).await;
        let (kind, key) = match (command.action, errcode) {
            (Action::Add, 0) => ("kf.add.succeeded", "add.succeeded"),
            (Action::Add, _) => ("kf.add.failed", "add.failed"),
            (Action::Delete, 0) => ("kf.delete.succeeded", "delete.succeeded"),
            (Action::Delete, _) => ("kf.delete.failed", "delete.failed"),
        };
        let finished_at = Timestamp::now();
        let data = Data {
            command_id: &command.command_id,
            action: command.action,
            kf_account: &command.kf_account,
            nickname: command.nickname.as_deref(),
            status: if errcode == 0 { "succeeded" } else { "failed" },
            errcode,
            attempts: 1,
            received_at,
            finished_at,
        };
        let event = Event {
            specversion: "1.0",
            id: &command.command_id,
            source: "floor",
            r#type: kind,
            subject: &command.kf_account,
            time: finished_at,
            datacontenttype: "application/json",
            data,
        };
        let body = serde_json::to_vec(&event).expect("an event is JSON");
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into())
            .with_message_id(command.command_id.as_ref().into())
            .with_correlation_id(command.command_id.as_ref().into());
        let publisher = &self.publishers[delivery.delivery_tag as usize % PUBLISHERS];
        let options = BasicPublishOptions::default();
        let sent = publisher.basic_publish(self.exchange.as_str().into(), key.into(), options, &body, properties).await;
        let confirmed = sent.expect("the event is sent").await.expect("the channel lives");
        assert!(matches!(confirmed, Confirmation::Ack(None)), "the event was not taken: {confirmed:?}");
    }

    /// WeChat's answer to the one call.
    async fn call(&self, command: &Command<'_>) -> i64 {
        let (_, wechat_id) = command.kf_account.split_once('@').expect("a kf account has an Official Account");
        let [add, delete] = self.urls.get(wechat_id).expect("the Official Account is known");
        let url = if let Action::Add = command.action { add } else { delete };
        let body = serde_json::to_vec(&Call { kf_account: &command.kf_account, nickname: command.nickname.as_deref() });
        let request = self.client.post(url.clone()).header("content-type", "application/json").body(body.expect("a call is JSON"));
        let _place = self.places.acquire().await.expect("places are never closed");
        let answer = request.send().await.expect("WeChat answers").bytes().await.expect("WeChat answers in whole");
        serde_json::from_slice::<Answer>(&answer).expect("WeChat answers with JSON").errcode
    }
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.expect("the broker can be reached")
}

/// The token of an Official Account, whose credentials are `APPID:SECRET`.
async fn token(client: &Client, wechat: &str, credentials: &str) -> String {
    let (appid, secret) = credentials.split_once(':').expect("an account is WECHAT_ID:APPID:SECRET");
    let body = json!({"grant_type": "client_credential", "appid": appid, "secret": secret});
    let request = client.post(format!("{wechat}/cgi-bin/stable_token")).body(body.to_string());
    let answer = request.send().await.expect("WeChat answers").bytes().await.expect("WeChat answers in whole");
    let answer: Value = serde_json::from_slice(&answer).expect("WeChat answers with JSON");
    answer["access_token"].as_str().expect("WeChat gives a token").to_owned()
}

/// Acknowledges what is done: all up to the first delivery that isn't, at once.
async fn acknowledge(channel: Channel, mut done: mpsc::UnboundedReceiver<u64>) {
    let (mut next, mut early, mut tags) = (1, BTreeSet::new(), Vec::with_capacity(MERGED));
    while done.recv_many(&mut tags, MERGED).await > 0 {
        early.extend(tags.drain(..));
        let before = next;
        while early.remove(&next) {
            next += 1;
        }
        if next > before {
            channel.basic_ack(next - 1, BasicAckOptions { multiple: true }).await.expect("the channel lives");
        }
    }
}
