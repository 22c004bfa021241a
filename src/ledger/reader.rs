//! Reading a ledger beside the workers that write it.

use jiff::Timestamp;

use super::order::State;
use super::record::{CommandRecord, Stored};
use super::{Finished, LedgerError, OpenError, Place, StoredToken, Wanted, postgres, sqlite};
use crate::outcome::{Action, Answer, Reason};

/// A ledger that is only read.
pub enum Reader {
    Sqlite(sqlite::Reader),
    Postgres(Box<postgres::Reader>),
}

/// What a ledger knows of a command id.
#[derive(Debug)]
pub enum Lookup {
    Unknown,
    Unfinished(Box<Unfinished>),
    Finished(Box<Finished>),
}

/// What is known of a command without an outcome.
#[derive(Debug)]
pub struct Unfinished {
    pub action: Option<Action>,
    pub kf_account: Option<String>,
    pub stage: Stage,
    /// What it waited for last, and since when.
    pub trouble: Option<(Reason, Timestamp)>,
    /// WeChat's latest answer.
    pub answer: Option<Answer>,
    /// Calls to WeChat begun.
    pub attempts: u32,
    pub received_at: Timestamp,
    /// When its message was seen last.
    pub seen_at: Timestamp,
}

/// Where an unfinished command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Accepted, not begun.
    Accepted,
    /// A call is in flight.
    Calling,
    /// Between attempts, in process or put off.
    Waiting,
    /// Its worker died during a call.
    Abandoned,
}

/// An accepted command whose message is not about any more, as far as anybody can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub command_id: String,
    pub kf_account: Option<String>,
    /// When its message was seen last.
    pub seen_at: Timestamp,
}

/// How much a ledger has still to do, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Accepted commands without an outcome.
    pub unfinished: u64,
    /// When the oldest of them was received, or replayed last.
    pub oldest_since: Option<Timestamp>,
    /// SQLite's file with its write-ahead log; the tables of PostgreSQL with their indexes.
    pub size_bytes: u64,
}

impl Reader {
    /// Opens a ledger for reading only.
    ///
    /// # Errors
    /// Where there is none, or it can't be reached.
    pub async fn open(place: &Place) -> Result<Self, OpenError> {
        Ok(match place {
            Place::Sqlite(path) => Self::Sqlite(sqlite::Reader::open(path)?),
            Place::Postgres(url) => Self::Postgres(Box::new(postgres::Reader::open(url).await?)),
        })
    }

    /// How many steps its form is behind this version's; fewer than none where a newer version wrote it.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub fn steps_behind(&self) -> Result<i64, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.steps_behind(),
            Self::Postgres(reader) => Ok(reader.steps_behind()),
        }
    }

    /// What every known account of an Official Account should be.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn wanted(&self, wechat_id: &str) -> Result<Vec<Wanted>, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.wanted(wechat_id),
            Self::Postgres(reader) => reader.wanted(wechat_id).await,
        }
    }

    /// The token that was kept for an owner.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn token(&self, owner: &str) -> Result<Option<StoredToken>, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.token(owner),
            Self::Postgres(reader) => reader.token(owner).await,
        }
    }

    /// How far a command has come.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn find(&self, command_id: &str) -> Result<Lookup, LedgerError> {
        let record = match self {
            Self::Sqlite(reader) => reader.find(command_id)?,
            Self::Postgres(reader) => reader.find(command_id).await?,
        };
        Ok(record.map_or(Lookup::Unknown, Lookup::of))
    }

    /// The outcomes that were reached last, the newest first, so many at most.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn latest(&self, most: usize) -> Result<Vec<Finished>, LedgerError> {
        let latest = match self {
            Self::Sqlite(reader) => reader.latest(most)?,
            Self::Postgres(reader) => reader.latest(most).await?,
        };
        Ok(latest.iter().filter_map(CommandRecord::finished).collect())
    }

    /// How much is still to be done, and how large the ledger is. Cheap enough to be asked every few seconds.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn census(&self) -> Result<Census, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.census(),
            Self::Postgres(reader) => reader.census().await,
        }
    }

    /// Unfinished commands whose messages were seen last before then, the oldest first, so many at most.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn missing(&self, seen_before: Timestamp, most: usize) -> Result<Vec<Missing>, LedgerError> {
        let missing = match self {
            Self::Sqlite(reader) => reader.missing(seen_before, most)?,
            Self::Postgres(reader) => reader.missing(seen_before, most).await?,
        };
        let missing =
            missing.into_iter().map(|CommandRecord { command_id, kf_account, seen_at, .. }| Missing { command_id, kf_account, seen_at });
        Ok(missing.collect())
    }
}

impl Lookup {
    fn of(record: CommandRecord) -> Self {
        if let Some(finished) = record.finished() {
            return Self::Finished(Box::new(finished));
        }
        let CommandRecord { action, kf_account, trouble, answer, attempts, received_at, seen_at, .. } = record;
        let stage = match record.state {
            Stored::Unfinished(State::Running) => Stage::Calling,
            Stored::Unfinished(State::Waiting) => Stage::Waiting,
            Stored::Unfinished(State::Abandoned) => Stage::Abandoned,
            // A finished one has an outcome, so that it did not come here.
            Stored::Unfinished(State::Accepted) | Stored::Finished => Stage::Accepted,
        };
        Self::Unfinished(Box::new(Unfinished { action, kf_account, stage, trouble, answer, attempts, received_at, seen_at }))
    }
}
