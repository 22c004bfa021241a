//! The results as they come, for whoever watches: a queue of one's own that is gone with the connection.

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};

use super::names::Names;
use super::session::connect;
use super::{ConnectError, Settings, describe, within};
use crate::event::data_of;
use crate::outcome::{Action, Status};

/// So many are here and not yet read; further ones wait at the broker.
const AHEAD: u16 = 256;
/// So many wait there at most, so that a terminal that stands still fills no broker: the oldest go first.
const MOST_WAITING: i32 = 100_000;

/// The results from now on.
pub struct Results {
    connection: Connection,
    consumer: Consumer,
}

impl Results {
    /// Connects, and has the results of this action and status put into a queue of its own from now on.
    ///
    /// # Errors
    /// Where the broker can't be reached, refuses, or knows no results yet.
    pub async fn open(settings: &Settings, action: Option<Action>, status: Option<Status>) -> Result<Self, ConnectError> {
        let connection = connect(settings, "kf-worker watch").await?;
        let names = Names::new(&settings.prefix);
        let queue = names.watch(rand::random());
        let channel = within(connection.create_channel()).await?;
        let refused = |what: String| move |error: ConnectError| about(error, what);
        within(declared(&channel, &queue)).await.map_err(refused(format!("queue `{queue}`")))?;
        let bound = channel.queue_bind(
            queue.as_str().into(),
            names.events().into(),
            key(action, status).into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(bound).await.map_err(refused(format!("exchange `{}`", names.events())))?;
        within(channel.basic_qos(AHEAD, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions { exclusive: true, ..Default::default() };
        let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let consumer = within(consumer).await.map_err(refused(format!("queue `{queue}`")))?;
        Ok(Self { connection, consumer })
    }

    /// The data of the next result event. It may be given up while it waits.
    ///
    /// # Errors
    /// Where the connection was lost.
    pub async fn next(&mut self) -> Result<String, ConnectError> {
        loop {
            let Delivery { data, acker, .. } = match self.consumer.next().await {
                Some(delivery) => delivery.map_err(describe)?,
                None => return Err(ConnectError::Unreachable("the broker took the queue away".to_owned())),
            };
            // Not for the broker to keep it until then, but for it to send no more than are read.
            within(acker.ack(BasicAckOptions::default())).await?;
            match data_of(&data) {
                Some(data) => return Ok(data.to_owned()),
                None => tracing::warn!("somebody published to the exchange of results what is no result event"),
            }
        }
    }

    /// Ends the connection, and the queue with it.
    pub async fn close(self) {
        // Where closing fails there is nothing left to close.
        let _ = within(self.connection.close(200, "bye".into())).await;
    }
}

async fn declared(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MOST_WAITING));
    channel.queue_declare(queue.into(), options, arguments).await.map(drop)
}

/// The routing keys are `<action>.<status>`.
fn key(action: Option<Action>, status: Option<Status>) -> String {
    match (action, status) {
        (None, None) => "#".to_owned(),
        _ => format!("{}.{}", action.map_or("*", Action::as_str), status.map_or("*", Status::as_str)),
    }
}

/// What a refusal asks of an operator here is not what it asks of one who runs a worker.
fn about(error: ConnectError, what: String) -> ConnectError {
    match error {
        ConnectError::Client(error) if ConnectError::Client(error.clone()).is_forbidden() => {
            let advice = "The user needs the permissions configure, write and read for its own queue, whose name begins with `<amqp.prefix>-watch-`, and read for the exchange of results.";
            ConnectError::Refused { what, error, advice }
        }
        error => error.about(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_asked_for_no_more_than_is_wanted() {
        assert_eq!(key(None, None), "#");
        assert_eq!(key(Some(Action::Delete), None), "delete.*");
        assert_eq!(key(None, Some(Status::Failed)), "*.failed");
        assert_eq!(key(Some(Action::Add), Some(Status::Superseded)), "add.superseded");
    }
}
