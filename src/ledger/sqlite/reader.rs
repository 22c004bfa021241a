//! A ledger's file, read beside the worker that writes it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::rows::{self, Millis};
use super::{BUSY_TIMEOUT, Moved, OpenError, memory, schema};
use crate::ledger::record::CommandRecord;
use crate::ledger::{Census, LedgerError, StoredToken, Wanted};

/// The newest outcomes, by the index on their time.
const LATEST: &str = "finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?1";
/// What is unfinished, by the index on it, and was not seen for long. Its order is by an expression, or SQLite would go through
/// all that was ever finished to have it in order.
const MISSING: &str = "finished_at IS NULL AND seen_at < ?1 ORDER BY +position LIMIT ?2";
/// How many there are, by the index on them, and the time from which the age of the oldest counts.
const UNFINISHED: &str = "SELECT count(*), min(age_from) FROM command WHERE finished_at IS NULL";

/// Reads a ledger beside the worker that writes it.
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the file for reading only.
    ///
    /// # Errors
    /// Where it isn't there or is no ledger.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = |source| OpenError::Database { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, flags).map_err(database)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(database)?;
        // A file of an older version knows nothing of moves.
        if let Ok(Moved::Done(_)) = Moved::read(&connection) {
            return Err(OpenError::Moved(path.to_owned()));
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    /// How many steps its form is behind this version's.
    pub fn steps_behind(&self) -> Result<i64, LedgerError> {
        let found: i64 = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok(schema::known() - found)
    }

    /// What every known account of an Official Account should be.
    pub fn wanted(&self, wechat_id: &str) -> Result<Vec<Wanted>, LedgerError> {
        memory::wanted(&self.connection, wechat_id)
    }

    /// The token that was kept for an owner.
    pub fn token(&self, owner: &str) -> Result<Option<StoredToken>, LedgerError> {
        memory::token(&self.connection, owner)
    }

    /// What is known of a command id.
    pub fn find(&self, command_id: &str) -> Result<Option<CommandRecord>, LedgerError> {
        Ok(rows::select(&self.connection, "command_id = ?1", [command_id])?.pop())
    }

    /// The commands that were finished last, the newest first.
    pub fn latest(&self, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
        rows::select(&self.connection, LATEST, [i64::try_from(most).unwrap_or(i64::MAX)])
    }

    /// Unfinished commands whose messages were seen last before then, the oldest first.
    pub fn missing(&self, seen_before: Timestamp, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        rows::select(&self.connection, MISSING, rusqlite::params![Millis(seen_before), most])
    }

    /// How much is unfinished, and how large the file is.
    pub fn census(&self) -> Result<Census, LedgerError> {
        let mut unfinished = self.connection.prepare_cached(UNFINISHED)?;
        let (unfinished, oldest) = unfinished.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Millis>>(1)?)))?;
        Ok(Census {
            unfinished: unfinished.try_into().unwrap_or_default(),
            oldest_since: oldest.map(|oldest| oldest.0),
            size_bytes: self.size(),
        })
    }

    /// The connection, for what else is read from it.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn size(&self) -> u64 {
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        // Without a worker there is no log.
        [self.path.as_path(), Path::new(&log)].into_iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum()
    }
}

/// How SQLite goes about a statement.
#[cfg(test)]
pub(super) fn plan(statement: &str) -> String {
    let explain = || {
        let mut connection = Connection::open_in_memory()?;
        schema::migrations().to_latest(&mut connection).map_err(|_| rusqlite::Error::InvalidQuery)?;
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
        let details = plan.query_map(rusqlite::params_from_iter((0..plan.parameter_count()).map(|_| 20)), |row| row.get::<_, String>(3));
        details?.collect::<rusqlite::Result<Vec<_>>>()
    };
    explain().map_or_else(|error| format!("{statement}: {error}"), |lines| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_outcomes_are_found_by_an_index() {
        let plan = plan(&format!("SELECT data FROM command WHERE {LATEST}"));
        assert!(plan.contains("USING INDEX latest_outcomes") && !plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn only_what_is_unfinished_is_counted_through() {
        let plan = plan(UNFINISHED);
        assert!(plan.contains("INDEX unfinished_of_account"), "{plan}");
        assert!(plan.lines().all(|line| !line.starts_with("SCAN command") || line.contains("INDEX")), "{plan}");
    }

    #[test]
    fn what_is_missing_is_sought_among_what_is_unfinished() {
        let plan = plan(&format!("SELECT data FROM command WHERE {MISSING}"));
        assert!(plan.contains("INDEX unfinished_of_account"), "{plan}");
    }
}
