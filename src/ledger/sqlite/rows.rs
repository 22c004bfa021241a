//! How records are loaded from, and stored in, the tables of one SQLite file.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Statement, params};

use super::known::Known;
use crate::command::Content;
use crate::ledger::record::{AccountRecord, COMMAND, CommandRecord, Ended, Holder, Latest, Lease, Word};
use crate::ledger::sheet::{Keys, Records, Sheet};
use crate::ledger::{Epoch, LedgerError, Position};
use crate::outcome::Answer;

/// The columns of an account in a file, and whether one of its commands is running. Claims are the process's own.
const ACCOUNT: &str = "kf_account, revision, last_action, last_action_at, last_position, last_delete_at, lost_add_at,
    EXISTS (SELECT 1 FROM command AS running
            WHERE running.kf_account = account.kf_account AND running.finished_at IS NULL AND running.state = 'running')";

/// The statements of the writer, prepared once: finding one again would cost as much as some of them.
pub struct Statements<'a> {
    by_id: Statement<'a>,
    by_position: Statement<'a>,
    unfinished: Statement<'a>,
    account: Statement<'a>,
    insert: Statement<'a>,
    go_on: Statement<'a>,
    update: Statement<'a>,
    store_account: Statement<'a>,
}

impl<'a> Statements<'a> {
    pub fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        let command = |what| connection.prepare(&format!("SELECT {COMMAND} FROM command WHERE {what}"));
        Ok(Self {
            by_id: command("command_id = ?1")?,
            by_position: command("position = ?1")?,
            unfinished: command("kf_account = ?1 AND finished_at IS NULL")?,
            account: connection.prepare(&format!("SELECT {ACCOUNT} FROM account WHERE kf_account = ?1"))?,
            insert: connection.prepare(&format!(
                "INSERT INTO command ({COMMAND}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                   ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)"
            ))?,
            // It touches no index.
            go_on: connection.prepare(
                "UPDATE command SET state = ?2, attempts = ?3, begun_at = ?4, answer_lost = ?5, suspect = ?6, deaths = ?7, trouble = ?8,
                   trouble_since = ?9, errcode = ?10, errmsg = ?11, seen_at = ?12
                 WHERE position = ?1",
            )?,
            // All that can ever change; the numbers are those of the insert.
            update: connection.prepare(
                "UPDATE command SET given = ?6, state = ?7, generation = ?8, attempts = ?9, attempts_before = ?10, begun_at = ?11,
                   answer_lost = ?12, suspect = ?13, deaths = ?14, trouble = ?15, trouble_since = ?16, errcode = ?17, errmsg = ?18,
                   age_from = ?20, seen_at = ?21, finished_at = ?22, status = ?23, reason = ?24, detail = ?25, data = ?26, dead_letter = ?27
                 WHERE position = ?1",
            )?,
            store_account: connection.prepare(
                "INSERT INTO account (kf_account, revision, last_action, last_action_at, last_position, last_delete_at, lost_add_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (kf_account) DO UPDATE
                 SET revision = ?2, last_action = ?3, last_action_at = ?4, last_position = ?5, last_delete_at = ?6, lost_add_at = ?7",
            )?,
        })
    }

    /// Loads all that the decisions of a transaction need, and answers whose accounts are loaded in whole.
    pub fn load(&mut self, keys: &Keys, known: &Known, holder: &Holder) -> Result<(Records, BTreeSet<String>), LedgerError> {
        let (mut commands, mut accounts, mut names) = (Vec::new(), Vec::new(), keys.kf_accounts.clone());
        for command_id in &keys.command_ids {
            commands.extend(collect(&mut self.by_id, [command_id], read_command)?);
        }
        for position in &keys.positions {
            if let Some(name) = known.account_of(*position) {
                names.insert(name.clone());
                continue;
            }
            for command in collect(&mut self.by_position, [position], read_command)? {
                names.extend(command.kf_account.clone());
                commands.push(command);
            }
        }
        if keys.claimed {
            names.extend(known.claimed_by(holder).cloned());
        }
        for name in &names {
            if let Some(account) = known.account(name) {
                accounts.push(account.record.clone());
                commands.extend(account.unfinished.iter().cloned());
                continue;
            }
            for account in collect(&mut self.account, [name], read_account)? {
                accounts.push(AccountRecord { epoch: known.latest_epoch(), ..account });
            }
            commands.extend(collect(&mut self.unfinished, [name], read_command)?);
        }
        // One more than can be used: what is next is still there afterwards.
        let free_positions = (known.next_position().0..).map(Position).take(keys.arrivals + 1).collect();
        Ok((Records { commands, accounts, free_positions }, names))
    }

    /// Writes back what has changed.
    pub fn store(&mut self, sheet: &Sheet, known: &Known) -> Result<(), LedgerError> {
        for command in sheet.changed_commands() {
            if command.position >= known.next_position() {
                write(&mut self.insert, command)?;
            } else if command.ended.is_none() && command.generation == 0 {
                self.go_on(command)?;
            } else {
                write(&mut self.update, command)?;
            }
        }
        for account in sheet.changed_accounts() {
            self.store_account(account)?;
        }
        Ok(())
    }

    /// What can change of a command that has never had an outcome, as long as it has none.
    fn go_on(&mut self, command: &CommandRecord) -> rusqlite::Result<()> {
        self.go_on
            .execute(params![
                command.position,
                AsWord(command.state),
                command.attempts,
                command.begun_at.map(Millis),
                command.answer_lost,
                command.suspect,
                command.deaths,
                command.trouble.map(|(trouble, _)| AsWord(trouble)),
                command.trouble.map(|(_, since)| Millis(since)),
                command.answer.as_ref().map(|answer| answer.errcode),
                command.answer.as_ref().map(|answer| answer.errmsg.as_str()),
                Millis(command.seen_at),
            ])
            .map(drop)
    }

    fn store_account(&mut self, account: &AccountRecord) -> rusqlite::Result<()> {
        // An account is written with its first command, never before.
        let Some(latest) = account.latest else { return Ok(()) };
        self.store_account
            .execute(params![
                account.kf_account,
                account.revision,
                AsWord(latest.action),
                Millis(latest.at),
                latest.position,
                account.last_delete_at.map(Millis),
                account.lost_add_at.map(Millis),
            ])
            .map(drop)
    }
}

