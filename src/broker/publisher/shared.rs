//! Channels with any number of messages in flight, which the broker confirms many at once.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Connection, ConnectionStatus};

use super::{ConnectError, Outgoing, in_time, open};

/// Such channels, taken in turn.
pub struct Shared {
    channels: Vec<InOrder>,
    turn: AtomicUsize,
    status: ConnectionStatus,
}

/// A channel whose messages are numbered in the order in which they are sent.
struct InOrder {
    channel: Channel,
    /// The client numbers a message and queues its frames in one poll, and without this another's could come in between: each
    /// would be taken for confirmed by the confirm of the other.
    sending: Mutex<()>,
}

impl Shared {
    pub async fn open(connection: &Connection, channels: usize) -> Result<Self, ConnectError> {
        let channels = open(connection, channels).await?.into_iter().map(|channel| InOrder { channel, sending: Mutex::default() });
        Ok(Self { channels: channels.collect(), turn: AtomicUsize::new(0), status: connection.status().clone() })
    }

    /// Publishes a message. A returned one that comes with its confirm may be another one of the same channel.
    pub async fn publish(&self, outgoing: Outgoing<'_>, mandatory: bool) -> Result<Confirmation, ConnectError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        in_time(&self.status, pin!(self.channels[turn % self.channels.len()].publish(outgoing, mandatory))).await
    }
}

impl InOrder {
    async fn publish(&self, outgoing: Outgoing<'_>, mandatory: bool) -> lapin::Result<Confirmation> {
        let Outgoing { exchange, routing_key, properties, body } = outgoing;
        let options = BasicPublishOptions { mandatory, ..Default::default() };
        let mut sent = pin!(self.channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties));
        let sent = std::future::poll_fn(|context| {
            let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
            sent.as_mut().poll(context)
        });
        sent.await?.await
    }
}
