//! A thin AMQP client for tests: publishes commands, reads events and dead letters, counts messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use futures_util::StreamExt;
use jsonschema::Validator;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::DEADLINE;

/// The queue of events that outlives a connection.
const KEPT_EVENTS: &str = "kept-events";

/// More partitions than this no test has.
const MOST_PARTITIONS: usize = 8;

/// A connection to a broker, under one prefix of its own.
pub struct Broker {
    connection: Connection,
    /// Publishes with confirms.
    channel: Channel,
    pub prefix: String,
}

impl Broker {
    /// Connects; every name that this test uses begins with `prefix`.
    pub async fn connect(url: &str, prefix: String) -> Self {
        let options = ConnectionProperties::default().with_connection_name("kf-worker-test".into());
        let connection = Connection::connect(url, options).await.expect("the broker can be reached");
        let channel = connection.create_channel().await.expect("a channel opens");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker confirms");
        Self { connection, channel, prefix }
    }

    /// `<prefix>.<name>`, as the contract builds its names.
    pub fn name(&self, name: &str) -> ShortString {
        format!("{}.{name}", self.prefix).into()
    }

    /// A channel of its own, for declarations that the broker may refuse by closing it.
    pub async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel opens")
    }

    /// Publishes one command and waits until the broker has it.
    pub async fn publish(&self, message: Message) {
        self.publish_all([message]).await;
    }

    /// Publishes commands in order, then waits until the broker has them all.
    pub async fn publish_all(&self, messages: impl IntoIterator<Item = Message>) {
        let mut confirms = Vec::new();
        for message in messages {
            let Message { body, key, properties } = message;
            let exchange = self.name("commands");
            let options = BasicPublishOptions::default();
            let sent = self.channel.basic_publish(exchange, key.into(), options, &body, properties).await;
            confirms.push(sent.expect("the command is sent"));
        }
        for confirm in confirms {
            let answer = timeout(DEADLINE, confirm).await.expect("the broker confirms in time").expect("the channel lives");
            assert!(matches!(answer, Confirmation::Ack(None)), "a command was not taken: {answer:?}");
        }
    }

    /// How many messages of `<prefix>.<queue>` wait for a consumer; `None` where there is no such queue.
    pub async fn ready(&self, queue: &str) -> Option<u32> {
        // A passive declaration of what isn't there closes the channel, so it gets one of its own.
        let channel = self.channel().await;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(self.name(queue), options, FieldTable::default()).await.ok()?;
        Some(queue.message_count())
    }

    /// Every event from now on. The exchange is declared as the worker declares it, so that nothing is missed.
    pub async fn events(&self) -> Inbox {
        let channel = self.channel().await;
        let queue = self.own_queue(&channel).await;
        self.bind_to_events(&channel, queue.clone()).await;
        Inbox::open(channel, queue).await
    }

    /// Keeps every event from now on in a queue that outlives this connection and the broker's process.
    pub async fn keep_events(&self) {
        let channel = self.channel().await;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(self.name(KEPT_EVENTS), durable, FieldTable::default()).await.expect("the queue is declared");
        self.bind_to_events(&channel, self.name(KEPT_EVENTS)).await;
    }

    /// The events that were kept.
    pub async fn kept_events(&self) -> Inbox {
        Inbox::open(self.channel().await, self.name(KEPT_EVENTS)).await
    }

    async fn bind_to_events(&self, channel: &Channel, queue: ShortString) {
        let exchange = self.name("events");
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default())
            .await
            .expect("the exchange of events is declared");
        let bound = channel.queue_bind(queue, exchange, "#".into(), QueueBindOptions::default(), FieldTable::default()).await;
        bound.expect("the queue is bound");
    }

    /// A queue that `reply_to` can name.
    pub async fn replies(&self) -> Inbox {
        let channel = self.channel().await;
        let queue = self.own_queue(&channel).await;
        Inbox::open(channel, queue).await
    }

    /// The dead letters; the queue is there once a worker has started.
    pub async fn dead(&self) -> Inbox {
        Inbox::open(self.channel().await, self.name("dead")).await
    }

    /// What comes to a queue that is there, whatever its name begins with.
    pub async fn inbox(&self, queue: &str) -> Inbox {
        Inbox::open(self.channel().await, queue.into()).await
    }

    /// A queue that goes with this test's connection.
    async fn own_queue(&self, channel: &Channel) -> ShortString {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await;
        queue.expect("a queue of this test's own").name().clone()
    }

    /// Removes what a worker with these delays declared, so that a broker that outlives the test stays clean.
    async fn remove(&self, deferred: &[String]) {
        // A broker that a failed test has left behind dead has nothing to be removed.
        let Ok(channel) = self.connection.create_channel().await else { return };
        let delays = deferred.iter().map(|delay| format!("deferred.{delay}"));
        let names = ["commands", "events", "dead", KEPT_EVENTS, "partitions", "parked", "parking", "unparking"].map(str::to_owned);
        let partitions = (0..MOST_PARTITIONS).map(|number| format!("commands.{number}"));
        for name in names.into_iter().chain(partitions).chain(delays) {
            // A test that fails early leaves some of them undeclared; the broker takes that as done.
            let _ = channel.queue_delete(self.name(&name), QueueDeleteOptions::default()).await;
            let _ = channel.exchange_delete(self.name(&name), ExchangeDeleteOptions::default()).await;
        }
    }

    /// The same from a destructor, where nothing can be awaited.
    pub fn remove_now(&self, deferred: &[String]) {
        block_in_place(|| Handle::current().block_on(async { timeout(DEADLINE, self.remove(deferred)).await.ok() }));
    }
}

