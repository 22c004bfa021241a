//! What there is to do: a backlog published fast, and how fast the queues alone give their messages.

use std::ops::Range;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::OFFICIAL_ACCOUNTS;
use crate::support::DEADLINE;
use crate::support::broker::{Broker, Message};
use crate::support::stage::{add, delete};

/// Connections that publish at the same time, each for its own kf accounts.
const PUBLISHERS: usize = 4;
/// Messages sent before their confirms are waited for.
const UNCONFIRMED: usize = 500;
/// WeChat gives an Official Account room for 100; some of it stays free.
pub const KF_ACCOUNTS: usize = OFFICIAL_ACCOUNTS.len() * 90;
/// What a worker takes from one queue at once.
const PREFETCH: u16 = 256;

/// The command of this number. The kf accounts take turns, and each is added and deleted in turn.
pub fn command(number: usize) -> Value {
    let (round, account) = (number / KF_ACCOUNTS, number % KF_ACCOUNTS);
    let kf_account = format!("kf{}@{}", account / OFFICIAL_ACCOUNTS.len(), OFFICIAL_ACCOUNTS[account % OFFICIAL_ACCOUNTS.len()]);
    match round.is_multiple_of(2) {
        true => add(&format!("c-{number}"), &kf_account, "客服"),
        false => delete(&format!("c-{number}"), &kf_account),
    }
}

/// Publishes the commands of these numbers; gives how many a second that were.
pub async fn publish(url: &str, prefix: &str, commands: Range<usize>) -> f64 {
    let count = commands.len();
    let publishers: Vec<Broker> = join_all((0..PUBLISHERS).map(|_| Broker::connect(url, prefix.to_owned()))).await;
    let began = Instant::now();
    join_all(publishers.iter().enumerate().map(async |(own, broker)| {
        // The kf accounts are shared among them, so that the commands of each stay in order.
        let numbers: Vec<usize> = commands.clone().filter(|number| number % KF_ACCOUNTS % PUBLISHERS == own).collect();
        for some in numbers.chunks(UNCONFIRMED) {
            broker.publish_all(some.iter().map(|number| Message::json(&command(*number)))).await;
        }
    }))
    .await;
    count as f64 / began.elapsed().as_secs_f64()
}

/// Somewhere for the events to go: a queue that keeps only the latest.
pub async fn take_events(broker: &Broker) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1_000));
    let channel = broker.channel().await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), exclusive, arguments).await.expect("a queue").name().clone();
    let bound = channel.queue_bind(queue, broker.name("events"), "#".into(), QueueBindOptions::default(), FieldTable::default());
    bound.await.expect("the queue is bound");
}

/// Takes so many messages of each of these queues in turn, acknowledging one by one, and does nothing with them; gives how
/// many a second that were.
pub async fn drain(url: &str, queues: &[String], count: usize) -> f64 {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker can be reached");
    let began = Instant::now();
    let took = join_all(queues.iter().map(async |queue| {
        let channel = connection.create_channel().await.expect("a channel opens");
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("the prefetch is taken");
        let consumer = channel.basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
        let mut consumer = consumer.expect("the queue can be read");
        for _ in 0..count {
            let delivery = timeout(DEADLINE, consumer.next()).await.expect("a message comes").expect("the queue stays");
            delivery.expect("the channel lives").acker.ack(BasicAckOptions::default()).await.expect("it is acknowledged");
        }
    }));
    took.await;
    let time = began.elapsed().max(Duration::from_millis(1));
    connection.close(200, "drained".into()).await.ok();
    (count * queues.len()) as f64 / time.as_secs_f64()
}
