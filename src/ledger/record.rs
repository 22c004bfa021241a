//! What a ledger holds of each command and each account, the same in every database.

use jiff::Timestamp;

use super::order::State;
use super::{Epoch, Finished, LedgerError, Position};
use crate::command::{Content, Given};
use crate::event::{Conclusion, Identity};
use crate::outcome::{Action, Answer, Reason, Status};

/// The columns of a command, in the order in which every database reads and writes them.
pub const COMMAND: &str =
    "position, command_id, content, action, kf_account, given, state, generation, attempts, attempts_before, begun_at,
    answer_lost, suspect, deaths, trouble, trouble_since, errcode, errmsg, received_at, age_from, seen_at,
    finished_at, status, reason, detail, data, dead_letter";

/// Who holds a claim: one process for as long as it runs.
pub type Holder = String;

/// Everything that is known of one command id.
#[derive(Debug, Clone)]
pub struct CommandRecord {
    /// The order of acceptance, for good.
    pub position: Position,
    pub command_id: String,
    /// What makes a repeat the same command.
    pub content: Content,
    /// Nothing where it could not be read.
    pub action: Option<Action>,
    pub kf_account: Option<String>,
    /// The producer's fields as JSON, until there is an outcome.
    pub given: Option<String>,
    pub state: Stored,
    /// 0, and one more for each replay.
    pub generation: u32,
    /// Calls to WeChat begun.
    pub attempts: u32,
    /// Those of earlier generations among them.
    pub attempts_before: u32,
    /// The latest call.
    pub begun_at: Option<Timestamp>,
    /// A call of this command may have landed unseen.
    pub answer_lost: bool,
    /// It was under way when its worker died: it runs alone next time.
    pub suspect: bool,
    /// Times that its worker died while it ran alone.
    pub deaths: u32,
    /// Why it waits, and since when.
    pub trouble: Option<(Reason, Timestamp)>,
    /// WeChat's latest answer while it waits.
    pub answer: Option<Answer>,
    pub received_at: Timestamp,
    /// First receipt of this generation.
    pub age_from: Timestamp,
    /// Latest receipt.
    pub seen_at: Timestamp,
    pub ended: Option<Ended>,
}

/// The outcome of a command.
#[derive(Debug, Clone)]
pub struct Ended {
    pub finished_at: Timestamp,
    pub status: Status,
    pub reason: Option<Reason>,
    pub detail: String,
    /// The event's data, byte for byte.
    pub data: String,
    /// Where one is due.
    pub dead_letter: Option<DeadLetter>,
}

/// A copy of a failed command goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetter {
    Owed,
    Confirmed,
}

/// The state of a command as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Unfinished(State),
    Finished,
}

/// What is known of an account, never forgotten.
#[derive(Debug, Clone)]
pub struct AccountRecord {
    pub kf_account: String,
    /// The latest accepted revision.
    pub revision: Option<i64>,
    /// The latest accepted command; nothing where none was accepted yet.
    pub latest: Option<Latest>,
    /// When the latest accepted delete was sent.
    pub last_delete_at: Option<Timestamp>,
    /// When the latest add whose answer was lost was sent.
    pub lost_add_at: Option<Timestamp>,
    /// Counts the claims: a claim is lost once there was another one.
    pub epoch: Epoch,
    /// Who may call WeChat for it now, and until when.
    pub lease: Option<Lease>,
}

/// The latest command that was accepted for an account.
#[derive(Debug, Clone, Copy)]
pub struct Latest {
    pub action: Action,
    /// When it was sent.
    pub at: Timestamp,
    pub position: Position,
}

/// The right to call WeChat for an account.
#[derive(Debug, Clone)]
pub struct Lease {
    pub holder: Holder,
    /// Another worker may take it from then on.
    pub until: Timestamp,
}

impl CommandRecord {
    /// Whether its last generation was this one and has failed.
    pub fn has_failed_in(&self, generation: u32) -> bool {
        self.generation == generation && self.ended.as_ref().is_some_and(|ended| ended.status == Status::Failed)
    }

    /// The producer's fields.
    pub fn given(&self) -> Result<Given, LedgerError> {
        let given = self.given.as_deref().and_then(|given| serde_json::from_str(given).ok());
        given.ok_or(LedgerError::Unreadable("an unfinished command whose fields can't be read"))
    }

    /// Its outcome, where it has one.
    pub fn finished(&self) -> Option<Finished> {
        let ended = self.ended.as_ref()?;
        let conclusion = Conclusion {
            command_id: self.command_id.clone(),
            identity: Identity::Generation(self.generation),
            action: self.action,
            kf_account: self.kf_account.clone(),
            status: ended.status,
            reason: ended.reason,
            detail: ended.detail.clone(),
            finished_at: ended.finished_at,
            data: ended.data.clone(),
        };
        Some(Finished { position: self.position, conclusion, dead_letter_owed: ended.dead_letter == Some(DeadLetter::Owed) })
    }

    /// Its worker has died, or has panicked over it, while it was under way.
    pub fn fell_with_its_worker(&mut self) {
        // A suspect runs alone, so that it was none but this one.
        self.deaths += u32::from(self.suspect);
        self.suspect = true;
    }
}

impl AccountRecord {
    /// An account that no command was accepted for yet.
    pub fn unknown(kf_account: &str) -> Self {
        let kf_account = kf_account.to_owned();
        Self { kf_account, revision: None, latest: None, last_delete_at: None, lost_add_at: None, epoch: Epoch(0), lease: None }
    }

    /// Whether the latest command wants it gone.
    pub fn is_to_be_deleted(&self) -> bool {
        self.latest.is_some_and(|latest| latest.action == Action::Delete)
    }
}

/// A closed list of words, as databases hold it.
pub trait Word: Copy + 'static {
    fn word(self) -> &'static str;
    fn from_stored(word: &str) -> Option<Self>;
}

impl Word for Stored {
    fn word(self) -> &'static str {
        match self {
            Self::Unfinished(State::Accepted) => "accepted",
            Self::Unfinished(State::Running) => "running",
            Self::Unfinished(State::Waiting) => "waiting",
            Self::Unfinished(State::Abandoned) => "abandoned",
            Self::Finished => "finished",
        }
    }

    fn from_stored(word: &str) -> Option<Self> {
        match word {
            "accepted" => Some(Self::Unfinished(State::Accepted)),
            "running" => Some(Self::Unfinished(State::Running)),
            "waiting" => Some(Self::Unfinished(State::Waiting)),
            "abandoned" => Some(Self::Unfinished(State::Abandoned)),
            "finished" => Some(Self::Finished),
            _ => None,
        }
    }
}

impl Word for DeadLetter {
    fn word(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Confirmed => "confirmed",
        }
    }

    fn from_stored(word: &str) -> Option<Self> {
        [Self::Owed, Self::Confirmed].into_iter().find(|stored| stored.word() == word)
    }
}

/// The words that events, metrics and logs use too.
macro_rules! stored_as_its_word {
    ($($name:ty),+) => {$(
        impl Word for $name {
            fn word(self) -> &'static str {
                self.as_str()
            }

            fn from_stored(word: &str) -> Option<Self> {
                Self::from_word(word)
            }
        }
    )+};
}

stored_as_its_word!(Action, Status, Reason, crate::outcome::Scope);
