//! One life of the two connections, from connecting to the first sign that either is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::publisher::{CHANNELS, Publisher};
use super::topology::{self, Names};
use super::{ConnectError, Settings, TIME_LIMIT, within};
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// Heartbeats where the URL asks for none, in seconds: a silent peer is noticed within two of them.
const HEARTBEAT: u16 = 10;
/// How often the connections are looked at: the client tells of some losses by nothing else.
const LOOK: Duration = Duration::from_millis(200);
/// How often the queue is asked whether messages wait there while none is held: a consumer that is deaf.
const LISTEN: Duration = Duration::from_secs(10);
/// How long the broker is given to hand on the last acknowledgements before the connections are closed.
const HAND_ON: Duration = Duration::from_millis(500);
const CONSUMER_TAG: &str = "kf-worker";

/// A connected broker. Clones are handles on the same session.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

/// What all handles share.
struct Shared {
    consuming: Connection,
    publishing: Connection,
    consumer_channel: Channel,
    publisher: Publisher,
    names: Names,
    /// Cancelled when the session is over.
    lost: CancellationToken,
    /// Why, in a sentence; the first reason stands.
    why: Mutex<Option<String>>,
}

/// The commands that arrive in a session, in the broker's order.
pub struct Deliveries {
    consumer: lapin::Consumer,
    session: Session,
    metrics: Arc<Metrics>,
}

impl Session {
    /// Connects, prepares the topology and begins to consume.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses.
    pub async fn open(settings: &Settings, metrics: &Arc<Metrics>, readiness: &Arc<Readiness>) -> Result<(Self, Deliveries), ConnectError> {
        let names = Names::new(&settings.prefix);
        let consuming = connect(settings, "kf-worker consume").await?;
        if settings.topology != super::Topology::None {
            topology::own_sqlite(&consuming, &names).await?;
        }
        topology::prepare(&consuming, settings.topology, &names, &settings.defer).await?;
        let publishing = connect(settings, "kf-worker publish").await?;
        let lost = CancellationToken::new();
        let publisher = Publisher::open(&publishing, CHANNELS, Arc::clone(metrics)).await?;
        let consumer_channel = within(consuming.create_channel()).await?;
        within(consumer_channel.basic_qos(settings.window, BasicQosOptions::default())).await?;
        let queue = names.commands();
        let consumed = consumer_channel.basic_consume(
            queue.as_str().into(),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = within(consumed).await.map_err(|error| error.about(format!("queue `{queue}`")))?;
        let shared = Shared { consuming, publishing, consumer_channel, publisher, names, lost, why: Mutex::default() };
        let session = Self { shared: Arc::new(shared) };
        session.watch(Arc::clone(metrics), Arc::clone(readiness));
        session.listen(Arc::clone(metrics));
        metrics.broker_sessions.inc();
        let deliveries = Deliveries { consumer, session: session.clone(), metrics: Arc::clone(metrics) };
        Ok((session, deliveries))
    }

    /// Ends when the session is over.
    pub async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// Whether the session is over: what it delivered will be delivered again.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.is_cancelled()
    }

    /// Why the session is over.
    pub fn why_lost(&self) -> String {
        let why = self.shared.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or_else(|| "the session was ended".to_owned())
    }

