//! How the ledger's rows are written and read: words, times and fingerprints as SQLite holds them.

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};

use super::order::State;
use super::{Finished, LedgerError, Position};
use crate::command::{Content, Given};
use crate::event::{Conclusion, Identity};
use crate::outcome::{Action, Answer, Reason, Scope, Status};

/// A command id that was seen before.
pub struct Known {
    pub position: Position,
    pub content: Content,
    pub kf_account: Option<String>,
    pub state: Stored,
    pub generation: u32,
    pub status: Option<Status>,
}

impl Known {
    pub fn has_failed_in(&self, generation: u32) -> bool {
        self.state == Stored::Finished && self.status == Some(Status::Failed) && self.generation == generation
    }
}

/// What decides on arrival.
pub struct Account {
    pub revision: Option<i64>,
    pub last_delete_at: Option<Timestamp>,
    pub last_position: Position,
}

/// An unfinished row.
pub struct UnfinishedRow {
    pub given: Given,
    pub state: Stored,
    pub generation: u32,
    pub attempts: u32,
    pub answer_lost: bool,
    pub trouble: Option<(Reason, Timestamp)>,
    pub answer: Option<Answer>,
    pub received_at: Timestamp,
    pub age_from: Timestamp,
    pub attempts_before: u32,
    pub suspect: bool,
    pub deaths: u32,
}

impl UnfinishedRow {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let errcode: Option<i64> = row.get(7)?;
        let errmsg: Option<String> = row.get(8)?;
        Ok(Self {
            given: row.get(0)?,
            state: row.get(1)?,
            generation: row.get(2)?,
            attempts: row.get(3)?,
            answer_lost: row.get(4)?,
            trouble: row.get::<_, Option<Reason>>(5)?.zip(row.get::<_, Option<Millis>>(6)?.map(|at| at.0)),
            answer: errcode.map(|errcode| Answer { errcode, errmsg: errmsg.unwrap_or_default() }),
            received_at: row.get::<_, Millis>(9)?.0,
            age_from: row.get::<_, Millis>(10)?.0,
            attempts_before: row.get(11)?,
            suspect: row.get(12)?,
            deaths: row.get(13)?,
        })
    }
}

/// Reads an outcome as it was written.
pub fn read_finished(connection: &Connection, position: Position) -> Result<Finished, LedgerError> {
    let mut by_position = connection.prepare_cached(
        "SELECT command_id, generation, action, kf_account, status, reason, detail, finished_at, data, dead_letter
         FROM command WHERE position = ?1",
    )?;
    let finished = by_position.query_row([position], |row| {
        let conclusion = Conclusion {
            command_id: row.get(0)?,
            identity: Identity::Generation(row.get(1)?),
            action: row.get(2)?,
            kf_account: row.get(3)?,
            status: row.get(4)?,
            reason: row.get(5)?,
            detail: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
            finished_at: row.get::<_, Millis>(7)?.0,
            data: row.get(8)?,
        };
        let dead_letter_owed = row.get::<_, Option<String>>(9)?.as_deref() == Some("owed");
        Ok(Finished { position, conclusion, dead_letter_owed })
    })?;
    Ok(finished)
}

pub fn as_json(given: &Given) -> Result<String, LedgerError> {
    serde_json::to_string(given).map_err(|_| LedgerError::Unreadable("a command that can't be written as JSON"))
}

/// A time as it is stored: milliseconds since 1970.
#[derive(Clone, Copy)]
pub struct Millis(pub Timestamp);

impl ToSql for Millis {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_millisecond().into())
    }
}

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let millis = value.as_i64()?;
        Timestamp::from_millisecond(millis).map(Self).map_err(|_| FromSqlError::OutOfRange(millis))
    }
}

/// The state of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Unfinished(State),
    Finished,
}

impl ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let word = match self {
            Self::Unfinished(State::Accepted) => "accepted",
            Self::Unfinished(State::Running) => "running",
            Self::Unfinished(State::Waiting) => "waiting",
            Self::Unfinished(State::Abandoned) => "abandoned",
            Self::Finished => "finished",
        };
        Ok(word.into())
    }
}

impl FromSql for Stored {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "accepted" => Ok(Self::Unfinished(State::Accepted)),
            "running" => Ok(Self::Unfinished(State::Running)),
            "waiting" => Ok(Self::Unfinished(State::Waiting)),
            "abandoned" => Ok(Self::Unfinished(State::Abandoned)),
            "finished" => Ok(Self::Finished),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Position {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl ToSql for Content {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_slice().into())
    }
}

impl FromSql for Content {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self)
    }
}

impl FromSql for Given {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map_err(FromSqlError::other)
    }
}

/// Stores the closed word lists as their words.
macro_rules! stored_as_word {
    ($($name:ty),+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::from_word(value.as_str()?).ok_or(FromSqlError::InvalidType)
            }
        }
    )+};
}

stored_as_word!(Action, Scope, Status, Reason);
