//! Commands published at a steady pace, and when the event of each one came.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::support::DEADLINE;
use crate::support::broker::{Broker, Inbox, Message, Received};
use crate::support::stage::{add, delete};

/// The id of the message that marks the end of the events.
const END: &str = "end-of-events";
/// WeChat gives an Official Account room for 100; some of it stays free.
const KF_ACCOUNTS: usize = 90;

/// The command of this number for an Official Account. Its kf accounts take turns, and each is added and deleted in turn.
pub fn command(wechat_id: &str, number: usize) -> Value {
    let (round, account) = (number / KF_ACCOUNTS, number % KF_ACCOUNTS);
    let (command_id, kf_account) = (format!("{wechat_id}-{number}"), format!("kf{account}@{wechat_id}"));
    // Every other kf account begins with the delete, so that at every moment adds and deletes come in equal numbers.
    match (round + account).is_multiple_of(2) {
        true => add(&command_id, &kf_account, "客服"),
        false => delete(&command_id, &kf_account),
    }
}

/// One command, and what was told of it.
pub struct Sent {
    pub command: Value,
    pub published: Instant,
    /// When the first of its events came.
    pub answered: Option<Instant>,
    /// Its events; more than one where one was told again.
    pub events: Vec<Received>,
}

impl Sent {
    pub fn command_id(&self) -> &str {
        self.text("command_id")
    }

    pub fn kf_account(&self) -> &str {
        self.text("kf_account")
    }

    pub fn is_of(&self, wechat_id: &str) -> bool {
        official_account(self.kf_account()) == wechat_id
    }

    pub fn is_add(&self) -> bool {
        self.text("action") == "add"
    }

    /// From publishing to the event.
    pub fn latency(&self) -> Option<Duration> {
        Some(self.answered?.duration_since(self.published))
    }

    fn text(&self, field: &str) -> &str {
        self.command[field].as_str().unwrap_or_default()
    }
}

/// The Official Account of a kf account.
pub fn official_account(kf_account: &str) -> &str {
    kf_account.split_once('@').map_or("", |(_, wechat_id)| wechat_id)
}

/// Every command so far, in the order of publishing, and the place of each id in it.
#[derive(Default)]
struct Log {
    sent: Vec<Sent>,
    places: HashMap<String, usize>,
    /// Events of commands that nobody has published.
    strange: Vec<Received>,
}

impl Log {
    fn told(&mut self, event: Received, at: Instant) {
        match self.places.get(event.command_id()) {
            Some(place) => {
                let sent = &mut self.sent[*place];
                sent.answered.get_or_insert(at);
                sent.events.push(event);
            }
            None => self.strange.push(event),
        }
    }
}

/// The producer and the consumer of a run.
pub struct Traffic {
    channel: Channel,
    exchange: String,
    /// The queue of events, which goes with the connection.
    queue: ShortString,
    log: Arc<Mutex<Log>>,
    reader: JoinHandle<()>,
}

impl Traffic {
    /// Reads events from now on; a worker must have declared their exchange.
    pub async fn begin(broker: &Broker) -> Self {
        let channel = broker.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker confirms");
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await;
        let queue = queue.expect("a queue of the run's own").name().clone();
        bind(&channel, &queue, broker.name("events")).await;
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.clone(), "".into(), no_ack, FieldTable::default()).await;
        let log = Arc::<Mutex<Log>>::default();
        let reader = tokio::spawn(read(consumer.expect("the events can be read"), Arc::clone(&log)));
        Self { channel, exchange: broker.name("commands").to_string(), queue, log, reader }
    }

    /// Publishes commands evenly over time, so many a second, and waits until the broker has them all.
    pub async fn publish(&self, commands: impl IntoIterator<Item = Value>, per_second: u32) {
        // Where one is late the next ones hurry, so that the pace is kept.
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        let mut confirms = Vec::new();
        for command in commands {
            let Message { body, key, properties } = Message::json(&command);
            ticks.tick().await;
            self.note(command);
            let options = BasicPublishOptions::default();
            let sent = self.channel.basic_publish(self.exchange.as_str().into(), key.into(), options, &body, properties).await;
            confirms.push(sent.expect("the command is sent"));
        }
        for confirm in confirms {
            let answer = timeout(DEADLINE, confirm).await.expect("the broker confirms in time").expect("the channel lives");
            assert!(matches!(answer, Confirmation::Ack(None)), "a command was not taken: {answer:?}");
        }
    }

    /// Waits until each of these commands has an event; gives how many had none when the time was over.
    pub async fn answered(&self, which: impl Fn(&Sent) -> bool, limit: Duration) -> usize {
        let end = Instant::now() + limit;
        loop {
            let missing = {
                let log = self.log.lock().expect("nobody panics here");
                log.sent.iter().filter(|sent| sent.answered.is_none() && which(sent)).count()
            };
            if missing == 0 || Instant::now() >= end {
                return missing;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads what is left; gives every command in the order of publishing, and the events of commands that are none of them.
    pub async fn end(self) -> (Vec<Sent>, Vec<Received>) {
        let mark = BasicProperties::default().with_message_id(END.into());
        let sent = self.channel.basic_publish("".into(), self.queue, BasicPublishOptions::default(), b"{}", mark).await;
        sent.expect("the mark is sent").await.expect("the broker has the mark");
        timeout(DEADLINE, self.reader).await.expect("the mark comes in time").expect("the events could be read");
        let log = std::mem::take(&mut *self.log.lock().expect("nobody panics here"));
        (log.sent, log.strange)
    }

    fn note(&self, command: Value) {
        let mut log = self.log.lock().expect("nobody panics here");
        let place = log.sent.len();
        let sent = Sent { command, published: Instant::now(), answered: None, events: Vec::new() };
        let before = log.places.insert(sent.command_id().to_owned(), place);
        assert!(before.is_none(), "ids are used once: {}", sent.command_id());
        log.sent.push(sent);
    }
}

async fn read(mut consumer: Consumer, log: Arc<Mutex<Log>>) {
    while let Some(delivery) = consumer.next().await {
        let at = Instant::now();
        let event = Received::from(delivery.expect("the channel lives"));
        if event.property(BasicProperties::message_id) == Some(END) {
            return;
        }
        log.lock().expect("nobody panics here").told(event, at);
    }
}

async fn bind(channel: &Channel, queue: &ShortString, exchange: ShortString) {
    let bound = channel.queue_bind(queue.clone(), exchange, "#".into(), QueueBindOptions::default(), FieldTable::default()).await;
    bound.expect("the queue is bound");
}

/// A copy of everything that is put off from now on, with these delays; the worker must have declared them.
pub async fn put_off(broker: &Broker, delays: &[&str]) -> Inbox {
    let inbox = broker.replies().await;
    let channel = broker.channel().await;
    for delay in delays {
        bind(&channel, &inbox.queue, broker.name(&format!("deferred.{delay}"))).await;
    }
    inbox
}
