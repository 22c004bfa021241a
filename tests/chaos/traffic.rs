//! The producer and the reader of results; both live through every death of the broker.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::publication::{First, Kind, Publication, What};
use crate::rest;
use crate::support::broker::{Message, Received};

/// The queue of results; quorum, so that it survives what the worker's queues survive.
pub const RESULTS: &str = "chaos.results";
/// How long the broker may take for one thing before the connection is given up.
const TIME_LIMIT: Duration = Duration::from_secs(10);
const BEFORE_RECONNECTING: Duration = Duration::from_millis(100);

/// What was published of the plan.
#[derive(Default)]
pub struct Published {
    /// By its place in the plan; repeats are counted at their first.
    pub messages: BTreeMap<usize, (Kind, Message)>,
    /// How often each was confirmed.
    pub confirmed: BTreeMap<usize, u64>,
    /// Publications that were no first ones.
    pub repeats: u64,
    /// Publications made once more since their confirm was lost with the broker.
    pub again: u64,
}

/// Publishes the plan, or one producer's part of it, each message until the broker has confirmed it. What is repeated is the
/// same producer's.
pub async fn produce(
    url: &str,
    plan: impl IntoIterator<Item = (usize, Publication)>,
    published: &Mutex<Published>,
    stop: &CancellationToken,
) {
    let mut channel = None;
    for (place, publication) in plan {
        if !rest(publication.rest, stop).await {
            return;
        }
        let (first, message) = match publication.what {
            What::RepeatOf(first) => {
                let mut published = published.lock().expect("nobody panics here");
                published.repeats += 1;
                (first, published.messages[&first].1.clone())
            }
            What::First(first) => {
                let First { message, age, kind } = *first;
                let message = match age {
                    Some(age) => message.timestamp(now().saturating_sub(age)),
                    None => message,
                };
                // Told before it is sent: from then on it may have an outcome.
                published.lock().expect("nobody panics here").messages.insert(place, (kind, message.clone()));
                (place, message)
            }
        };
        while send(url, &mut channel, &message).await.is_err() {
            channel = None;
            published.lock().expect("nobody panics here").again += 1;
            sleep(BEFORE_RECONNECTING).await;
        }
        *published.lock().expect("nobody panics here").confirmed.entry(first).or_default() += 1;
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970").as_secs()
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Publishes once; the message must reach a queue.
async fn send(url: &str, channel: &mut Option<(Connection, Channel)>, message: &Message) -> Result<(), Broken> {
    if channel.is_none() {
        let (connection, opened) = open(url).await?;
        opened.confirm_select(ConfirmSelectOptions::default()).await?;
        *channel = Some((connection, opened));
    }
    let Some((_, channel)) = channel else { return Err("there is no channel".into()) };
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish("kf.commands".into(), message.key.as_str().into(), options, &message.body, message.properties.clone());
    match timeout(TIME_LIMIT, async { sent.await?.await }).await?? {
        Confirmation::Ack(None) => Ok(()),
        other => Err(format!("not taken: {other:?}").into()),
    }
}

async fn open(url: &str) -> Result<(Connection, Channel), Broken> {
    let connection = timeout(TIME_LIMIT, Connection::connect(url, ConnectionProperties::default())).await??;
    let channel = timeout(TIME_LIMIT, connection.create_channel()).await??;
    Ok((connection, channel))
}

/// The events that have come so far.
#[derive(Default)]
pub struct Events {
    pub all: Vec<Received>,
    /// The commands that have an outcome among them.
    pub answered: HashSet<String>,
}

/// Declares the queue of results, before the first command is published.
pub async fn declare_results(url: &str) {
    let (_connection, channel) = open(url).await.expect("the broker can be reached");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(RESULTS.into(), durable, arguments).await.expect("the queue of results is declared");
    let bound = channel.queue_bind(RESULTS.into(), "kf.events".into(), "#".into(), QueueBindOptions::default(), FieldTable::default());
    bound.await.expect("the queue of results is bound");
}

/// Reads results for ever; after a broken connection it begins again.
pub async fn collect(url: &str, events: &Mutex<Events>) {
    loop {
        // How it broke makes no difference.
        let _ = read(url, events).await;
        sleep(BEFORE_RECONNECTING).await;
    }
}

async fn read(url: &str, events: &Mutex<Events>) -> Result<(), Broken> {
    let (_connection, channel) = open(url).await?;
    let consumed = channel.basic_consume(RESULTS.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = timeout(TIME_LIMIT, consumed).await??;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let acker = delivery.acker.clone();
        let received = Received::from(delivery);
        {
            let mut events = events.lock().expect("nobody panics here");
            if is_outcome(&received) {
                events.answered.insert(received.command_id().to_owned());
            }
            events.all.push(received);
        }
        acker.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// Not the answer to an id that was used again.
pub fn is_outcome(event: &Received) -> bool {
    !event.event_id().contains("/reused/")
}

/// How many messages wait in each of these queues.
pub async fn waiting(url: &str, queues: &[impl AsRef<str>]) -> Option<BTreeMap<String, u32>> {
    let (_connection, channel) = open(url).await.ok()?;
    let mut counts = BTreeMap::new();
    for queue in queues {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = queue.as_ref();
        let asked = timeout(TIME_LIMIT, channel.queue_declare(queue.into(), passive, FieldTable::default())).await;
        counts.insert(queue.to_owned(), asked.ok()?.ok()?.message_count());
    }
    Some(counts)
}

/// Takes everything out of a queue.
pub async fn empty(url: &str, queue: &str) -> Vec<Received> {
    let (_connection, channel) = open(url).await.expect("the broker can be reached");
    let mut messages = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("the queue can be read") {
        messages.push(Received::from(message.delivery));
    }
    messages
}