/// What a producer publishes.
#[derive(Clone)]
pub struct Message {
    pub body: Vec<u8>,
    pub key: String,
    pub properties: BasicProperties,
}

impl Message {
    /// A command in the contract's plain form; its routing key is its account.
    pub fn json(command: &Value) -> Self {
        let key = command["kf_account"].as_str().unwrap_or("unknown").to_owned();
        Self { key, ..Self::raw(command.to_string()) }
    }

    /// Any bytes at all.
    pub fn raw(body: impl Into<Vec<u8>>) -> Self {
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        Self { body: body.into(), key: "unknown".to_owned(), properties }
    }

    pub fn message_id(self, id: &str) -> Self {
        self.with(|properties| properties.with_message_id(id.into()))
    }

    pub fn content_type(self, kind: &str) -> Self {
        self.with(|properties| properties.with_content_type(kind.into()))
    }

    /// Who sends it; the broker takes nothing but the connection's own user.
    pub fn user_id(self, user: &str) -> Self {
        self.with(|properties| properties.with_user_id(user.into()))
    }

    pub fn correlation_id(self, id: &str) -> Self {
        self.with(|properties| properties.with_correlation_id(id.into()))
    }

    pub fn reply_to(self, queue: &str) -> Self {
        self.with(|properties| properties.with_reply_to(queue.into()))
    }

    /// When the producer says that it sent this, in seconds since 1970.
    pub fn timestamp(self, second: u64) -> Self {
        self.with(|properties| properties.with_timestamp(second))
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|properties| {
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
            properties.with_headers(headers)
        })
    }

    fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }
}

/// A queue that the test reads to its end.
pub struct Inbox {
    channel: Channel,
    consumer: Consumer,
    pub queue: ShortString,
    /// Read already, and not what was asked for then.
    kept: VecDeque<Received>,
}

impl Inbox {
    async fn open(channel: Channel, queue: ShortString) -> Self {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await;
        Self { channel, consumer: consumer.expect("the queue can be read"), queue, kept: VecDeque::new() }
    }

    /// The next message, whichever it is.
    pub async fn next(&mut self) -> Received {
        match self.kept.pop_front() {
            Some(message) => message,
            None => self.receive().await,
        }
    }

    /// The next event of one command; those of others are kept for later.
    pub async fn of(&mut self, command_id: &str) -> Received {
        if let Some(at) = self.kept.iter().position(|message| message.command_id() == command_id) {
            return self.kept.remove(at).expect("it was found there");
        }
        loop {
            let message = self.receive().await;
            if message.command_id() == command_id {
                return message;
            }
            self.kept.push_back(message);
        }
    }

