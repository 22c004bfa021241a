//! The audit trail of a database, by the index on the time of outcomes.

use tokio_postgres::types::Type;

use super::connection::Parameter;
use super::reader::Reader;
use super::rows;
use crate::command::AccountPattern;
use crate::ledger::record::{COMMAND, CommandRecord, Word};
use crate::ledger::{LedgerError, Mark, Position, Sought, Stretch};

/// The outcomes of a stretch. The bounds of the time alone lead to the index; those of the pair are exact.
const WITHIN: &str = "finished_at IS NOT NULL AND finished_at >= $1 AND finished_at <= $3
    AND (finished_at, position) >= ($1, $2) AND (finished_at, position) < ($3, $4)";
/// What is looked for among them.
const SOUGHT: &str = r"($5 IS NULL OR kf_account LIKE $5 ESCAPE '\') AND ($6 IS NULL OR action = $6) AND ($7 IS NULL OR status = $7)";
/// Oldest first, and newest first.
const ONWARD: &str = "ORDER BY finished_at, position";
const BACKWARD: &str = "ORDER BY finished_at DESC, position DESC";

impl Reader {
    /// What is looked for in a stretch, the oldest first.
    pub async fn outcomes(&self, sought: &Sought, Stretch { from, to }: Stretch) -> Result<Vec<CommandRecord>, LedgerError> {
        let account = sought.account.as_ref().map(like);
        let (action, status) = (sought.action.map(Word::word), sought.status.map(Word::word));
        let with: [Parameter<'_>; 7] = [
            (&from.finished_at, Type::TIMESTAMPTZ),
            (&from.position.0, Type::INT8),
            (&to.finished_at, Type::TIMESTAMPTZ),
            (&to.position.0, Type::INT8),
            (&account, Type::TEXT),
            (&action, Type::TEXT),
            (&status, Type::TEXT),
        ];
        let outcomes = format!("SELECT {COMMAND} FROM kf_worker.command WHERE {WITHIN} AND {SOUGHT} {ONWARD}");
        self.query(&outcomes, &with).await?.iter().map(rows::read_command).collect()
    }

    /// The place of the outcome that comes after so many.
    pub async fn mark_after(&self, count: usize, stretch: Stretch) -> Result<Option<Mark>, LedgerError> {
        self.mark(ONWARD, count, stretch).await
    }

    /// The place of the first of the so many at the end.
    pub async fn mark_before(&self, count: usize, stretch: Stretch) -> Result<Option<Mark>, LedgerError> {
        self.mark(BACKWARD, count.saturating_sub(1), stretch).await
    }

    async fn mark(&self, order: &str, passed: usize, Stretch { from, to }: Stretch) -> Result<Option<Mark>, LedgerError> {
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let with: [Parameter<'_>; 5] = [
            (&from.finished_at, Type::TIMESTAMPTZ),
            (&from.position.0, Type::INT8),
            (&to.finished_at, Type::TIMESTAMPTZ),
            (&to.position.0, Type::INT8),
            (&passed, Type::INT8),
        ];
        let mark = format!("SELECT finished_at, position FROM kf_worker.command WHERE {WITHIN} {order} LIMIT 1 OFFSET $5");
        let rows = self.query(&mark, &with).await?;
        let mark = rows.first().map(|row| Ok(Mark { finished_at: rows::column(row, 0)?, position: Position(rows::column(row, 1)?) }));
        mark.transpose()
    }
}

/// The same pattern as LIKE reads it; what else means something to it, and can stand in a pattern, is `_`.
fn like(pattern: &AccountPattern) -> String {
    pattern.as_str().replace('_', r"\_").replace('*', "%")
}
