//! The audit trail: outcomes in the order in which they were reached, read a part at a time, so that any number of them costs
//! neither memory nor a long transaction.

use jiff::Timestamp;

use super::record::CommandRecord;
use super::{Finished, LedgerError, Position, Reader};
use crate::command::AccountPattern;
use crate::outcome::{Action, Status};

/// So many outcomes are looked at in one go.
const PART: usize = 1_000;

/// Which outcomes are meant; what is left out leaves out none.
#[derive(Debug, Clone, Default)]
pub struct Sought {
    /// Those of accounts that fit. An outcome without an account fits none.
    pub account: Option<AccountPattern>,
    pub action: Option<Action>,
    pub status: Option<Status>,
}

/// A place in the trail: when an outcome was reached, and between those of the same moment the order of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub finished_at: Timestamp,
    pub position: Position,
}

/// The outcomes from one place on and before another.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub from: Mark,
    pub to: Mark,
}

impl Stretch {
    /// All that was reached from then on and before the other time; nothing at an end leaves it open.
    pub fn between(since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        // No outcome is older than these programs, and not every database knows every year of which there is a number.
        let mark = |at: Timestamp| Mark { finished_at: at.max(Timestamp::UNIX_EPOCH), position: Position(0) };
        Self { from: mark(since.unwrap_or(Timestamp::UNIX_EPOCH)), to: mark(until.unwrap_or(Timestamp::MAX)) }
    }
}

impl Reader {
    /// The outcomes at the head of a stretch, the oldest first, and the stretch behind them, unless this was all. There may be
    /// none in a part and more behind it.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn trail(&self, sought: &Sought, stretch: Stretch) -> Result<(Vec<Finished>, Option<Stretch>), LedgerError> {
        let rest = self.mark_after(PART, stretch).await?.map(|from| Stretch { from, ..stretch });
        let head = Stretch { to: rest.map_or(stretch.to, |rest| rest.from), ..stretch };
        let found = self.outcomes(sought, head).await?;
        Ok((found.iter().filter_map(CommandRecord::finished).collect(), rest))
    }

    /// The end of a stretch in which the so many newest outcomes are; the whole where there are not so many.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn newest(&self, mut most: usize, sought: &Sought, stretch: Stretch) -> Result<Stretch, LedgerError> {
        let mut rest = stretch;
        while most > 0 {
            let from = self.mark_before(PART, rest).await?;
            let tail = Stretch { from: from.unwrap_or(rest.from), ..rest };
            let found = self.outcomes(sought, tail).await?;
            if let Some(first) = found.len().checked_sub(most).and_then(|at| found.get(at)) {
                let finished_at = first.ended.as_ref().map_or(tail.from.finished_at, |ended| ended.finished_at);
                return Ok(Stretch { from: Mark { finished_at, position: first.position }, ..stretch });
            }
            most -= found.len();
            rest = Stretch { to: tail.from, ..rest };
            if from.is_none() {
                return Ok(stretch);
            }
        }
        Ok(Stretch { from: stretch.to, ..stretch })
    }

    async fn outcomes(&self, sought: &Sought, stretch: Stretch) -> Result<Vec<CommandRecord>, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.outcomes(sought, stretch),
            Self::Postgres(reader) => reader.outcomes(sought, stretch).await,
        }
    }

    /// The place of the outcome that comes after so many from the head; nothing where there are not more.
    async fn mark_after(&self, count: usize, stretch: Stretch) -> Result<Option<Mark>, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.mark_after(count, stretch),
            Self::Postgres(reader) => reader.mark_after(count, stretch).await,
        }
    }

    /// The place of the first of the so many at the end; nothing where there are not so many.
    async fn mark_before(&self, count: usize, stretch: Stretch) -> Result<Option<Mark>, LedgerError> {
        match self {
            Self::Sqlite(reader) => reader.mark_before(count, stretch),
            Self::Postgres(reader) => reader.mark_before(count, stretch).await,
        }
    }
}
