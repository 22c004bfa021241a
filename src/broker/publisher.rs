//! Publishing with confirms: a pool of channels, one message in flight on each.
//!
//! The client credits a returned message to the wrong publish when several are in flight on one channel, so there is
//! one; a channel confirms about 2,400 a second, and the pool multiplies that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{ConnectError, TIME_LIMIT, describe, within};
use crate::metrics::{EventEnd, Metrics};

/// How long an alarm of the broker is waited out. Then the session ends and what it held goes back into the queue, since
/// nothing may be held for so long that the broker takes it away.
const BLOCKED_LIMIT: Duration = Duration::from_secs(300);
/// Channels of a worker's publisher.
pub const CHANNELS: usize = 64;

/// The broker did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("publishing failed: {0}")]
    Failed(#[from] ConnectError),
    #[error("the broker refused a message (nack): a queue is full or its leader is away")]
    Refused,
    #[error("no queue took a message that must not be lost, for `{0}`")]
    Unroutable(String),
    #[error("the channel gives no confirms")]
    NoConfirms,
}

impl PublishError {
    /// The word in spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Refused => "refused",
            Self::Unroutable(_) => "unroutable",
            Self::NoConfirms => "no_confirms",
        }
    }
}

/// A message on its way out.
pub struct Outgoing<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub properties: BasicProperties,
    pub body: &'a [u8],
}

/// Whether a queue has the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Routed,
    Unroutable,
}

/// The pool.
pub struct Publisher {
    idle: Mutex<Vec<Channel>>,
    /// As many permits as channels are idle.
    permits: Semaphore,
    status: ConnectionStatus,
    metrics: Arc<Metrics>,
}

impl Publisher {
    pub async fn open(connection: &Connection, size: usize, metrics: Arc<Metrics>) -> Result<Self, ConnectError> {
        let channels = futures_util::future::try_join_all((0..size).map(|_| async {
            let channel = within(connection.create_channel()).await?;
            within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
            Ok::<_, ConnectError>(channel)
        }))
        .await?;
        Ok(Self { idle: Mutex::new(channels), permits: Semaphore::new(size), status: connection.status().clone(), metrics })
    }

    /// Publishes a result event: one that no queue takes is counted, and is no error.
    pub async fn event(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        let (exchange, routing_key) = (outgoing.exchange, outgoing.routing_key);
        let published = self.publish(outgoing, true).await;
        self.metrics.event(match &published {
            Ok(Published::Routed) => EventEnd::Confirmed,
            Ok(Published::Unroutable) => EventEnd::Returned,
            Err(PublishError::Refused) => EventEnd::Nacked,
            Err(_) => EventEnd::Unconfirmed,
        });
        if published? == Published::Unroutable {
            tracing::warn!(exchange, routing_key, "no queue takes this result event; bind one to the exchange");
        }
        Ok(())
    }

    /// Publishes a message that must reach its queue.
    pub async fn surely(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        let target = format!("{}/{}", outgoing.exchange, outgoing.routing_key);
        match self.publish(outgoing, true).await? {
            Published::Routed => Ok(()),
            Published::Unroutable => Err(PublishError::Unroutable(target)),
        }
    }

    /// Publishes a reply: where nobody takes it, or the queue that was named refuses it, that is nobody's error. The queue is
    /// the sender's choice, and must hold up no one else.
    pub async fn reply(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        match self.publish(outgoing, false).await {
            Ok(_) | Err(PublishError::Refused) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, outgoing: Outgoing<'_>, mandatory: bool) -> Result<Published, PublishError> {
        let Ok(_permit) = self.permits.acquire().await else { return Err(PublishError::NoConfirms) };
        let channel = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // There is a channel for each permit; one whose publish was given up is not put back, since its confirm is owed.
        let Some(channel) = channel else { return Err(PublishError::NoConfirms) };
        let confirmation = self.confirmed(&channel, outgoing, mandatory).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        match confirmation {
            Confirmation::Ack(None) => Ok(Published::Routed),
            Confirmation::Ack(Some(_)) => Ok(Published::Unroutable),
            Confirmation::Nack(_) => Err(PublishError::Refused),
            Confirmation::NotRequested => Err(PublishError::NoConfirms),
        }
    }

    /// Waits for the confirm, within the time limit; while the broker blocks us, for longer.
    async fn confirmed(&self, channel: &Channel, outgoing: Outgoing<'_>, mandatory: bool) -> Result<Confirmation, ConnectError> {
        let options = BasicPublishOptions { mandatory, ..Default::default() };
        let exchange = async {
            let sent =
                channel.basic_publish(outgoing.exchange.into(), outgoing.routing_key.into(), options, outgoing.body, outgoing.properties);
            sent.await?.await
        };
        tokio::pin!(exchange);
        let patient_until = Instant::now() + BLOCKED_LIMIT;
        loop {
            match tokio::time::timeout(TIME_LIMIT, &mut exchange).await {
                Ok(confirmation) => return confirmation.map_err(describe),
                Err(_) if self.status.blocked() && self.status.connected() && Instant::now() < patient_until => {}
                Err(_) => return Err(ConnectError::Unreachable(format!("the broker confirmed nothing within {} s", TIME_LIMIT.as_secs()))),
            }
        }
    }
}
