//! What the worker remembers: which commands were accepted, in which order, and the one outcome of each.
//!
//! # The contract
//!
//! * **Accept** gives a command its position, for good, in the order of the call; all that wait are accepted in one
//!   transaction. A known id is recognised: with the same content it is a repeat (finished or not), with other
//!   content a conflict, which changes nothing.
//! * **Begin** claims the right to call WeChat for a command, and counts the call before it is made, so that a worker
//!   that dies has left its trace. A command begins only when no older one of its account is unfinished.
//! * **Wait** gives the claim back without an outcome.
//! * **Finish** writes the outcome, once; who comes second is told the first.
//! * What was under way when the process died is a suspect until it has been tried again; one that was alone under way
//!   at [`MOST_DEATHS`] deaths is failed as poison. Orderly ends count nothing.
//! * A replay of a failed command's dead letter makes the next generation of it, in its first position.
//! * Whenever the oldest unfinished command of an account waits, or its worker died, newer ones supersede it by the
//!   rule in `order.rs`. What is in flight is never superseded.
//! * Every answer is given after the transaction was committed and is on disk.

mod memory;
mod order;
mod page;
mod rows;
mod schema;
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use sqlite::{Ledger, Lookup, Reader};

use crate::command::{Command, Refused};
use crate::event::Conclusion;
use crate::outcome::{Action, Answer, Failure, Reason, Scope};
use crate::secret::Secret;

/// A command that was alone under way at so many deaths of the process is not tried again.
pub const MOST_DEATHS: u32 = 3;

/// Where the ledger is and how long it remembers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long outcomes are kept.
    pub retention: Duration,
    /// An unfinished command whose message was not seen for this long holds nobody up.
    pub patience: Duration,
}

/// The place of a command among all accepted ones: the order, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);

/// A message that arrived, as the ledger sees it.
#[derive(Debug)]
pub struct Arrival {
    pub message: Arrived,
    pub received_at: Timestamp,
    pub origin: Origin,
}

/// How a message came to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From its producer.
    Producer,
    /// A copy that this worker put off: only taken where the ledger knows it.
    PutOff,
    /// The dead letter of this generation, replayed: only taken where the ledger knows it.
    Replay(u32),
}

/// What arrived.
#[derive(Debug, Clone)]
pub enum Arrived {
    Command(Arc<Command>),
    Refused(Arc<Refused>),
}

/// What the ledger makes of an arrival.
#[derive(Debug)]
pub enum Acceptance {
    /// To be carried out, in its turn.
    Unfinished(Ticket),
    /// It was decided on arrival.
    Decided(Finished),
    /// It has had its outcome before.
    Repeat(Finished),
    /// The id was used before with other content.
    Conflict,
    /// A put-off copy, or a replayed dead letter, that this ledger does not know.
    LedgerLost,
}

/// What is known of an unfinished command.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    pub position: Position,
    pub generation: u32,
    /// Calls to WeChat begun so far.
    pub attempts: u32,
    /// Those of earlier generations among them.
    pub attempts_before: u32,
    /// It was under way when a process died: nothing else may be, when it is tried again.
    pub suspect: bool,
    /// What it waited for last, and since when.
    pub trouble: Option<(Reason, Timestamp)>,
    /// First receipt of the first generation.
    pub received_at: Timestamp,
    /// First receipt of this generation: its age counts from here.
    pub age_from: Timestamp,
}

/// A finished command.
#[derive(Debug, Clone)]
pub struct Finished {
    pub position: Position,
    pub conclusion: Conclusion,
    /// A copy still has to go to the dead letters.
    pub dead_letter_owed: bool,
}

/// The answer to who wants to begin an attempt.
#[derive(Debug)]
pub enum Claim {
    /// The attempt is counted; WeChat may be called.
    Begun(Begun),
    /// An older command of the account is unfinished.
    Behind,
    /// There is an outcome already.
    Finished(Finished),
}

/// What is known at the beginning of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// Calls begun, this one included.
    pub attempts: u32,
    /// An earlier call of this very command may have changed the state: its answer was lost, or its worker died.
    pub answer_lost_before: bool,
    /// When the account's latest add whose answer was lost was sent: it may still land.
    pub lost_add_at: Option<Timestamp>,
}

/// Why an attempt, or the wait before one, ended without an outcome.
#[derive(Debug)]
pub struct Waiting {
    pub reason: Reason,
    pub answer: Option<Answer>,
    /// The attempt's answer was lost.
    pub answer_lost: bool,
}

/// A pause of an Official Account that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPause {
    pub wechat_id: String,
    pub scope: Scope,
    pub since: Timestamp,
    pub until: Timestamp,
    /// Why it is paused.
    pub failure: Failure,
}

/// A token that is dear: fetching it again would end another one, or can't be done at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// Whose it is.
    pub owner: String,
    /// A fingerprint of the configuration that it was fetched with.
    pub origin: Vec<u8>,
    pub access_token: Secret,
    pub ends_at: Timestamp,
    /// What the next one has to be asked for with.
    pub refresh_token: Option<Secret>,
}

/// What an account should be, by the commands that were accepted for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub kf_account: String,
    /// What the latest accepted command asked for.
    pub action: Action,
    /// That command's position.
    pub position: Position,
    /// The nickname that it asked for, for as long as its outcome is kept.
    pub nickname: Option<String>,
    /// A command of the account is unfinished, so that its state is about to change.
    pub unfinished: bool,
}

/// Why the ledger can't be used; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// A statement or the commit failed (disk full, read-only, locked by another program…).
    #[error("the ledger can't be written or read: {0}")]
    Failed(Arc<rusqlite::Error>),
    /// What is stored there can't be understood.
    #[error("the ledger holds something that this version can't read: {0}")]
    Unreadable(&'static str),
    /// Another file stands at its path, or none: what is written would be lost.
    #[error("the ledger's file was deleted or replaced under the worker; put it back, or restore a backup and restart the worker")]
    Gone,
    /// The ledger's thread has ended.
    #[error("the ledger is closed")]
    Closed,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// Why the ledger can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// One process may write to a file.
    #[error("the ledger {0} is in use by another worker; give each its own `ledger.url`, or stop the other one")]
    InUse(PathBuf),
    /// The folder or the file can't be reached.
    #[error("the ledger {path} can't be opened: {source}; check that the folder exists and that the worker may write there")]
    File { path: PathBuf, source: std::io::Error },
    /// SQLite refused it: no database, damaged, or no room.
    #[error("the ledger {path} can't be used: {source}")]
    Database { path: PathBuf, source: rusqlite::Error },
    /// What the last process left can't be taken over.
    #[error("the ledger {path} can't be used: {source}")]
    TakeOver { path: PathBuf, source: LedgerError },
    /// A newer version wrote it, or a migration failed.
    #[error("the ledger {path} can't be brought to this version's form: {source}")]
    Migration { path: PathBuf, source: rusqlite_migration::Error },
}

#[cfg(test)]
mod tests;
