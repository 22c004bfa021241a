//! A file that is moved into a database: read in pieces, and marked so that no worker takes it up meanwhile.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, params};

use super::{OpenError, Opened, memory, rows};
use crate::ledger::moving::Counts;
use crate::ledger::record::{AccountRecord, CommandRecord};
use crate::ledger::{KeptPause, LedgerError, Position, StoredToken};

/// How far the move of a file has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    No,
    /// The move's name, which the database that it fills knows too.
    Begun(String),
    Done(String),
}

/// The file.
pub struct Source {
    connection: Connection,
    id: String,
    /// Held for as long as it is read: no worker may write meanwhile.
    _lock: File,
}

impl Moved {
    fn written(&self) -> Option<String> {
        match self {
            Self::No => None,
            Self::Begun(name) => Some(format!("begun {name}")),
            Self::Done(name) => Some(format!("done {name}")),
        }
    }

    /// As it is marked in the file.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let word: Option<String> = connection.query_row("SELECT moved FROM identity", [], |row| row.get(0))?;
        Ok(match word.as_deref().map(|word| word.split_once(' ').unwrap_or((word, ""))) {
            None => Self::No,
            Some(("begun", name)) => Self::Begun(name.to_owned()),
            Some((_, name)) => Self::Done(name.to_owned()),
        })
    }
}

impl Source {
    /// Takes the file, where there is one and no worker has it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        std::fs::metadata(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let Opened { connection, id, lock } = Opened::open(path)?;
        Ok(Self { connection, id, _lock: lock })
    }

    /// Who this ledger is.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How far its move has come.
    pub fn moved(&self) -> Result<Moved, LedgerError> {
        Ok(Moved::read(&self.connection)?)
    }

    /// Marks how far its move has come.
    pub fn mark(&mut self, moved: &Moved) -> Result<(), LedgerError> {
        self.connection.execute("UPDATE identity SET moved = ?1", [moved.written()])?;
        Ok(())
    }

    /// How much it holds.
    pub fn counts(&self) -> Result<Counts, LedgerError> {
        let counts = "SELECT (SELECT count(*) FROM command), (SELECT count(*) FROM command WHERE finished_at IS NULL),
            (SELECT count(*) FROM account), (SELECT count(*) FROM pause), (SELECT count(*) FROM token),
            (SELECT coalesce(max(position), 0) FROM command)";
        Ok(self.connection.query_row(counts, [], |row| {
            let count = |index| row.get(index).map(|count: i64| count.try_into().unwrap_or_default());
            Ok(Counts {
                commands: count(0)?,
                unfinished: count(1)?,
                accounts: count(2)?,
                pauses: count(3)?,
                tokens: count(4)?,
                last_position: row.get(5)?,
            })
        })?)
    }

    /// The next commands after a position, oldest first.
    pub fn commands(&self, after: Position, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
        rows::select(&self.connection, "position > ?1 ORDER BY position LIMIT ?2", params![after, as_limit(most)])
    }

    /// The next accounts after a name, by their names.
    pub fn accounts(&self, after: &str, most: usize) -> Result<Vec<AccountRecord>, LedgerError> {
        rows::select_accounts(&self.connection, "kf_account > ?1 ORDER BY kf_account LIMIT ?2", params![after, as_limit(most)])
    }

    /// All pauses.
    pub fn pauses(&self) -> Result<Vec<KeptPause>, LedgerError> {
        memory::pauses(&self.connection)
    }

    /// All tokens.
    pub fn tokens(&self) -> Result<Vec<StoredToken>, LedgerError> {
        let mut owners = self.connection.prepare("SELECT owner FROM token")?;
        let owners = owners.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(owners
            .iter()
            .map(|owner| memory::token(&self.connection, owner))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// The first position that no command has ever had.
    pub fn next_position(&self) -> Result<Position, LedgerError> {
        Ok(rows::first_free(&self.connection)?)
    }
}

fn as_limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
