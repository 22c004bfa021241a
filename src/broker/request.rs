//! Declaring, asking and deleting, each on a channel of its own, since the broker closes the channel of what it refuses.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};

use super::{ConnectError, within};

/// What the broker says of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    /// That wait for a consumer. What a consumer holds is not counted.
    pub messages: u32,
    /// The first in line, and those that have left it and still hold messages; not those who stand behind.
    pub consumers: u32,
}

/// Declares an exchange, or sees that it is there.
pub async fn exchange(connection: &Connection, name: &str, kind: ExchangeKind, passive: bool) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
    let declared = within(channel.exchange_declare(name.into(), kind, options, FieldTable::default())).await;
    declared.map_err(|error| error.about(format!("exchange `{name}`")))?;
    close(&channel).await;
    Ok(())
}

/// Declares a queue, or sees that it is there.
pub async fn queue(connection: &Connection, name: &str, arguments: FieldTable, passive: bool) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
    let declared = within(channel.queue_declare(name.into(), options, arguments)).await;
    declared.map_err(|error| error.about(format!("queue `{name}`")))?;
    close(&channel).await;
    Ok(())
}

/// Whether there is an exchange of this name.
pub async fn exchange_exists(connection: &Connection, name: &str) -> Result<bool, ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let asked = within(channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default())).await;
    Ok(unless_missing(&channel, asked, format!("exchange `{name}`")).await?.is_some())
}

/// What a queue holds; nothing where there is no such queue.
pub async fn look(connection: &Connection, name: &str) -> Result<Option<Holds>, ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asked = within(channel.queue_declare(name.into(), options, FieldTable::default())).await;
    let queue = unless_missing(&channel, asked, format!("queue `{name}`")).await?;
    Ok(queue.map(|queue| Holds { messages: queue.message_count(), consumers: queue.consumer_count() }))
}

/// Routes what comes to an exchange to a queue.
pub async fn bind_queue(connection: &Connection, queue: &str, exchange: &str, key: &str) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), FieldTable::default());
    within(bound).await.map_err(|error| error.about(format!("queue `{queue}`")))?;
    close(&channel).await;
    Ok(())
}

/// Routes whatever comes to one exchange to another.
pub async fn bind_exchange(connection: &Connection, target: &str, source: &str) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = ExchangeBindOptions::default();
    let bound = within(channel.exchange_bind(target.into(), source.into(), "#".into(), options, FieldTable::default())).await;
    bound.map_err(|error| error.about(format!("exchange `{target}`")))?;
    close(&channel).await;
    Ok(())
}

/// The opposite of [`bind_queue`] with `#`; what isn't there is done.
pub async fn unbind_queue(connection: &Connection, queue: &str, exchange: &str) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let unbound = within(channel.queue_unbind(queue.into(), exchange.into(), "#".into(), FieldTable::default())).await;
    unless_missing(&channel, unbound, format!("queue `{queue}`")).await.map(drop)
}

/// The opposite of [`bind_exchange`]; what isn't there is done.
pub async fn unbind_exchange(connection: &Connection, target: &str, source: &str) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = ExchangeUnbindOptions::default();
    let unbound = within(channel.exchange_unbind(target.into(), source.into(), "#".into(), options, FieldTable::default())).await;
    unless_missing(&channel, unbound, format!("exchange `{target}`")).await.map(drop)
}

/// Deletes a queue with all that it holds; one that isn't there is done.
pub async fn delete_queue(connection: &Connection, name: &str) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    // RabbitMQ refuses `if_empty` and `if_unused` for quorum queues by closing the connection: callers have looked.
    let deleted = within(channel.queue_delete(name.into(), QueueDeleteOptions::default())).await;
    unless_missing(&channel, deleted, format!("queue `{name}`")).await.map(drop)
}

/// Deletes an exchange with its bindings; one that isn't there is done.
pub async fn delete_exchange(connection: &Connection, name: &str) -> Result<(), ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let deleted = within(channel.exchange_delete(name.into(), ExchangeDeleteOptions::default())).await;
    unless_missing(&channel, deleted, format!("exchange `{name}`")).await.map(drop)
}

/// Takes the queue that only one connection can hold, and with which it is gone. `false` where another one has it.
pub async fn own(connection: &Connection, name: &str) -> Result<bool, ConnectError> {
    let channel = within(connection.create_channel()).await?;
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    match within(channel.queue_declare(name.into(), options, FieldTable::default())).await {
        Ok(_) => {
            close(&channel).await;
            Ok(true)
        }
        Err(error) if error.is_locked() => Ok(false),
        Err(error) => Err(error.about(format!("queue `{name}`"))),
    }
}

/// The broker has closed the channel where something was missing; else it is closed here.
async fn unless_missing<T>(channel: &Channel, asked: Result<T, ConnectError>, what: String) -> Result<Option<T>, ConnectError> {
    match asked {
        Ok(answer) => {
            close(channel).await;
            Ok(Some(answer))
        }
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.about(what)),
    }
}

async fn close(channel: &Channel) {
    // It held nothing; where closing fails the connection is gone, and the next call says so.
    let _ = within(channel.close(200, "done".into())).await;
}
