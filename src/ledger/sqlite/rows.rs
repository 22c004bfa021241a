//! How records are loaded from, and stored in, the tables of one SQLite file.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};

use crate::command::Content;
use crate::ledger::record::{ACCOUNT, AccountRecord, COMMAND, CommandRecord, Ended, Latest, Lease, Word};
use crate::ledger::sheet::{Keys, Records, Sheet};
use crate::ledger::{Epoch, LedgerError, Position};
use crate::outcome::Answer;

/// Loads all that the decisions of a transaction need.
pub fn load(connection: &Connection, keys: &Keys, holder: &str) -> Result<Records, LedgerError> {
    let mut commands = HashMap::new();
    let mut names = keys.kf_accounts.clone();
    for command_id in &keys.command_ids {
        let found = select(connection, "command_id = ?1", [command_id])?;
        commands.extend(found.into_iter().map(|command| (command.position, command)));
    }
    for position in &keys.positions {
        for command in select(connection, "position = ?1", [position])? {
            names.extend(command.kf_account.clone());
            commands.insert(command.position, command);
        }
    }
    if keys.claimed {
        let mut claimed = connection.prepare_cached("SELECT kf_account FROM account WHERE holder = ?1")?;
        for name in claimed.query_map([holder], |row| row.get(0))? {
            names.insert(name?);
        }
    }
    let mut accounts = Vec::with_capacity(names.len());
    for name in &names {
        let unfinished = select(connection, "kf_account = ?1 AND state <> 'finished'", [name])?;
        commands.extend(unfinished.into_iter().map(|command| (command.position, command)));
        accounts.extend(select_accounts(connection, "kf_account = ?1", [name])?);
    }
    let free_positions = (first_free(connection)?.0..).map(Position).take(keys.arrivals).collect();
    Ok(Records { commands: commands.into_values().collect(), accounts, free_positions })
}

/// Writes back what has changed.
pub fn store(connection: &Connection, sheet: &Sheet) -> Result<(), LedgerError> {
    for command in sheet.changed_commands() {
        store_command(connection, command)?;
    }
    for account in sheet.changed_accounts() {
        store_account(connection, account)?;
    }
    Ok(())
}

/// The commands of which something is true.
pub fn select(connection: &Connection, what: &str, parameters: impl Params) -> Result<Vec<CommandRecord>, LedgerError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COMMAND} FROM command WHERE {what}"))?;
    let rows = statement.query_map(parameters, read_command)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The accounts of which something is true.
pub fn select_accounts(connection: &Connection, what: &str, parameters: impl Params) -> Result<Vec<AccountRecord>, LedgerError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ACCOUNT} FROM account WHERE {what}"))?;
    let rows = statement.query_map(parameters, read_account)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The first position that no command has ever had.
pub fn first_free(connection: &Connection) -> Result<Position, LedgerError> {
    let mut last = connection.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'command'")?;
    let last: Option<i64> = last.query_row([], |row| row.get(0)).optional()?;
    Ok(Position(last.unwrap_or(0) + 1))
}

fn read_command(row: &Row<'_>) -> rusqlite::Result<CommandRecord> {
    let errcode: Option<i64> = row.get(16)?;
    let errmsg: Option<String> = row.get(17)?;
    let ended = match row.get::<_, Option<AsWord<_>>>(22)? {
        Some(AsWord(status)) => Some(Ended {
            finished_at: row.get::<_, Millis>(21)?.0,
            status,
            reason: row.get::<_, Option<AsWord<_>>>(23)?.map(|reason| reason.0),
            detail: row.get::<_, Option<String>>(24)?.unwrap_or_default(),
            data: row.get(25)?,
            dead_letter: row.get::<_, Option<AsWord<_>>>(26)?.map(|dead_letter| dead_letter.0),
        }),
        None => None,
    };
    Ok(CommandRecord {
        position: row.get(0)?,
        command_id: row.get(1)?,
        content: row.get(2)?,
        action: row.get::<_, Option<AsWord<_>>>(3)?.map(|action| action.0),
        kf_account: row.get(4)?,
        given: row.get(5)?,
        state: row.get::<_, AsWord<_>>(6)?.0,
        generation: row.get(7)?,
        attempts: row.get(8)?,
        attempts_before: row.get(9)?,
        begun_at: row.get::<_, Option<Millis>>(10)?.map(|at| at.0),
        answer_lost: row.get(11)?,
        suspect: row.get(12)?,
        deaths: row.get(13)?,
        trouble: row.get::<_, Option<AsWord<_>>>(14)?.map(|trouble| trouble.0).zip(row.get::<_, Option<Millis>>(15)?.map(|at| at.0)),
        answer: errcode.map(|errcode| Answer { errcode, errmsg: errmsg.unwrap_or_default() }),
        received_at: row.get::<_, Millis>(18)?.0,
        age_from: row.get::<_, Millis>(19)?.0,
        seen_at: row.get::<_, Millis>(20)?.0,
        ended,
    })
}

