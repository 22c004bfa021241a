//! What a user tries at the broker, each time on a channel of its own, and what the broker answers.

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ErrorKind, ExchangeKind};
use tokio::time::timeout;

use crate::support::DEADLINE;

/// One request to the broker.
#[derive(Debug, Clone, Copy)]
pub enum Tried<'a> {
    /// To an exchange, with this routing key; confirmed.
    Publish(&'a str, &'a str),
    /// A command for `anna@test`, with this property `user_id`.
    SendAs(&'a str),
    Get(&'a str),
    Consume(&'a str),
    Purge(&'a str),
    Delete(&'a str),
    DeclareQueue(&'a str),
    /// One that goes with the connection.
    DeclareOwnQueue(&'a str),
    DeclareExchange(&'a str),
    /// A queue, to an exchange.
    Bind(&'a str, &'a str),
    /// A queue, from an exchange.
    Unbind(&'a str, &'a str),
}

/// Why the broker closed the channel: AMQP's code and the broker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub u16, pub String);

impl Refusal {
    /// Reads what the broker said from an error of the client.
    #[track_caller]
    pub fn of(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(error) => Self(error.get_id(), without_the_right(error.get_message().as_str())),
            _ => panic!("the broker has not refused, but: {error:?}"),
        }
    }

    /// The words for want of a right, as the broker puts them.
    pub fn access(what: &str, vhost: &str, user: &str) -> Self {
        Self(403, format!("ACCESS_REFUSED - access to {what} in vhost '{vhost}' refused for user '{user}'"))
    }
}

/// RabbitMQ 4 says which right is missing, and 3 doesn't.
fn without_the_right(text: &str) -> String {
    ["configure", "write", "read"].iter().fold(text.to_owned(), |text, right| text.replace(&format!("- {right} access to"), "- access to"))
}

impl Tried<'_> {
    /// Tries it.
    pub async fn by(self, connection: &Connection) -> Result<(), Refusal> {
        let channel = connection.create_channel().await.expect("a channel opens");
        let answer = timeout(DEADLINE, self.on(&channel)).await.unwrap_or_else(|_| panic!("no answer to {self:?}"));
        if answer.is_ok() {
            channel.close(200, "tried".into()).await.unwrap_or_else(|error| panic!("{self:?} was taken, and then: {error}"));
        }
        answer.map_err(|error| Refusal::of(&error))
    }

    async fn on(self, channel: &Channel) -> lapin::Result<()> {
        let none = FieldTable::default();
        match self {
            Self::Publish(exchange, key) => publish(channel, exchange, key, BasicProperties::default()).await,
            Self::SendAs(user) => publish(channel, "kf.commands", "anna@test", BasicProperties::default().with_user_id(user.into())).await,
            Self::Get(queue) => channel.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop),
            Self::Consume(queue) => channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), none).await.map(drop),
            Self::Purge(queue) => channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.map(drop),
            Self::Delete(queue) => channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop),
            Self::DeclareQueue(queue) => channel.queue_declare(queue.into(), QueueDeclareOptions::default(), none).await.map(drop),
            Self::DeclareOwnQueue(queue) => {
                let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(queue.into(), exclusive, none).await.map(drop)
            }
            Self::DeclareExchange(exchange) => {
                channel.exchange_declare(exchange.into(), ExchangeKind::Topic, ExchangeDeclareOptions::default(), none).await
            }
            Self::Bind(queue, exchange) => {
                channel.queue_bind(queue.into(), exchange.into(), "#".into(), QueueBindOptions::default(), none).await
            }
            Self::Unbind(queue, exchange) => channel.queue_unbind(queue.into(), exchange.into(), "#".into(), none).await,
        }
    }
}

/// Publishes, and waits for the confirm: without it a refusal would not be noticed here.
async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let sent = channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"{}", properties).await?;
    sent.await.map(drop)
}
