//! The exchanges and queues of the contract, each argument with its why; declared, checked, or left alone.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use tokio::time::Instant;

use super::{ConnectError, within};

/// What is done about the topology at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Declare everything; what exists must be the same.
    Declare,
    /// Only see that everything is there.
    Check,
    /// Neither, where permissions allow neither.
    None,
}

/// The names under one prefix.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The exchange that producers publish to, and the queue that the worker consumes.
    pub fn commands(&self) -> String {
        format!("{}.commands", self.prefix)
    }

    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The exchange, and the queue, of one delay; the delay is spelled as configured.
    pub fn deferred(&self, delay: &str) -> String {
        format!("{}.deferred.{delay}", self.prefix)
    }

    pub fn sqlite_owner(&self) -> String {
        format!("{}.sqlite-owner", self.prefix)
    }

    /// Whether a queue name is one of ours, which no reply may go to.
    pub fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// How long a worker waits for the owner's queue of one that has died a moment ago: the broker needs a while to notice.
const OWNER_PATIENCE: Duration = Duration::from_secs(5);

/// A queue that keeps everything: the limit of returns is one that no healthy system reaches. Without it a queue of
/// RabbitMQ 4 drops, or dead-letters, what came back 20 times; -1 means "no limit" to 4.x only, and to 3.10 "none at all".
const DELIVERY_LIMIT: i32 = 1_000_000;

struct Queue {
    name: String,
    arguments: FieldTable,
    /// The exchange that it is bound to, with `#`.
    bound_to: Option<String>,
}

struct Exchange {
    name: String,
    kind: ExchangeKind,
}

fn exchanges(names: &Names, defer: &[(String, Duration)]) -> Vec<Exchange> {
    let topic = |name| Exchange { name, kind: ExchangeKind::Topic };
    // A fanout before each deferred queue: through the default exchange a message would come back with the queue's name
    // as its routing key, and the account's would be lost.
    let fanout = |(delay, _): &(String, Duration)| Exchange { name: names.deferred(delay), kind: ExchangeKind::Fanout };
    [topic(names.commands()), topic(names.events())].into_iter().chain(defer.iter().map(fanout)).collect()
}

fn queues(names: &Names, defer: &[(String, Duration)]) -> Vec<Queue> {
    let mut commands = quorum();
    // One worker consumes at a time: that is what keeps the order of acceptance.
    commands.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    dead_letter_to(&mut commands, "");
    commands.insert("x-dead-letter-routing-key".into(), text(&names.dead()));
    let commands = Queue { name: names.commands(), arguments: commands, bound_to: Some(names.commands()) };
    let dead = Queue { name: names.dead(), arguments: quorum(), bound_to: None };
    let deferred = defer.iter().map(|(name, delay)| {
        let mut arguments = quorum();
        // The queue's own TTL keeps the order; one for each message would be looked at only at the queue's head.
        let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
        // Back with the routing key that it came with.
        dead_letter_to(&mut arguments, &names.commands());
        Queue { name: names.deferred(name), arguments, bound_to: Some(names.deferred(name)) }
    });
    [commands, dead].into_iter().chain(deferred).collect()
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    arguments
}

/// At-least-once: the queue keeps a message until the other side has confirmed it. It needs `reject-publish`, else
/// RabbitMQ falls back to at-most-once without a word.
fn dead_letter_to(arguments: &mut FieldTable, exchange: &str) {
    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Brings the broker to the topology, or sees that it is there.
pub async fn prepare(connection: &Connection, topology: Topology, names: &Names, defer: &[(String, Duration)]) -> Result<(), ConnectError> {
    if topology == Topology::None {
        return Ok(());
    }
    let passive = topology == Topology::Check;
    for exchange in exchanges(names, defer) {
        let channel = within(connection.create_channel()).await?;
        let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
        let declared = within(channel.exchange_declare(exchange.name.as_str().into(), exchange.kind, options, FieldTable::default())).await;
        declared.map_err(|error| error.about(format!("exchange `{}`", exchange.name)))?;
        close(&channel).await;
    }
    for queue in queues(names, defer) {
        let channel = within(connection.create_channel()).await?;
        let about = |error: ConnectError| error.about(format!("queue `{}`", queue.name));
        let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
        within(channel.queue_declare(queue.name.as_str().into(), options, queue.arguments.clone())).await.map_err(about)?;
        if let Some(exchange) = queue.bound_to.as_deref().filter(|_| !passive) {
            let bound = channel.queue_bind(
                queue.name.as_str().into(),
                exchange.into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            within(bound).await.map_err(about)?;
        }
        close(&channel).await;
    }
    Ok(())
}

/// Takes the queue that only one worker with a SQLite ledger can hold: it is gone with the connection.
pub async fn own_sqlite(connection: &Connection, names: &Names) -> Result<(), ConnectError> {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let name = names.sqlite_owner();
    let patient_until = Instant::now() + OWNER_PATIENCE;
    loop {
        // Being refused closes the channel, so each try has its own.
        let channel = within(connection.create_channel()).await?;
        match within(channel.queue_declare(name.as_str().into(), options, FieldTable::default())).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_locked() && Instant::now() < patient_until => tokio::time::sleep(OWNER_PATIENCE / 20).await,
            Err(error) if error.is_locked() => return Err(ConnectError::OwnedByAnother(name)),
            Err(error) => return Err(error.about(format!("queue `{name}`"))),
        }
    }
}

async fn close(channel: &Channel) {
    // It held nothing; where closing fails the connection is gone, and the next call says so.
    let _ = within(channel.close(200, "done".into())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_under_the_prefix() {
        let names = Names::new("kf");
        assert_eq!(names.deferred("10m"), "kf.deferred.10m");
        assert!(names.owns("kf.dead") && !names.owns("kfx.dead") && !names.owns("kf") && !names.owns("amq.gen-1"));
    }
}
