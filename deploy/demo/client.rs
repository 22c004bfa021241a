//! A producer and consumer as any user of the worker would write one: publishes commands, reads results.

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::Value;

use crate::stage::Result;

pub struct Client {
    channel: Channel,
    results: Consumer,
    prefix: String,
    /// The channel lives as long as its connection.
    _connection: Connection,
}

impl Client {
    /// Binds a queue of its own to all results; it is gone with the connection.
    pub async fn connect(url: &str, prefix: &str) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
        let events = format!("{prefix}.events").into();
        channel.queue_bind(queue.clone(), events, "#".into(), QueueBindOptions::default(), FieldTable::default()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let results = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
        Ok(Self { channel, results, prefix: prefix.to_owned(), _connection: connection })
    }

    /// Publishes a command as producers should: persistent, confirmed, the account as routing key.
    pub async fn send(&self, command_id: &str, kf_account: &str, body: &str) -> Result<()> {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(command_id.into());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let exchange = format!("{}.commands", self.prefix).into();
        match self.channel.basic_publish(exchange, kf_account.into(), options, body.as_bytes(), properties).await?.await? {
            Confirmation::Ack(None) => Ok(()),
            other => Err(format!("the broker did not take the command: {other:?}").into()),
        }
    }

    /// The next result of this command.
    pub async fn result_of(&mut self, command_id: &str) -> Result<Value> {
        while let Some(delivery) = self.results.next().await {
            let delivery = delivery?;
            let correlation_id = delivery.properties.correlation_id().as_ref();
            if correlation_id.is_some_and(|id| id.as_str() == command_id) {
                return Ok(serde_json::from_slice(&delivery.data)?);
            }
        }
        Err("the broker ended the subscription".into())
    }

    /// How many messages wait for a person.
    pub async fn dead_letters(&self) -> Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.channel.queue_declare(format!("{}.dead", self.prefix).into(), options, FieldTable::default()).await?;
        Ok(queue.message_count())
    }
}

/// Removes what the worker declared under a prefix that was only the demo's.
pub async fn remove_topology(url: &str, prefix: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for name in ["commands", "dead", "events", "deferred.1m", "deferred.10m", "deferred.1h"] {
        let name = format!("{prefix}.{name}");
        // RabbitMQ takes the removal of what isn't there for done.
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
        channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