    /// As many messages as asked for, in the order they came.
    pub async fn collect(&mut self, count: usize) -> Vec<Received> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            messages.push(self.next().await);
        }
        messages
    }

    /// Everything that is in the queue by now: a last message of our own marks the end.
    pub async fn rest(&mut self) -> Vec<Received> {
        let mark = BasicProperties::default().with_message_id("end-of-queue".into());
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish("".into(), self.queue.clone(), options, b"{}", mark).await;
        sent.expect("the mark is sent");
        let mut messages: Vec<Received> = self.kept.drain(..).collect();
        loop {
            let message = self.receive().await;
            if message.property(BasicProperties::message_id) == Some("end-of-queue") {
                return messages;
            }
            messages.push(message);
        }
    }

    async fn receive(&mut self) -> Received {
        let next = timeout(DEADLINE, self.consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing came to {} within {DEADLINE:?}; kept: {:#?}", self.queue, self.kept));
        Received::from(next.expect("the queue stays").expect("the channel lives"))
    }
}

/// A message as the test received it: an event, a reply or a dead letter.
#[derive(Debug, Clone)]
pub struct Received {
    pub routing_key: String,
    pub properties: BasicProperties,
    pub bytes: Vec<u8>,
    /// The body as JSON; null where it is none.
    pub json: Value,
    /// The bytes of the event's `data`, as they stood in the body.
    pub data: String,
}

impl From<Delivery> for Received {
    fn from(delivery: Delivery) -> Self {
        #[derive(serde::Deserialize)]
        struct OnlyData {
            data: Box<RawValue>,
        }
        let data = serde_json::from_slice::<OnlyData>(&delivery.data);
        let received = Self {
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            json: serde_json::from_slice(&delivery.data).unwrap_or(Value::Null),
            data: data.map(|only| only.data.get().to_owned()).unwrap_or_default(),
            bytes: delivery.data,
        };
        if received.is_result() {
            received.assert_fits_its_schema();
        }
        received
    }
}

/// The published schema of results.
static RESULT: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../../../docs/schemas/result.json")).expect("the schema is JSON");
    jsonschema::options().should_validate_formats(true).build(&schema).expect("the schema is one")
});

impl Received {
    /// Whether it tells a result, as an event or a reply; a dead letter is whatever its sender made of it.
    fn is_result(&self) -> bool {
        let kind = self.property(BasicProperties::content_type).unwrap_or_default();
        kind.starts_with("application/cloudevents+json") && !self.headers().contains_key("kf-dead-id")
    }

    #[track_caller]
    fn assert_fits_its_schema(&self) {
        let faults: Vec<String> = RESULT.iter_errors(&self.json).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        assert!(faults.is_empty(), "an event does not fit docs/schemas/result.json:\n{}\n{:#}", faults.join("\n"), self.json);
    }

    /// A field of the event's `data`; null where it isn't there.
    pub fn field(&self, name: &str) -> &Value {
        &self.json["data"][name]
    }

    pub fn command_id(&self) -> &str {
        self.field("command_id").as_str().unwrap_or_default()
    }

    pub fn status(&self) -> &str {
        self.field("status").as_str().unwrap_or_default()
    }

    pub fn effect(&self) -> &str {
        self.field("effect").as_str().unwrap_or_default()
    }

    pub fn reason(&self) -> &str {
        self.field("error")["reason"].as_str().unwrap_or_default()
    }

    pub fn attempts(&self) -> u64 {
        self.field("attempts").as_u64().unwrap_or_else(|| panic!("`attempts` is a number: {}", self.data))
    }

    /// The event's id, by which consumers drop repeats.
    pub fn event_id(&self) -> &str {
        self.json["id"].as_str().unwrap_or_default()
    }

    /// One of the AMQP properties that are text.
    pub fn property(&self, property: impl Fn(&BasicProperties) -> &Option<ShortString>) -> Option<&str> {
        property(&self.properties).as_ref().map(ShortString::as_str)
    }

    /// The headers that are text.
    pub fn headers(&self) -> BTreeMap<String, String> {
        let headers = self.properties.headers().clone().unwrap_or_default();
        let text = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        };
        headers.inner().iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
    }

    /// Fails with the whole event where it didn't succeed with this effect.
    pub fn assert_succeeded(&self, effect: &str) {
        assert_eq!((self.status(), self.effect()), ("succeeded", effect), "{}", self.data);
    }

    /// Fails with the whole event where it didn't end this way for this reason.
    pub fn assert_ended(&self, status: &str, reason: &str) {
        assert_eq!((self.status(), self.reason()), (status, reason), "{}", self.data);
    }

    /// Fails where `other` is not the very same outcome, told once more.
    pub fn assert_repeated_by(&self, other: &Self) {
        assert_eq!(self.data, other.data, "the same data, byte for byte");
        assert_eq!(self.event_id(), other.event_id(), "the same event id");
        assert_eq!(self.routing_key, other.routing_key, "the same routing key");
    }
}
