//! Publishing with confirms: results on a few channels with many in flight, copies that must reach their queue one by one.
//!
//! The client credits a returned message to the wrong publish when several are in flight on one channel. A copy that no queue
//! takes must be known as that one, so it has a channel for itself meanwhile; a channel confirms about 2,400 a second then.
//! Results are counted only, and there the broker confirms, and writes, many at once.

mod exclusive;
mod shared;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus};
use tokio::time::Instant;

use super::{ConnectError, TIME_LIMIT, describe, within};
use crate::metrics::{EventEnd, Metrics};
pub use exclusive::Exclusive;
use shared::Shared;

/// How long an alarm of the broker is waited out. Then the session ends and what it held goes back into the queue, since
/// nothing may be held for so long that the broker takes it away.
const BLOCKED_LIMIT: Duration = Duration::from_secs(300);
/// Channels for results. With more of them the broker confirms fewer at once.
const RESULTS: usize = 4;
/// Channels for copies.
const COPIES: usize = 8;

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

/// A worker's channels.
pub struct Publisher {
    results: Shared,
    copies: Exclusive,
    metrics: Arc<Metrics>,
}

impl Publisher {
    pub async fn open(results: &Connection, copies: &Connection, metrics: Arc<Metrics>) -> Result<Self, ConnectError> {
        let (results, copies) = (Shared::open(results, RESULTS).await?, Exclusive::open(copies, COPIES).await?);
        Ok(Self { results, copies, metrics })
    }

    /// Publishes a result event: one that no queue takes is counted, and is no error.
    pub async fn event(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        let published = self.results.publish(outgoing, true).await;
        if let Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) = &published {
            // Not always this one, but one of them, each once.
            let (exchange, routing_key) = (returned.delivery.exchange.as_str(), returned.delivery.routing_key.as_str());
            tracing::warn!(exchange, routing_key, "no queue takes this result event; bind one to the exchange");
        }
        self.metrics.event(match &published {
            Ok(Confirmation::Ack(None)) => EventEnd::Confirmed,
            Ok(Confirmation::Ack(Some(_))) => EventEnd::Returned,
            Ok(Confirmation::Nack(_)) => EventEnd::Nacked,
            Ok(Confirmation::NotRequested) | Err(_) => EventEnd::Unconfirmed,
        });
        taken(&published?)
    }

    /// Publishes a copy that must reach its queue.
    pub async fn surely(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        self.copies.surely(outgoing).await
    }

    /// Publishes a reply: where nobody takes it, or the queue that was named refuses it, that is nobody's error. The queue is
    /// the sender's choice, and must hold up no one else.
    pub async fn reply(&self, outgoing: Outgoing<'_>) -> Result<(), PublishError> {
        match taken(&self.results.publish(outgoing, false).await?) {
            Ok(()) | Err(PublishError::Refused) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Channels that confirm.
async fn open(connection: &Connection, channels: usize) -> Result<Vec<Channel>, ConnectError> {
    let channel = async || {
        let channel = within(connection.create_channel()).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok::<_, ConnectError>(channel)
    };
    futures_util::future::try_join_all((0..channels).map(|_| channel())).await
}

/// Whether the broker took a message, routed or not.
fn taken(confirmation: &Confirmation) -> Result<(), PublishError> {
    match confirmation {
        Confirmation::Ack(_) => Ok(()),
        Confirmation::Nack(_) => Err(PublishError::Refused),
        Confirmation::NotRequested => Err(PublishError::NoConfirms),
    }
}

/// Waits for the confirm, within the time limit; while the broker blocks us, for longer.
async fn in_time(
    status: &ConnectionStatus,
    mut confirmed: Pin<&mut impl Future<Output = lapin::Result<Confirmation>>>,
) -> Result<Confirmation, ConnectError> {
    let patient_until = Instant::now() + BLOCKED_LIMIT;
    loop {
        match tokio::time::timeout(TIME_LIMIT, confirmed.as_mut()).await {
            Ok(confirmation) => return confirmation.map_err(describe),
            Err(_) if status.blocked() && status.connected() && Instant::now() < patient_until => {}
            Err(_) => return Err(ConnectError::Unreachable(format!("the broker confirmed nothing within {} s", TIME_LIMIT.as_secs()))),
        }
    }
}