    /// Gives the session up: everything not yet acknowledged is delivered again.
    pub fn give_up(&self, why: impl Into<String>) {
        self.shared.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.into());
        self.shared.lost.cancel();
    }

    /// Takes no more messages; what was taken stays ours.
    pub async fn stop_consuming(&self) {
        let cancelled = self.shared.consumer_channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        if let Err(error) = within(cancelled).await {
            self.give_up(error.to_string());
        }
    }

    /// Closes both connections; the broker delivers again whatever was not acknowledged.
    pub async fn close(&self) {
        if !self.is_lost() {
            // RabbitMQ hands acknowledgements on to a quorum queue a few at a time, and forgets those that still wait when
            // their channel closes: a burst of them would come again at the next start.
            tokio::time::sleep(HAND_ON).await;
        }
        self.give_up("the worker has closed it");
        // Where closing fails or takes too long there is nothing left to close.
        let close = async |connection: &Connection| tokio::time::timeout(TIME_LIMIT / 4, connection.close(200, "bye".into())).await.ok();
        tokio::join!(close(&self.shared.publishing), close(&self.shared.consuming));
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.shared.publisher
    }

    pub(super) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Looks at both connections until the session is over.
    fn watch(&self, metrics: Arc<Metrics>, readiness: Arc<Readiness>) {
        let session = self.clone();
        tokio::spawn(async move {
            while !session.is_lost() {
                let shared = &session.shared;
                if !shared.consuming.status().connected() || !shared.consumer_channel.status().connected() {
                    session.give_up("the consuming connection to the broker was lost");
                }
                if !shared.publishing.status().connected() {
                    session.give_up("the publishing connection to the broker was lost");
                }
                let blocked = shared.publishing.status().blocked();
                readiness.blocked(blocked);
                metrics.broker_blocked.set(blocked.into());
                tokio::select! {
                    () = session.lost() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
    }

    /// Proves that the consumer hears: messages that wait twice in a row while none is held mean that it does not.
    /// Asking also proves that the connection is alive in both directions.
    fn listen(&self, metrics: Arc<Metrics>) {
        let session = self.clone();
        tokio::spawn(async move {
            let mut deaf = false;
            loop {
                tokio::select! {
                    () = session.lost() => return,
                    () = tokio::time::sleep(LISTEN) => {}
                }
                match session.waiting_messages().await {
                    Ok(waiting) if waiting > 0 && metrics.held() == 0 => {
                        if deaf {
                            session.give_up("messages wait in the queue and none is delivered");
                        }
                        deaf = true;
                    }
                    Ok(_) => deaf = false,
                    // Who may consume but not ask goes without this proof.
                    Err(error) if error.is_forbidden() => return,
                    Err(error) => session.give_up(format!("the commands queue can't be asked: {error}")),
                }
            }
        });
    }

    async fn waiting_messages(&self) -> Result<u32, ConnectError> {
        let channel = within(self.shared.consuming.create_channel()).await?;
        let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = within(channel.queue_declare(self.shared.names.commands().as_str().into(), options, FieldTable::default())).await?;
        within(channel.close(200, "asked".into())).await?;
        Ok(queue.message_count())
    }
}

impl Deliveries {
    /// What has arrived, at least one and at most `most`; `None` when the session is over.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Delivery>> {
        let mut arrived = vec![self.one().await?];
        while arrived.len() < most {
            // What is there already comes along; nobody waits for more.
            let Some(next) = self.consumer.next().now_or_never() else { break };
            let Some(delivery) = self.receive(next) else { break };
            arrived.push(delivery);
        }
        Some(arrived)
    }

    async fn one(&mut self) -> Option<Delivery> {
        let lost = self.session.shared.lost.clone();
        tokio::select! {
            () = lost.cancelled() => None,
            next = self.consumer.next() => self.receive(next),
        }
    }

    /// After an error the client says nothing more, so the session ends with it.
    fn receive(&self, next: Option<lapin::Result<lapin::message::Delivery>>) -> Option<Delivery> {
        match next {
            Some(Ok(delivery)) => return Some(Delivery::new(delivery, self.session.clone(), self.metrics.hold())),
            Some(Err(error)) => self.session.give_up(format!("the consumer failed: {error}")),
            None => self.session.give_up("the broker cancelled the consumer (was the queue deleted?)"),
        }
        None
    }
}

pub(super) async fn connect(settings: &Settings, name: &str) -> Result<Connection, ConnectError> {
    let mut uri = settings.uri.clone();
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    within(Connection::connect_uri(uri, properties)).await
}