/// Gives a statement all columns of a command by their numbers, whichever of them it uses.
fn write(statement: &mut Statement<'_>, command: &CommandRecord) -> rusqlite::Result<()> {
    let ended = command.ended.as_ref();
    statement
        .execute(params![
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
        ])
        .map(drop)
}

/// The commands of which something is true.
pub fn select(connection: &Connection, what: &str, parameters: impl Params) -> Result<Vec<CommandRecord>, LedgerError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COMMAND} FROM command WHERE {what}"))?;
    Ok(collect(&mut statement, parameters, read_command)?)
}

/// The accounts of which something is true.
pub fn select_accounts(connection: &Connection, what: &str, parameters: impl Params) -> Result<Vec<AccountRecord>, LedgerError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ACCOUNT} FROM account WHERE {what}"))?;
    Ok(collect(&mut statement, parameters, read_account)?)
}

/// The first position that no command has ever had.
pub fn first_free(connection: &Connection) -> rusqlite::Result<Position> {
    let mut last = connection.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'command'")?;
    let last: Option<i64> = last.query_row([], |row| row.get(0)).optional()?;
    Ok(Position(last.unwrap_or(0) + 1))
}

fn collect<T>(
    statement: &mut Statement<'_>,
    parameters: impl Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    statement.query_map(parameters, read)?.collect()
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

/// A command that runs, in a file whose claims nobody knows, was left so by a worker that died: its claim has run out.
fn read_account(row: &Row<'_>) -> rusqlite::Result<AccountRecord> {
    let latest = Latest { action: row.get::<_, AsWord<_>>(2)?.0, at: row.get::<_, Millis>(3)?.0, position: row.get(4)? };
    let lapsed = || Lease { holder: "a worker that died".to_owned(), until: Timestamp::UNIX_EPOCH };
    Ok(AccountRecord {
        kf_account: row.get(0)?,
        revision: row.get(1)?,
        latest: Some(latest),
        last_delete_at: row.get::<_, Option<Millis>>(5)?.map(|at| at.0),
        lost_add_at: row.get::<_, Option<Millis>>(6)?.map(|at| at.0),
        epoch: Epoch(0),
        lease: row.get::<_, bool>(7)?.then(lapsed),
    })
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
