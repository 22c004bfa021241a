//! What the worker remembers: which commands were accepted, in which order, and the one outcome of each.
//!
//! # The contract
//!
//! * **Accept** gives a command its position, for good, in the order of the call; all that wait are accepted in one
//!   transaction. A known id is recognised: with the same content it is a repeat (finished or not), with other
//!   content a conflict, which changes nothing.
//! * **Begin** claims the right to call WeChat for a command's account, and counts the call before it is made, so that a
//!   worker that dies has left its trace. A command begins only when no older one of its account is unfinished.
//! * A claim is a lease by the ledger's clock, longer than a call may take, under the account's next **epoch**. While it
//!   lasts no other worker begins anything for that account. Once it has run out another may, and then nothing is
//!   recorded any more with the older claim, so that a worker that wakes up late can't speak twice.
//! * **Wait** gives the claim back without an outcome: only calls hold claims, waits hold none.
//! * **Finish** writes the outcome, once; who comes second is told the first.
//! * What was under way when its worker died is a suspect until it has been tried again, alone; one that was so at
//!   [`MOST_DEATHS`] deaths is failed as poison. Orderly ends count nothing.
//! * A replay of a failed command's dead letter makes the next generation of it, in its first position.
//! * A dear token is fetched by one worker at a time, in its **turn**: a lease as well. It is kept where none was kept since
//!   the turn began, so that a worker that wakes up late puts no older token in the place of a newer one.
//! * Whenever the oldest unfinished command of an account waits, or its worker died, newer ones supersede it by the
//!   rule in `order.rs`. What is in flight is never superseded.
//! * Every answer is given after the transaction was committed and is on disk.
//!
//! # How it is built
//!
//! `sheet/` decides, by the rule of `order.rs`, on records (`record.rs`) that a database has loaded; `sqlite/` and `postgres/`
//! load them, write back what has changed, and know nothing of the rules. `handle.rs` is what the worker holds, `request.rs`
//! what goes from it to a database. `reader.rs` reads beside running workers, `trail.rs` all outcomes part by part, `recall.rs` does
//! so for people and metrics within a time limit, `look_over.rs` for the metrics now and then; `moving.rs` copies a file into a
//! database.
//!
//! The epoch is what the field calls a fencing token; attending and leaving are heartbeats and their end.

mod error;
mod handle;
mod look_over;
mod moving;
mod order;
mod postgres;
mod proof;
mod reader;
mod recall;
mod record;
mod request;
mod sheet;
mod sqlite;
mod trail;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use error::{LedgerError, OpenError};
pub use handle::Ledger;
pub use look_over::look_over;
pub use moving::{Counts, MoveError, abandon, migrate};
pub use postgres::PostgresUrl;
pub use proof::prove;
pub use reader::{Census, Lookup, Missing, Reader, Stage, Unfinished};
pub use recall::Recall;
pub use trail::{Mark, Sought, Stretch};

use crate::command::{Command, Refused};
use crate::event::Conclusion;
use crate::outcome::{Action, Answer, Failure, Reason, Scope};
use crate::secret::Secret;
use crate::tls::TlsError;

/// A command that has brought down its worker so many times while it ran alone, and once before, is not tried again.
pub const MOST_DEATHS: u32 = 2;

/// Where the ledger is and how long it remembers.
#[derive(Debug, Clone)]
pub struct Settings {
    pub place: Place,
    /// How long outcomes are kept.
    pub retention: Duration,
    /// An unfinished command whose message was not seen for this long holds nobody up.
    pub patience: Duration,
    /// How long a claim lasts: longer than the longest call.
    pub lease: Duration,
}

/// Where a ledger is kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file, for one worker.
    Sqlite(PathBuf),
    /// A database, for any number of workers.
    Postgres(PostgresUrl),
}