fn store_command(connection: &Connection, command: &CommandRecord) -> Result<(), LedgerError> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO command ({COMMAND})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)
         ON CONFLICT (position) DO UPDATE
         SET given = ?6, state = ?7, generation = ?8, attempts = ?9, attempts_before = ?10, begun_at = ?11, answer_lost = ?12,
           suspect = ?13, deaths = ?14, trouble = ?15, trouble_since = ?16, errcode = ?17, errmsg = ?18, age_from = ?20, seen_at = ?21,
           finished_at = ?22, status = ?23, reason = ?24, detail = ?25, data = ?26, dead_letter = ?27"
    ))?;
    let ended = command.ended.as_ref();
    statement.execute(params![
        command.position,
        command.command_id,
        command.content,
        command.action.map(AsWord),
        command.kf_account,
        command.given,
        AsWord(command.state),
        command.generation,
        command.attempts,
        command.attempts_before,
        command.begun_at.map(Millis),
        command.answer_lost,
        command.suspect,
        command.deaths,
        command.trouble.map(|(trouble, _)| AsWord(trouble)),
        command.trouble.map(|(_, since)| Millis(since)),
        command.answer.as_ref().map(|answer| answer.errcode),
        command.answer.as_ref().map(|answer| answer.errmsg.as_str()),
        Millis(command.received_at),
        Millis(command.age_from),
        Millis(command.seen_at),
        ended.map(|ended| Millis(ended.finished_at)),
        ended.map(|ended| AsWord(ended.status)),
        ended.and_then(|ended| ended.reason).map(AsWord),
        ended.map(|ended| ended.detail.as_str()),
        ended.map(|ended| ended.data.as_str()),
        ended.and_then(|ended| ended.dead_letter).map(AsWord),
    ])?;
    Ok(())
}

fn read_account(row: &Row<'_>) -> rusqlite::Result<AccountRecord> {
    let latest = Latest { action: row.get::<_, AsWord<_>>(2)?.0, at: row.get::<_, Millis>(3)?.0, position: row.get(4)? };
    let lease = row.get::<_, Option<String>>(8)?.zip(row.get::<_, Option<Millis>>(9)?);
    Ok(AccountRecord {
        kf_account: row.get(0)?,
        revision: row.get(1)?,
        latest: Some(latest),
        last_delete_at: row.get::<_, Option<Millis>>(5)?.map(|at| at.0),
        lost_add_at: row.get::<_, Option<Millis>>(6)?.map(|at| at.0),
        epoch: Epoch(row.get(7)?),
        lease: lease.map(|(holder, until)| Lease { holder, until: until.0 }),
    })
}

fn store_account(connection: &Connection, account: &AccountRecord) -> Result<(), LedgerError> {
    // An account is written with its first command, never before.
    let Some(latest) = account.latest else { return Ok(()) };
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO account ({ACCOUNT}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (kf_account) DO UPDATE
         SET revision = ?2, last_action = ?3, last_action_at = ?4, last_position = ?5, last_delete_at = ?6, lost_add_at = ?7,
           epoch = ?8, holder = ?9, lease_until = ?10"
    ))?;
    statement.execute(params![
        account.kf_account,
        account.revision,
        AsWord(latest.action),
        Millis(latest.at),
        latest.position,
        account.last_delete_at.map(Millis),
        account.lost_add_at.map(Millis),
        account.epoch.0,
        account.lease.as_ref().map(|lease| lease.holder.as_str()),
        account.lease.as_ref().map(|lease| Millis(lease.until)),
    ])?;
    Ok(())
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

/// One of a closed list of words.
pub struct AsWord<T>(pub T);

impl<T: Word> ToSql for AsWord<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.word().into())
    }
}

impl<T: Word> FromSql for AsWord<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        T::from_stored(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Position {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for Position {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self)
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
