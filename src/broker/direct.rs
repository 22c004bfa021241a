//! Replies straight to a producer's channel, which RabbitMQ calls direct reply-to, over a connection that may be lost.
//!
//! Such a reply goes to a name that only the broker can read, and it closes the connection over one that a producer has made up. So
//! they have a connection of their own, and nobody waits for them.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::session::connect;
use super::{ConnectError, Settings, TIME_LIMIT, within};

/// What every such name begins with.
const PREFIX: &str = "amq.rabbitmq.reply-to";
/// So many wait to be sent; what comes beyond them is dropped.
const MOST_WAITING: usize = 1_000;

/// A reply on its way.
pub struct Reply {
    pub to: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

/// The replies that wait to be sent.
pub struct DirectReplies(mpsc::Sender<Reply>);

/// A connection, and its one channel.
struct Connected {
    connection: Connection,
    channel: Channel,
}

impl DirectReplies {
    /// Sends them, one after the other, until the session is over. It connects for the first of them.
    pub fn start(settings: Settings, over: CancellationToken) -> Self {
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(send_all(settings, waiting, over));
        Self(sender)
    }

    /// Whether a reply to this name is one.
    pub fn takes(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// Has a reply sent, at most once.
    pub fn send(&self, reply: Reply) {
        if self.0.try_send(reply).is_err() {
            tracing::warn!("a direct reply was dropped, since too many wait");
        }
    }
}

async fn send_all(settings: Settings, mut waiting: mpsc::Receiver<Reply>, over: CancellationToken) {
    let mut connected = None;
    while let Some(Some(reply)) = over.run_until_cancelled(waiting.recv()).await {
        if let Err(error) = send(&settings, &mut connected, reply).await {
            tracing::warn!(%error, "a direct reply was not taken");
            close(connected.take()).await;
        }
    }
    close(connected).await;
}

async fn send(settings: &Settings, connected: &mut Option<Connected>, reply: Reply) -> Result<(), ConnectError> {
    let open = match connected.take() {
        Some(open) => open,
        None => Connected::open(settings).await?,
    };
    let channel = &connected.insert(open).channel;
    let Reply { to, properties, body } = reply;
    let sent = channel.basic_publish("".into(), to.into(), BasicPublishOptions::default(), &body, properties);
    // Whoever waited for it may be gone, which the broker does not say.
    within(async { sent.await?.await }).await.map(drop)
}

/// One that the broker has closed over what was sent needs no more than to be forgotten.
async fn close(connected: Option<Connected>) {
    if let Some(Connected { connection, .. }) = connected {
        let _ = tokio::time::timeout(TIME_LIMIT / 4, connection.close(200, "bye".into())).await;
    }
}

impl Connected {
    async fn open(settings: &Settings) -> Result<Self, ConnectError> {
        let connection = connect(settings, "kf-worker reply").await?;
        let channel = within(connection.create_channel()).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { connection, channel })
    }
}
