//! A producer's side: sends commands to the exchange, each confirmed and routed, and takes the replies to them.

use futures_util::StreamExt as _;
use jiff::Timestamp;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, Consumer};

use super::delivery::PERSISTENT;
use super::names::Names;
use super::publisher::{Exclusive, Outgoing};
use super::session::connect;
use super::{ConnectError, PublishError, Settings, within};

/// A connection that sends commands.
pub struct Producer {
    connection: Connection,
    publisher: Exclusive,
    names: Names,
    /// As whom; the broker validates it, and the worker's `[[publisher]]` rules go by it.
    user: Option<String>,
    /// Where replies are wanted.
    reply_to: Option<String>,
}

/// A command on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    pub command_id: &'a str,
    pub kf_account: &'a str,
    /// The command as JSON.
    pub body: &'a [u8],
}

/// The replies to what a producer sends, for as long as its connection lives.
pub struct Replies(Consumer);

impl Producer {
    /// Connects, with so many channels, each of which has one command in flight.
    ///
    /// # Errors
    /// Where the broker can't be reached, or refuses.
    pub async fn open(settings: &Settings, channels: usize) -> Result<Self, ConnectError> {
        let connection = connect(settings, "kf-worker send").await?;
        let publisher = Exclusive::open(&connection, channels).await?;
        let user = settings.url.user().map(str::to_owned);
        Ok(Self { connection, publisher, names: Names::new(&settings.prefix), user, reply_to: None })
    }

    /// Asks for a reply to all that is sent from now on: in a queue that is gone with this connection.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn take_replies(&mut self) -> Result<Replies, ConnectError> {
        let queue = self.names.replies(rand::random());
        let about = |error: ConnectError| error.about(format!("queue `{queue}`"));
        let channel = within(self.connection.create_channel()).await?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        within(channel.queue_declare(queue.as_str().into(), exclusive, FieldTable::default())).await.map_err(about)?;
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..Default::default() };
        let consumer = within(channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())).await;
        let consumer = consumer.map_err(about)?;
        self.reply_to = Some(queue);
        Ok(Replies(consumer))
    }

    /// Sends a command and waits until the broker has it in a queue.
    ///
    /// # Errors
    /// Where the broker has not confirmed; it may have the command all the same, so it is sent again under the same id.
    pub async fn send(&self, sending: Sending<'_>) -> Result<(), PublishError> {
        let exchange = self.names.commands();
        let outgoing =
            Outgoing { exchange: &exchange, routing_key: sending.kf_account, properties: self.properties(&sending), body: sending.body };
        self.publisher.surely(outgoing).await.map_err(|error| match error {
            PublishError::Failed(error) => PublishError::Failed(error.about_sending(&exchange)),
            other => other,
        })
    }

    /// Whether the broker takes nothing for now, since it is short of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Ends the connection.
    pub async fn close(&self) {
        // All was confirmed; where closing fails there is nothing left to close.
        let _ = within(self.connection.close(200, "bye".into())).await;
    }

    fn properties(&self, sending: &Sending<'_>) -> BasicProperties {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(sending.command_id.into())
            .with_timestamp(Timestamp::now().as_second().try_into().unwrap_or_default())
            .with_app_id("kf-worker send".into());
        if let Some(user) = &self.user {
            properties = properties.with_user_id(user.as_str().into());
        }
        match &self.reply_to {
            Some(queue) => properties.with_reply_to(queue.as_str().into()).with_correlation_id(sending.command_id.into()),
            None => properties,
        }
    }
}

impl Replies {
    /// The body of the next one; `None` when the connection is lost, and with it what would have come.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        Some(self.0.next().await?.ok()?.data)
    }
}
