//! One life of the connections, from connecting to the first sign that one is lost.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_rs::Tokio;
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPAuthority, AMQPUri};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::Delivery;
use super::direct::DirectReplies;
use super::guard::{self, Guarded};
use super::names::Names;
use super::publisher::Publisher;
use super::share::Share;
use super::{ConnectError, Settings, TIME_LIMIT, parked, topology, within};
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// Heartbeats where the URL asks for none, in seconds: a silent peer is noticed within two of them.
const HEARTBEAT: u16 = 10;
/// Bytes of a frame at most where the URL says nothing: RabbitMQ's own limit. The client keeps room for 32 frames each way, and
/// fills it with zeros, untouched memory included, when it first learns of the limit from the broker.
const FRAME_MAX: u32 = 128 * 1024;
/// The same on the connection for results, which is so busy that it touches all of that room. No frame needs more there: the
/// headers, which can't be split, are ours and have less than 2 KiB. Elsewhere they are the producer's.
const RESULTS_FRAME_MAX: u32 = 16 * 1024;
/// How long the broker is given to hand on the last acknowledgements before the connections are closed.
const HAND_ON: Duration = Duration::from_millis(500);

/// A connected broker. Clones are handles on the same session.
#[derive(Clone)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
}

/// What all handles share.
pub(super) struct Shared {
    consuming: Connection,
    results: Connection,
    copies: Connection,
    publisher: Publisher,
    direct_replies: DirectReplies,
    names: Names,
    metrics: Arc<Metrics>,
    /// How many queues there are, and how many messages are taken at once from all of them.
    pub(super) partitions: u16,
    pub(super) window: u16,
    /// This worker's place among the workers.
    pub(super) share: watch::Sender<Share>,
    /// The queues that are subscribed to, once they are.
    pub(super) consumed: OnceLock<Vec<Consumed>>,
    /// All that consumes; it ends with the session, or when no more is to be taken.
    pub(super) subscriptions: TaskTracker,
    /// Cancelled when no more is to be taken.
    stopped: CancellationToken,
    /// Cancelled when the session is over.
    lost: CancellationToken,
    /// Cancelled when its connections are closed.
    closed: CancellationToken,
    /// Why, in a sentence; the first reason stands.
    why: Mutex<Option<String>>,
}

/// A queue that is subscribed to. Its channel lives as long as the session, since acknowledgements need it.
pub struct Consumed {
    pub number: u16,
    pub name: String,
    pub channel: Channel,
    /// How many of its messages are taken and not yet acknowledged.
    pub held: Arc<AtomicUsize>,
}

/// The commands that arrive in a session, in the broker's order within each partition.
pub struct Deliveries {
    arrived: mpsc::UnboundedReceiver<Delivery>,
    session: Session,
}

