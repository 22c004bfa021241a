//! Changing the number of partitions without losing or reordering a command, while producers go on publishing.
//!
//! Commands are parked in a queue of their own, until the old queues are empty and nobody holds anything of them. Then
//! the new ones take their place, and workers take what was parked before anything else. Every step can be repeated, and
//! what exists at the broker tells where an interrupted change goes on.

use std::time::Duration;

use lapin::{Connection, ExchangeKind};

use super::names::Names;
use super::request::{self, Holds};
use super::session::connect;
use super::{ConnectError, Settings, TIME_LIMIT, topology};

/// How long a queue must stay empty: what was routed to it just before it was cut off has come by then.
const SETTLE: Duration = Duration::from_secs(1);

/// The queues of commands, for an operator.
pub struct Partitions {
    connection: Connection,
    names: Names,
    /// The delays of the deferred queues.
    defer: Vec<String>,
}

/// What there is.
pub struct State {
    /// The queues that commands are spread over.
    pub queues: Vec<QueueState>,
    /// The queue of what came during a change, until workers have taken it.
    pub parked: Option<QueueState>,
    /// Whether what producers send goes to that queue.
    pub is_parking: bool,
    /// Whether the new queues are about to take the place of the parking.
    is_ending: bool,
    /// What is put off; while commands are parked it comes back to them.
    pub deferred: Vec<QueueState>,
    number: Option<u16>,
}

/// A queue and what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueState {
    pub name: String,
    /// That wait for a consumer.
    pub messages: u32,
    /// Who takes them, and those who have left the line and still hold some. Others that stand in line are not counted.
    pub consumers: u32,
}

impl State {
    /// How many partitions there are; nothing where there is none, or where queues of different numbers exist.
    pub fn number(&self) -> Option<u16> {
        self.number
    }

    /// Whether parked commands wait for workers to take them.
    pub fn parked_wait(&self) -> bool {
        self.parked.as_ref().is_some_and(|parked| parked.messages > 0 || parked.consumers > 0)
    }
}

impl QueueState {
    fn holds(name: &str, holds: Holds) -> Self {
        Self { name: name.to_owned(), messages: holds.messages, consumers: holds.consumers }
    }
}

impl Partitions {
    /// Connects.
    ///
    /// # Errors
    /// Where the broker can't be reached.
    pub async fn open(settings: &Settings) -> Result<Self, ConnectError> {
        let connection = connect(settings, "kf-worker partitions").await?;
        let defer = settings.defer.iter().map(|(delay, _)| delay.clone()).collect();
        Ok(Self { connection, names: Names::new(&settings.prefix), defer })
    }

    /// Takes care that nobody else changes the number or takes parked commands meanwhile. `false` where somebody does.
    ///
    /// # Errors
    /// Where the broker went away or refuses.
    pub async fn own(&self) -> Result<bool, ConnectError> {
        request::own(&self.connection, &self.names.parked_owner()).await
    }

    /// What there is.
    ///
    /// # Errors
    /// Where the broker went away or refuses.
    pub async fn look(&self) -> Result<State, ConnectError> {
        let (names, connection) = (&self.names, &self.connection);
        let one = self.look_at(names.commands()).await?;
        let mut several = Vec::new();
        // They are declared from 0 up, and deleted from the last one down.
        while let Some(found) = self.look_at(names.partition(u16::try_from(several.len()).unwrap_or(u16::MAX))).await? {
            several.push(found);
        }
        let number = match (&one, several.len()) {
            (Some(_), 0) => Some(1),
            (None, 1..) => u16::try_from(several.len()).ok(),
            _ => None,
        };
        let mut deferred = Vec::new();
        for delay in &self.defer {
            deferred.extend(self.look_at(names.deferred(delay)).await?);
        }
        Ok(State {
            queues: one.into_iter().chain(several).collect(),
            parked: self.look_at(names.parked()).await?,
            is_parking: request::exchange_exists(connection, &names.parking()).await?,
            is_ending: request::exchange_exists(connection, &names.unparking()).await?,
            deferred,
            number,
        })
    }

