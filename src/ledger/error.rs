//! Why a ledger can't be used, or not be opened.

use std::sync::Arc;

use super::{postgres, sqlite};

/// Why the ledger can't be used; nothing was changed, or it is not known whether it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// A statement or the commit failed (disk full, read-only, locked by another program…).
    #[error("the ledger can't be written or read: {0}{advice}", advice = sqlite::advice(.0))]
    Sqlite(Arc<rusqlite::Error>),
    /// The server can't be reached, went away, or refused.
    #[error("the ledger's database can't be used: {0}")]
    Postgres(Arc<postgres::Trouble>),
    /// What is stored there can't be understood.
    #[error("the ledger holds something that this version can't read: {0}")]
    Unreadable(&'static str),
    /// Another file stands at its path, or none: what is written would be lost.
    #[error("the ledger's file was deleted or replaced under the worker; put it back, or restore a backup and restart the worker")]
    Gone,
    /// Another ledger was put into the database, or is being put there.
    #[error("the database holds another ledger than when the worker was started; restart the worker")]
    Replaced,
    /// What writes the ledger has ended.
    #[error("the ledger is closed")]
    Closed,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<postgres::Trouble> for LedgerError {
    fn from(trouble: postgres::Trouble) -> Self {
        Self::Postgres(Arc::new(trouble))
    }
}

/// Why the ledger can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
}

impl OpenError {
    /// Whether it may pass by itself: a server that can't be reached.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.may_pass())
    }
}