impl Session {
    /// Connects, prepares the topology and begins to consume.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses.
    pub async fn open(settings: &Settings, metrics: &Arc<Metrics>, readiness: &Arc<Readiness>) -> Result<(Self, Deliveries), ConnectError> {
        let names = Names::new(&settings.prefix);
        let consuming = connect(settings, "kf-worker consume").await?;
        match settings.topology {
            super::Topology::None => {}
            _ if settings.alone => topology::own_sqlite(&consuming, &names).await?,
            _ => topology::no_sqlite_owner(&consuming, &names).await?,
        }
        topology::prepare(&consuming, settings, &names).await?;
        let parked_first = parked::come_first(&consuming, &names).await?;
        let results = connect_in_small_frames(settings, "kf-worker publish results").await?;
        let copies = connect(settings, "kf-worker publish copies").await?;
        let publisher = Publisher::open(&results, &copies, Arc::clone(metrics)).await?;
        let lost = CancellationToken::new();
        let shared = Shared {
            consuming,
            results,
            copies,
            publisher,
            direct_replies: DirectReplies::start(settings.clone(), lost.clone()),
            names,
            metrics: Arc::clone(metrics),
            partitions: settings.partitions,
            window: settings.window,
            share: watch::Sender::new(Share::ALONE),
            consumed: OnceLock::new(),
            subscriptions: TaskTracker::new(),
            stopped: CancellationToken::new(),
            lost,
            closed: CancellationToken::new(),
            why: Mutex::default(),
        };
        let session = Self { shared: Arc::new(shared) };
        let (sender, arrived) = mpsc::unbounded_channel();
        if parked_first {
            session.shared.subscriptions.spawn(session.clone().subscribe_after_parked(sender));
        } else {
            session.subscribe(&sender).await?;
        }
        tokio::spawn(session.clone().watch(Arc::clone(readiness)));
        session.tell_share();
        Ok((session.clone(), Deliveries { arrived, session }))
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

    /// Takes this place among the workers alive: steps back from the partitions of the others, behind whom this one stays
    /// in line. It may be told the same any number of times.
    pub fn take_share(&self, share: Share) {
        let changed = self.shared.share.send_if_modified(|now| std::mem::replace(now, share) != share);
        if changed {
            let Share { index, of } = share;
            let partitions = self.tell_share();
            tracing::info!(index, of, partitions, "the partitions are shared anew among the workers");
        }
    }

    /// Takes no more messages; what was taken stays ours. All of it has been handed on when this ends.
    pub async fn stop_consuming(&self) {
        self.shared.stopped.cancel();
        self.shared.subscriptions.close();
        if tokio::time::timeout(TIME_LIMIT, self.shared.subscriptions.wait()).await.is_err() {
            self.give_up("the broker did not let the consumers go");
        }
    }

    /// Closes all connections; the broker delivers again whatever was not acknowledged.
    pub async fn close(&self) {
        if !self.is_lost() {
            // RabbitMQ hands acknowledgements on to a quorum queue a few at a time, and forgets those that still wait when
            // their channel closes: a burst of them would come again at the next start. By then all that is done is told, too.
            tokio::time::sleep(HAND_ON).await;
        }
        self.give_up("the worker has closed it");
        // Where closing fails or takes too long there is nothing left to close.
        let close = async |connection: &Connection| tokio::time::timeout(TIME_LIMIT / 4, connection.close(200, "bye".into())).await.ok();
        tokio::join!(close(&self.shared.results), close(&self.shared.copies), close(&self.shared.consuming));
        self.shared.closed.cancel();
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.shared.publisher
    }

    pub(super) fn direct_replies(&self) -> &DirectReplies {
        &self.shared.direct_replies
    }

    pub(super) fn names(&self) -> &Names {
        &self.shared.names
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(super) fn consuming(&self) -> &Connection {
        &self.shared.consuming
    }

    pub(super) fn publishing(&self) -> [&Connection; 2] {
        [&self.shared.results, &self.shared.copies]
    }

    pub(super) fn consumed(&self) -> &[Consumed] {
        self.shared.consumed.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn share(&self) -> Share {
        *self.shared.share.borrow()
    }

    /// Ends when no more is to be taken.
    pub(super) async fn stopped(&self) {
        self.shared.stopped.cancelled().await;
    }

    /// Ends when its connections are closed.
    pub(super) async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Whether the session is over, or is to take no more.
    pub(super) fn is_ending(&self) -> bool {
        self.is_lost() || self.shared.stopped.is_cancelled()
    }

    /// Shows how many partitions are this worker's.
    fn tell_share(&self) -> usize {
        let owned = self.share().owned(self.shared.partitions);
        self.metrics().partitions.set(owned.try_into().unwrap_or(i64::MAX));
        owned
    }
}

impl Deliveries {
    /// What has arrived, at least one and at most `most`; `None` when the session is over.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Delivery>> {
        let first = tokio::select! {
            () = self.session.lost() => return None,
            first = self.arrived.recv() => first?,
        };
        let mut arrived = vec![first];
        while arrived.len() < most {
            // What is there already comes along; nobody waits for more.
            let Ok(next) = self.arrived.try_recv() else { break };
            arrived.push(next);
        }
        Some(arrived)
    }
}

/// Connects; the connection's name is shown by the broker.
pub(super) async fn connect(settings: &Settings, name: &str) -> Result<Connection, ConnectError> {
    let mut uri = settings.url.0.clone();
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    connect_to(uri, settings, name).await
}

/// The same with frames of [`RESULTS_FRAME_MAX`], or smaller where the URL says so.
async fn connect_in_small_frames(settings: &Settings, name: &str) -> Result<Connection, ConnectError> {
    let mut uri = settings.url.0.clone();
    let asked = uri.query.frame_max.filter(|asked| *asked != 0);
    uri.query.frame_max = Some(asked.map_or(RESULTS_FRAME_MAX, |asked| asked.min(RESULTS_FRAME_MAX)));
    connect_to(uri, settings, name).await
}

async fn connect_to(mut uri: AMQPUri, settings: &Settings, name: &str) -> Result<Connection, ConnectError> {
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let encrypted = if settings.url.is_encrypted() { Some(RustlsConnector::from(settings.tls.client()?)) } else { None };
    let (frame_max, tokio) = (uri.query.frame_max, Tokio::current());
    // The client's own way to connect would believe the system's authorities beside those that are configured.
    let connection = Connection::connector(
        uri,
        guard::runtime(),
        async move |uri, runtime| {
            let AMQPAuthority { host, port, .. } = uri.authority;
            let stream = AsyncTcpStream::connect(&tokio, runtime.to_socket_addrs((host.clone(), port))).await?;
            let stream = match &encrypted {
                Some(connector) => stream.into_rustls(connector, &host).await?,
                None => stream,
            };
            Ok(AsyncTcpStream::Plain(Guarded::new(stream, frame_max)))
        },
        properties,
    );
    within(connection).await.map_err(ConnectError::at_login)
}
