//! The dead letters, for an operator: look at all of them, put some back into the commands queue, or drop them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, BasicProperties, Channel, Connection};
use tokio::time::Instant;

use super::delivery::{DEAD_DETAIL, DEAD_ID, DEAD_REASON, DEAD_SINCE, REPLAY, copied, message, own_headers};
use super::names::Names;
use super::publisher::{Exclusive, Outgoing};
use super::session::connect;
use super::{ConnectError, PublishError, Settings, within};
use crate::command::Message;

/// The dead letter queue, opened. What is not dropped or replayed stays in it: it goes back when this is closed.
pub struct DeadLetters {
    connection: Connection,
    channel: Channel,
    publisher: Exclusive,
    names: Names,
    /// As whom; what is put back goes by this user where it needs one.
    user: Option<String>,
    /// Taken, and neither replayed nor dropped.
    held: AtomicU32,
}

/// How long closing waits for what goes back to be there again.
const RETURN: Duration = Duration::from_secs(2);

/// One dead letter.
pub struct DeadLetter {
    /// Its id; one that the broker itself has put there, without a worker's notes, is named after its content.
    pub id: String,
    /// Why it is there, and what to do; empty where the broker itself has put it there.
    pub reason: String,
    pub detail: String,
    /// When it was put there, RFC 3339.
    pub since: String,
    pub message: Message,
    properties: BasicProperties,
    acker: Acker,
}

impl DeadLetters {
    /// Connects and finds the queue.
    ///
    /// # Errors
    /// Where the broker can't be reached, or has no such queue.
    pub async fn open(settings: &Settings) -> Result<Self, ConnectError> {
        let connection = connect(settings, "kf-worker dead").await?;
        let names = Names::new(&settings.prefix);
        let channel = within(connection.create_channel()).await?;
        let publisher = Exclusive::open(&connection, 1).await?;
        let user = settings.url.user().map(str::to_owned);
        let letters = Self { connection, channel, publisher, names, user, held: AtomicU32::new(0) };
        letters.ready().await.map_err(|error| error.about(format!("queue `{}`", letters.names.dead())))?;
        Ok(letters)
    }

    /// Takes the next one, for as long as there are more.
    ///
    /// # Errors
    /// Where the broker went away.
    pub async fn next(&self) -> Result<Option<DeadLetter>, ConnectError> {
        let got = within(self.channel.basic_get(self.names.dead().as_str().into(), BasicGetOptions::default())).await;
        let got = got.map_err(|error| error.about(format!("queue `{}`", self.names.dead())))?;
        self.held.fetch_add(got.is_some().into(), Ordering::Relaxed);
        Ok(got.map(|got| DeadLetter::new(got.delivery)))
    }

    /// Puts one back into the commands queue, and takes it out of the dead letters once that is confirmed. With
    /// `as_replay` the worker makes a new generation of the failed command; without, it comes as if just sent by the user of this
    /// connection, since the broker lets nobody send in another's name.
    ///
    /// # Errors
    /// Where the broker has not confirmed; then it is still a dead letter.
    pub async fn replay(&self, letter: DeadLetter, routing_key: &str, as_replay: bool) -> Result<(), PublishError> {
        let mut headers = FieldTable::default();
        for (name, value) in own_headers(&letter.properties).inner() {
            if ![DEAD_ID, DEAD_REASON, DEAD_DETAIL, DEAD_SINCE].contains(&name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        if as_replay {
            headers.insert(REPLAY.into(), AMQPValue::LongString(letter.id.as_str().into()));
        }
        let exchange = self.names.commands();
        let mut properties = copied(&letter.properties, headers);
        if let Some(user) = self.user.as_deref().filter(|_| !as_replay) {
            properties = properties.with_user_id(user.into());
        }
        self.publisher.surely(Outgoing { exchange: &exchange, routing_key, properties, body: &letter.message.body }).await?;
        Ok(self.discard(letter).await?)
    }

    /// Takes one out of the dead letters for good.
    ///
    /// # Errors
    /// Where the broker went away; then it is still a dead letter.
    pub async fn discard(&self, letter: DeadLetter) -> Result<(), ConnectError> {
        match within(letter.acker.ack(BasicAckOptions::default())).await? {
            true => {
                self.held.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
            false => Err(ConnectError::Unreachable("the channel to the broker was lost".to_owned())),
        }
    }

    /// Gives back what was only looked at, and sees it there again, so that the next one to look finds it.
    pub async fn close(self) {
        let held = self.held.load(Ordering::Relaxed);
        let returned = self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true });
        if held > 0 && within(returned).await.is_ok() {
            let patient_until = Instant::now() + RETURN;
            while Instant::now() < patient_until && self.ready().await.is_ok_and(|ready| ready < held) {
                tokio::time::sleep(RETURN / 100).await;
            }
        }
        // Where closing fails the connection is gone, which gives everything back as well.
        let _ = within(self.connection.close(200, "bye".into())).await;
    }

    /// How many are in the queue and with nobody.
    async fn ready(&self) -> Result<u32, ConnectError> {
        let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = within(self.channel.queue_declare(self.names.dead().as_str().into(), options, FieldTable::default())).await?;
        Ok(queue.message_count())
    }
}

impl DeadLetter {
    fn new(delivery: lapin::message::Delivery) -> Self {
        let lapin::message::Delivery { data, properties, acker, .. } = delivery;
        let message = message(data, &properties);
        let note = |name: &str| message.headers.get(name).cloned();
        let id = note(DEAD_ID).unwrap_or_else(|| format!("content/{}", message.fingerprint().short()));
        let (reason, detail, since) = (note(DEAD_REASON), note(DEAD_DETAIL), note(DEAD_SINCE));
        Self {
            id,
            reason: reason.unwrap_or_default(),
            detail: detail.unwrap_or_default(),
            since: since.unwrap_or_default(),
            message,
            properties,
            acker,
        }
    }
}
