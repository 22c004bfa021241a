//! Channels with one message in flight on each, so that it is known which one was returned.

use std::sync::{Mutex, PoisonError};

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Connection, ConnectionStatus};
use tokio::sync::Semaphore;

use super::{ConnectError, Outgoing, PublishError, in_time, open, taken};

/// A pool of such channels.
pub struct Exclusive {
    idle: Mutex<Vec<Channel>>,
    /// As many permits as channels are idle.
    permits: Semaphore,
    status: ConnectionStatus,
}

impl Exclusive {
    pub async fn open(connection: &Connection, channels: usize) -> Result<Self, ConnectError> {
        let idle = Mutex::new(open(connection, channels).await?);
        Ok(Self { idle, permits: Semaphore::new(channels), status: connection.status().clone() })
    }

    /// Publishes a message that must reach its queue.
    pub async fn surely(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        let Ok(_permit) = self.permits.acquire().await else { return Err(PublishError::NoConfirms) };
        let channel = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // There is a channel for each permit; one whose publish was given up is not put back, since its confirm is owed.
        let Some(channel) = channel else { return Err(PublishError::NoConfirms) };
        let Outgoing { exchange, routing_key, properties, body } = outgoing;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirmed = async { channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?.await };
        let confirmation = in_time(&self.status, Box::pin(confirmed).as_mut()).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        match confirmation {
            Confirmation::Ack(Some(_)) => Err(PublishError::Unroutable(format!("{exchange}/{routing_key}"))),
            confirmation => taken(&confirmation),
        }
    }
}
