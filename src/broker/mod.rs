//! The only place that talks to RabbitMQ: connecting, the topology, taking commands, publishing with confirms.
//!
//! Publishing has connections of its own, since RabbitMQ stops reading from one that publishes while an alarm is on,
//! acknowledgements included: one for results, small and busy, and one for copies of messages, as large as these are. The
//! client's own recovery is off: it hides that a connection was lost, and with it that everything not yet acknowledged comes
//! again. A [`Session`] lives until one of its connections is lost; then all of it is given up.

mod acknowledger;
mod dead;
pub(crate) mod delivery;
mod direct;
mod guard;
mod names;
mod parked;
mod partitions;
mod producer;
mod proof;
mod publisher;
mod request;
mod results;
mod session;
mod share;
mod subscribe;
mod subscription;
mod topology;
mod url;
mod watch;

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::tls::{self, Tls, TlsError};

pub use dead::{DeadLetter, DeadLetters};
pub use delivery::{DEAD_DETAIL, DEAD_ID, DEAD_PROOF, DEAD_REASON, DEAD_SINCE, Delivery};
pub use names::Names;
pub use partitions::{Partitions, QueueState, State};
pub use producer::{Producer, Replies, Sending};
pub use proof::prove;
pub use publisher::PublishError;
pub use results::Results;
pub use session::{Deliveries, Session};
pub use share::Share;
pub use topology::Topology;
pub use url::BrokerUrl;

/// How the broker is reached.
#[derive(Clone)]
pub struct Settings {
    pub url: BrokerUrl,
    /// How the connection is encrypted, where the URL asks for that.
    pub tls: Tls,
    /// The first part of every name.
    pub prefix: String,
    pub topology: Topology,
    /// How many queues the commands are spread over.
    pub partitions: u16,
    /// No other worker may consume, since it could not know of this one's ledger.
    pub alone: bool,
    /// Messages taken and not yet acknowledged, at most.
    pub window: u16,
    /// The deferred queues: the delay as configured, and as a time.
    pub defer: Vec<(String, Duration)>,
}

/// Every request to the broker ends within this time, or the session does. Nothing that works takes nearly as long.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The broker can't be reached, or went away.
    #[error("{0}")]
    Unreachable(String),
    /// The broker knows no such user, or another password. It may pass: passwords are changed on both sides, never at once.
    #[error(
        "the broker refuses the login: {0}. Look at user and password in `amqp.url`; with a certificate, its common name must be a user of the broker"
    )]
    Login(lapin::Error),
    /// The files for an encrypted connection can't be used.
    #[error("an encrypted connection to the broker can't be made: {0}")]
    Tls(#[from] TlsError),
    /// The broker refused something that only an operator can mend.
    #[error("the broker refused {what}: {error}. {advice}")]
    Refused { what: String, error: lapin::Error, advice: &'static str },
    /// Somebody else is what only one can be.
    #[error(
        "another worker with a SQLite ledger is connected to this broker (it holds the queue `{0}`); only one may be, since two ledgers can't know of each other: stop the other one, or give this one another `amqp.prefix`"
    )]
    OwnedByAnother(String),
    /// The queues are made for another number of partitions.
    #[error(
        "`amqp.partitions` is {told}, but the broker's queues are made for another number: {found}. `kf-worker partitions show` tells the number; put it into the configuration, or change the queues with `kf-worker partitions set {told}`"
    )]
    OtherPartitions { told: u16, found: String },
    /// An error of the broker's client that none of the above describes yet.
    #[error("{0}")]
    Client(lapin::Error),
}

impl ConnectError {
    fn is_locked(&self) -> bool {
        matches!(self.soft_error(), Some(AMQPSoftError::RESOURCELOCKED))
    }

    fn is_forbidden(&self) -> bool {
        matches!(self.soft_error(), Some(AMQPSoftError::ACCESSREFUSED))
    }

    fn is_missing(&self) -> bool {
        matches!(self.soft_error(), Some(AMQPSoftError::NOTFOUND))
    }

