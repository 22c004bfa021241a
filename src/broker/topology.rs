//! The exchanges and queues of the contract, each argument with its why; declared, checked, or left alone.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ExchangeKind};
use tokio::time::Instant;

use super::names::Names;
use super::{ConnectError, Settings, request};

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

/// How long a worker waits for the owner's queue of one that has died a moment ago: the broker needs a while to notice.
const OWNER_PATIENCE: Duration = Duration::from_secs(5);

/// A queue that keeps everything: the limit of returns is one that no healthy system reaches. Without it a queue of
/// RabbitMQ 4 drops, or dead-letters, what came back 20 times; -1 means "no limit" to 4.x only, and to 3.10 "none at all".
const DELIVERY_LIMIT: i32 = 1_000_000;

/// The share of the keys that each partition gets: the same for all.
const WEIGHT: &str = "1";

/// Brings the broker to the topology, or sees that it is there.
pub async fn prepare(connection: &Connection, settings: &Settings, names: &Names) -> Result<(), ConnectError> {
    if settings.topology == Topology::None {
        return Ok(());
    }
    let parking = request::exchange_exists(connection, &names.parking()).await?;
    check_number(connection, settings.partitions, names, parking).await?;
    let passive = settings.topology == Topology::Check;
    for name in [names.commands(), names.events()] {
        request::exchange(connection, &name, ExchangeKind::Topic, passive).await?;
    }
    request::queue(connection, &names.dead(), quorum(), passive).await?;
    for (delay, time) in &settings.defer {
        // A fanout before each deferred queue: through the default exchange a message would come back with the queue's
        // name as its routing key, and the account's would be lost.
        let name = names.deferred(delay);
        request::exchange(connection, &name, ExchangeKind::Fanout, passive).await?;
        request::queue(connection, &name, deferred(names, *time), passive).await?;
        if !passive {
            request::bind_queue(connection, &name, &name, "#").await?;
        }
    }
    // While commands are parked a route to the queues would undo the parking.
    if passive || parking {
        return check_partitions(connection, settings.partitions, names).await;
    }
    declare_partitions(connection, settings.partitions, names).await?;
    route_to_partitions(connection, settings.partitions, names).await
}

/// Refuses another number of partitions than the queues are made for: commands would be left where nobody takes them,
/// and those of one account would be in two queues.
pub async fn check_number(connection: &Connection, told: u16, names: &Names, parking: bool) -> Result<(), ConnectError> {
    let exists = async |name: String| Ok::<_, ConnectError>(request::look(connection, &name).await?.map(|_| name));
    let stray = match told {
        1 => exists(names.partition(0)).await?,
        _ => match exists(names.commands()).await? {
            None => exists(names.partition(told)).await?,
            found => found,
        },
    };
    if let Some(found) = stray {
        return Err(ConnectError::OtherPartitions { told, found: format!("the queue `{found}` exists") });
    }
    let last = names.command_queues(told).pop().unwrap_or_default();
    // The exchange is declared last: where it is missing, declaring was interrupted, and is taken up again.
    let complete = parking || (told > 1 && request::exchange_exists(connection, &names.partitions()).await?);
    if complete && exists(last.clone()).await?.is_none() {
        return Err(ConnectError::OtherPartitions { told, found: format!("the queue `{last}` does not exist") });
    }
    Ok(())
}

async fn check_partitions(connection: &Connection, partitions: u16, names: &Names) -> Result<(), ConnectError> {
    for name in names.command_queues(partitions) {
        request::queue(connection, &name, FieldTable::default(), true).await?;
    }
    if partitions > 1 {
        request::exchange(connection, &names.partitions(), hashing(), true).await?;
    }
    Ok(())
}

/// The queues, and what spreads commands over them. Nothing comes to them yet.
pub async fn declare_partitions(connection: &Connection, partitions: u16, names: &Names) -> Result<(), ConnectError> {
    let queues = names.command_queues(partitions);
    for name in &queues {
        request::queue(connection, name, commands(names), false).await?;
    }
    if partitions > 1 {
        declare_spreading(connection, names).await?;
        for name in &queues {
            request::bind_queue(connection, name, &names.partitions(), WEIGHT).await?;
        }
    }
    Ok(())
}

/// The exchange that spreads the commands.
pub async fn declare_spreading(connection: &Connection, names: &Names) -> Result<(), ConnectError> {
    request::exchange(connection, &names.partitions(), hashing(), false).await
}

/// Lets the commands come to their partitions.
pub async fn route_to_partitions(connection: &Connection, partitions: u16, names: &Names) -> Result<(), ConnectError> {
    match partitions {
        1 => request::bind_queue(connection, &names.commands(), &names.commands(), "#").await,
        _ => request::bind_exchange(connection, &names.partitions(), &names.commands()).await,
    }
}

/// By the routing key, which is the account: all commands of one account are in one partition.
fn hashing() -> ExchangeKind {
    ExchangeKind::Custom("x-consistent-hash".to_owned())
}

/// What every queue of commands is declared with.
pub fn commands(names: &Names) -> FieldTable {
    let mut arguments = quorum();
    // One worker consumes at a time: that is what keeps the order of acceptance.
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    dead_letter_to(&mut arguments, "");
    arguments.insert("x-dead-letter-routing-key".into(), text(&names.dead()));
    arguments
}

fn deferred(names: &Names, delay: Duration) -> FieldTable {
    let mut arguments = quorum();
    // The queue's own TTL keeps the order; one for each message would be looked at only at the queue's head.
    let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
    // Back with the routing key that it came with.
    dead_letter_to(&mut arguments, &names.commands());
    arguments
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

/// Sees that no worker with a ledger in a file is connected: it could not know of this one's.
pub async fn no_sqlite_owner(connection: &Connection, names: &Names) -> Result<(), ConnectError> {
    match request::look(connection, &names.sqlite_owner()).await {
        Err(error) if error.is_locked() => Err(ConnectError::OwnedByAnother(names.sqlite_owner())),
        // Whoever may not look goes without.
        _ => Ok(()),
    }
}

/// Takes the queue that only one worker with a SQLite ledger can hold: it is gone with the connection.
pub async fn own_sqlite(connection: &Connection, names: &Names) -> Result<(), ConnectError> {
    let name = names.sqlite_owner();
    let patient_until = Instant::now() + OWNER_PATIENCE;
    while !request::own(connection, &name).await? {
        if Instant::now() >= patient_until {
            return Err(ConnectError::OwnedByAnother(name));
        }
        tokio::time::sleep(OWNER_PATIENCE / 20).await;
    }
    Ok(())
}