impl Place {
    /// Reads `sqlite:PATH` or `postgres://…`.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold no part of it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        match url.split_once(':') {
            Some(("sqlite", path)) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() || path == ":memory:" {
                    return Err("names no file; write sqlite:PATH, since a ledger must outlive its worker");
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            Some(("postgres" | "postgresql", _)) => PostgresUrl::parse(url).map(Self::Postgres),
            _ => Err("is neither sqlite:PATH nor postgres://USER:PASSWORD@HOST/DATABASE"),
        }
    }

    /// Takes up the user and password of another description of the same place, here and in all clones; answers whether it is
    /// the same place.
    pub fn take_up(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Postgres(url), Self::Postgres(other)) => url.take_up(other),
            (Self::Sqlite(path), Self::Sqlite(other)) => path == other,
            _ => false,
        }
    }

    /// Tries the files against which a database's certificate is checked.
    ///
    /// # Errors
    /// Where they can't be used.
    pub fn certificates(&self) -> Result<(), TlsError> {
        match self {
            Self::Postgres(url) => url.certificates(),
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Whether several workers may use it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(formatter),
            Self::Postgres(url) => url.fmt(formatter),
        }
    }
}

/// The place of a command among all accepted ones: the order, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);

/// Which claim on an account it is, counted from its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The claim after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

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
    /// A copy that a worker of this ledger put off: only taken where the ledger knows it.
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
    Not(Obstacle),
}

/// What stands in the way of a command's beginning.
#[derive(Debug)]
pub enum Obstacle {
    /// An older command of the account is unfinished.
    Behind,
    /// Another worker may be calling for the account, for so long at most.
    Held(Duration),
    /// It was under way when its worker died: nothing else may be, in this worker, when it is tried again.
    Suspected,
    /// There is an outcome already.
    Finished(Finished),
}

/// What is known at the beginning of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// Calls begun, this one included.
    pub attempts: u32,
    /// The claim.
    pub epoch: Epoch,
    /// An earlier call of this very command may have changed the state: its answer was lost, or its worker died.
    pub answer_lost_before: bool,
    /// How long ago the account's latest add whose answer was lost was sent: it may still land.
    pub lost_add_ago: Option<Duration>,
}

/// Why an attempt, or the wait before one, ended without an outcome.
#[derive(Debug)]
pub struct Waiting {
    pub reason: Reason,
    pub answer: Option<Answer>,
    /// The attempt's answer was lost.
    pub answer_lost: bool,
    /// The claim of the attempt, where there was one.
    pub claim: Option<Epoch>,
    /// WeChat was called with that claim. Where not, the attempt is not counted.
    pub called: bool,
}

/// What became of something that was to be recorded.
#[derive(Debug)]
pub struct Recorded {
    /// The command's outcome, where it has one (now).
    pub finished: Option<Finished>,
    pub ending: Ending,
}

/// Whether it was the worker's to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Ours,
    /// Another worker has begun since, or may have: nothing was recorded.
    ClaimLost {
        /// It was an add's, and the account should not exist by now: what the call did may have come after the delete.
        may_be_back: bool,
    },
}

/// The answer to who wants to delete an account once more, after a claim on it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanUp {
    Begun(Epoch),
    /// Another worker may be calling for the account, for so long at most.
    Held(Duration),
    /// A newer command wants the account.
    NotWanted,
}

/// This worker's place among those that use the ledger and are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attendance {
    /// From 0, in the order in which they came.
    pub index: usize,
    pub of: usize,
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

/// A token that was fetched in a turn, to be kept.
#[derive(Debug, Clone)]
pub struct FetchedToken {
    pub token: StoredToken,
    /// The access token that was kept when the turn began.
    pub before: Option<Secret>,
    /// The turn ends with this.
    pub fetcher: Fetcher,
}

/// Whoever is about to fetch an owner's token, under a name of its own.
#[derive(Debug, Clone)]
pub struct Fetcher {
    owner: String,
    name: String,
}

impl Fetcher {
    /// Somebody new who is about to fetch the token of an owner.
    pub fn of(owner: String) -> Self {
        Self { owner, name: random_name() }
    }
}

/// The answer to who wants to fetch an owner's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTurn {
    Yours,
    /// Another worker may be fetching it, for so long at most.
    Others(Duration),
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

/// A name for a holder of claims, a turn or a move that nobody else will ever have.
fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests;