    /// The broker doesn't know the type of an exchange. RabbitMQ 3 takes that for a fault of the whole connection; 4 refuses the
    /// exchange, with a code that has other reasons as well.
    fn is_unknown_type(&self) -> bool {
        let Some(error) = self.protocol_error() else { return false };
        match error.kind() {
            AMQPErrorKind::Hard(hard) => matches!(hard, AMQPHardError::COMMANDINVALID),
            AMQPErrorKind::Soft(soft) => {
                matches!(soft, AMQPSoftError::PRECONDITIONFAILED) && error.get_message().as_str().contains("invalid exchange type")
            }
        }
    }

    fn soft_error(&self) -> Option<&AMQPSoftError> {
        match self.protocol_error()?.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        }
    }

    /// What the broker said as it closed a channel, or the connection.
    fn protocol_error(&self) -> Option<&AMQPError> {
        let (Self::Client(error) | Self::Refused { error, .. }) = self else { return None };
        match error.kind() {
            ErrorKind::ProtocolError(error) => Some(error),
            _ => None,
        }
    }

    /// Says what was asked for when the broker refused, and what to do.
    fn about(self, what: String) -> Self {
        let advice = match self.soft_error() {
            _ if self.is_unknown_type() => {
                "More than one partition needs RabbitMQ's own plugin for it on every node: rabbitmq-plugins enable rabbitmq_consistent_hash_exchange."
            }
            Some(AMQPSoftError::NOTFOUND) => {
                "It does not exist; let the worker declare it (`amqp.topology = \"declare\"`), or make it by hand."
            }
            Some(AMQPSoftError::PRECONDITIONFAILED) => {
                "It exists with other arguments; empty and delete it, or give this worker another `amqp.prefix`."
            }
            Some(AMQPSoftError::ACCESSREFUSED) => {
                "The user lacks the permission; grant it, or set `amqp.topology` to \"check\" or \"none\"."
            }
            _ => return self,
        };
        match self {
            Self::Client(error) => Self::Refused { what, error, advice },
            other => other,
        }
    }

    /// Says what a producer can do about a refusal of what it sends.
    fn about_sending(self, exchange: &str) -> Self {
        let advice = match self.soft_error() {
            Some(AMQPSoftError::NOTFOUND) => {
                "No worker has declared it yet: start `kf-worker run` once, or look whether `amqp.prefix` and the vhost are the worker's."
            }
            Some(AMQPSoftError::ACCESSREFUSED) => {
                "The user may not send this: it needs the permission to write to the exchange and, where the broker has topic permissions, to this account."
            }
            Some(AMQPSoftError::PRECONDITIONFAILED) => "The user in `amqp.url` must be the one that the broker knows this connection by.",
            _ => return self,
        };
        match self {
            Self::Client(error) => Self::Refused { what: format!("what was sent to `{exchange}`"), error, advice },
            other => other,
        }
    }

    /// A refusal while connecting is about who we are. It may pass: passwords are changed on both sides, never at once.
    fn at_login(self) -> Self {
        match self {
            Self::Client(error) if Self::Client(error.clone()).is_forbidden() => Self::Login(error),
            other => other,
        }
    }

    /// Whether trying again later is pointless: the configuration of worker or broker must change.
    pub fn needs_an_operator(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::OwnedByAnother(_) | Self::OtherPartitions { .. })
    }
}

/// Holds a request of the client to the time limit.
async fn within<T>(request: impl Future<Output = lapin::Result<T>>) -> Result<T, ConnectError> {
    match tokio::time::timeout(TIME_LIMIT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(describe(error)),
        Err(_) => Err(ConnectError::Unreachable(format!("the broker did not answer within {} s", TIME_LIMIT.as_secs()))),
    }
}

/// Sorts out what is the network's.
fn describe(error: lapin::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::IOError(io) => ConnectError::Unreachable(match tls::refusal(&**io) {
            Some(refusal) => format!("there is no encrypted connection to the broker: {refusal}"),
            None => format!("the broker can't be reached: {io}"),
        }),
        ErrorKind::MissingHeartbeatError => ConnectError::Unreachable("the broker has fallen silent (no heartbeat)".to_owned()),
        _ => ConnectError::Client(error),
    }
}
