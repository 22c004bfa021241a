//! Reading a ledger beside the workers that write it.

use super::record::CommandRecord;
use super::{Finished, LedgerError, OpenError, Place, StoredToken, Wanted, postgres, sqlite};

/// A ledger that is only read.
pub enum Reader {
    Sqlite(sqlite::Reader),
    Postgres(Box<postgres::Reader>),
}

/// What a ledger knows of a command id.
#[derive(Debug)]
pub enum Lookup {
    Unknown,
    Unfinished,
    Finished(Box<Finished>),
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

    /// The outcome of a command, where it has one.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn find(&self, command_id: &str) -> Result<Lookup, LedgerError> {
        let found = match self {
            Self::Sqlite(reader) => reader.find(command_id)?,
            Self::Postgres(reader) => reader.find(command_id).await?,
        };
        Ok(match found.as_ref().map(CommandRecord::finished) {
            None => Lookup::Unknown,
            Some(None) => Lookup::Unfinished,
            Some(Some(finished)) => Lookup::Finished(Box::new(finished)),
        })
    }
}