    /// Ends a change that was interrupted when all but its last step was done.
    ///
    /// # Errors
    /// Where the broker went away or refuses.
    pub async fn end_interrupted(&self) -> Result<(), ConnectError> {
        let state = self.look().await?;
        match state.number {
            Some(number) if state.is_ending && state.is_parking => self.unpark(number).await,
            _ => request::delete_exchange(&self.connection, &self.names.unparking()).await,
        }
    }

    /// Parks whatever is published from now on, and cuts the queues off. Said again, it does no harm.
    ///
    /// # Errors
    /// Where the broker went away or refuses; where it lacks the plugin that `number` partitions need, nothing has changed.
    pub async fn park(&self, number: u16) -> Result<(), ConnectError> {
        let (names, connection) = (&self.names, &self.connection);
        if number > 1 {
            topology::declare_spreading(connection, names).await?;
        }
        request::exchange(connection, &names.commands(), ExchangeKind::Topic, false).await?;
        request::queue(connection, &names.parked(), topology::commands(names), false).await?;
        request::exchange(connection, &names.parking(), ExchangeKind::Fanout, false).await?;
        request::bind_queue(connection, &names.parked(), &names.parking(), "#").await?;
        request::bind_exchange(connection, &names.parking(), &names.commands()).await?;
        // Only now: what comes in between goes both ways, and is a repeat to the ledger.
        request::unbind_queue(connection, &names.commands(), &names.commands()).await?;
        request::unbind_exchange(connection, &names.partitions(), &names.commands()).await
    }

    /// Deletes the old queues where nothing is held of them, nor put off. Otherwise answers those of which something is.
    ///
    /// # Errors
    /// Where the broker went away or refuses.
    pub async fn delete_idle(&self) -> Result<Vec<QueueState>, ConnectError> {
        let mut state = self.look().await?;
        // A worker counts as soon as it is the first in line, and for as long as it holds anything. RabbitMQ deletes no quorum
        // queue on condition, so it must have been idle for a while; who comes just now comes to an empty queue.
        for wait in [SETTLE, Duration::ZERO] {
            let all = state.queues.iter().chain(&state.deferred);
            let busy: Vec<_> = all.filter(|queue| queue.messages > 0 || queue.consumers > 0).cloned().collect();
            if !busy.is_empty() {
                return Ok(busy);
            }
            tokio::time::sleep(wait).await;
            state = self.look().await?;
        }
        for queue in state.queues.iter().rev() {
            request::delete_queue(&self.connection, &queue.name).await?;
        }
        Ok(Vec::new())
    }

    /// Declares so many queues and lets commands come to them.
    ///
    /// # Errors
    /// Where the broker went away or refuses.
    pub async fn declare(&self, number: u16) -> Result<(), ConnectError> {
        if number == 1 {
            request::delete_exchange(&self.connection, &self.names.partitions()).await?;
        }
        topology::declare_partitions(&self.connection, number, &self.names).await?;
        request::exchange(&self.connection, &self.names.unparking(), ExchangeKind::Fanout, false).await?;
        self.unpark(number).await
    }

    /// What comes in between goes both ways here as well. Workers begin only when it is over, with what was parked, so
    /// that the copy in the new queue is the repeat.
    async fn unpark(&self, number: u16) -> Result<(), ConnectError> {
        topology::route_to_partitions(&self.connection, number, &self.names).await?;
        request::delete_exchange(&self.connection, &self.names.parking()).await?;
        request::delete_exchange(&self.connection, &self.names.unparking()).await
    }

    /// Ends the connection.
    pub async fn close(self) {
        // Where closing fails there is nothing left to close.
        let _ = tokio::time::timeout(TIME_LIMIT / 4, self.connection.close(200, "bye".into())).await;
    }

    async fn look_at(&self, name: String) -> Result<Option<QueueState>, ConnectError> {
        Ok(request::look(&self.connection, &name).await?.map(|holds| QueueState::holds(&name, holds)))
    }
}
