//! The audit trail of a file, by the index on the time of outcomes.

use rusqlite::{OptionalExtension as _, params};

use super::reader::Reader;
use super::rows::{self, AsWord, Millis};
use crate::ledger::record::CommandRecord;
use crate::ledger::{LedgerError, Mark, Sought, Stretch};

/// The outcomes of a stretch. The bounds of the time alone lead to the index; those of the pair are exact.
const WITHIN: &str = "finished_at IS NOT NULL AND finished_at >= ?1 AND finished_at <= ?3
    AND (finished_at, position) >= (?1, ?2) AND (finished_at, position) < (?3, ?4)";
/// What is looked for among them. GLOB tells capital letters from small ones, and nobody can write its other signs in a pattern.
const SOUGHT: &str = "(?5 IS NULL OR kf_account GLOB ?5) AND (?6 IS NULL OR action = ?6) AND (?7 IS NULL OR status = ?7)";
/// Oldest first, and newest first.
const ONWARD: &str = "ORDER BY finished_at, position";
const BACKWARD: &str = "ORDER BY finished_at DESC, position DESC";

impl Reader {
    /// What is looked for in a stretch, the oldest first.
    pub fn outcomes(&self, sought: &Sought, stretch: Stretch) -> Result<Vec<CommandRecord>, LedgerError> {
        let Stretch { from, to } = stretch;
        rows::select(
            self.connection(),
            &format!("{WITHIN} AND {SOUGHT} {ONWARD}"),
            params![
                Millis(from.finished_at),
                from.position,
                Millis(to.finished_at),
                to.position,
                sought.account.as_ref().map(|pattern| pattern.as_str()),
                sought.action.map(AsWord),
                sought.status.map(AsWord),
            ],
        )
    }

    /// The place of the outcome that comes after so many.
    pub fn mark_after(&self, count: usize, stretch: Stretch) -> Result<Option<Mark>, LedgerError> {
        self.mark(&marks(ONWARD), count, stretch)
    }

    /// The place of the first of the so many at the end.
    pub fn mark_before(&self, count: usize, stretch: Stretch) -> Result<Option<Mark>, LedgerError> {
        self.mark(&marks(BACKWARD), count.saturating_sub(1), stretch)
    }

    fn mark(&self, marks: &str, passed: usize, Stretch { from, to }: Stretch) -> Result<Option<Mark>, LedgerError> {
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let with = params![Millis(from.finished_at), from.position, Millis(to.finished_at), to.position, passed];
        let mut statement = self.connection().prepare_cached(marks)?;
        let mark = statement.query_row(with, |row| Ok(Mark { finished_at: row.get::<_, Millis>(0)?.0, position: row.get(1)? }));
        Ok(mark.optional()?)
    }
}

fn marks(order: &str) -> String {
    format!("SELECT finished_at, position FROM command WHERE {WITHIN} {order} LIMIT 1 OFFSET ?5")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::COMMAND;
    use crate::ledger::sqlite::reader::plan;

    #[test]
    fn a_stretch_is_found_and_ordered_by_the_index_on_outcomes() {
        let outcomes = format!("SELECT {COMMAND} FROM command WHERE {WITHIN} AND {SOUGHT} {ONWARD}");
        for statement in [outcomes, marks(ONWARD), marks(BACKWARD)] {
            let plan = plan(&statement);
            assert!(plan.contains("SEARCH command USING") && plan.contains("INDEX latest_outcomes"), "{statement}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{statement}: {plan}");
        }
        assert!(plan(&marks(ONWARD)).contains("COVERING INDEX"), "places are found without the rows");
    }
}
