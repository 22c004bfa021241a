//! What the ledger remembers besides commands: pauses of Official Accounts, dear tokens, and what each account should be.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{AsWord, Millis};
use crate::ledger::request::Pruned;
use crate::ledger::{KeptPause, LedgerError, Position, StoredToken, Wanted};
use crate::outcome::{Answer, Failure, Scope};
use crate::secret::Secret;

/// Commands looked at in one transaction when outcomes are forgotten, so that nobody waits long behind it.
const PRUNE_ROWS: i64 = 500;

pub fn keep_pause(connection: &Connection, pause: &KeptPause) -> Result<(), LedgerError> {
    let answer = pause.failure.answer.as_ref();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO pause (wechat_id, scope, since, until, reason, errcode, errmsg, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            pause.wechat_id,
            AsWord(pause.scope),
            Millis(pause.since),
            Millis(pause.until),
            AsWord(pause.failure.reason),
            answer.map(|answer| answer.errcode),
            answer.map(|answer| answer.errmsg.as_str()),
            pause.failure.detail,
        ])?;
    Ok(())
}

pub fn forget_pause(connection: &Connection, wechat_id: &str, scope: Scope) -> Result<(), LedgerError> {
    let mut of_scope = connection.prepare_cached("DELETE FROM pause WHERE wechat_id = ?1 AND scope = ?2")?;
    of_scope.execute(params![wechat_id, AsWord(scope)])?;
    Ok(())
}

pub fn save_token(connection: &Connection, token: &StoredToken) -> Result<(), LedgerError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO token (owner, origin, access_token, ends_at, refresh_token) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            token.owner,
            token.origin,
            token.access_token.expose(),
            Millis(token.ends_at),
            token.refresh_token.as_ref().map(Secret::expose),
        ])?;
    Ok(())
}

pub fn pauses(connection: &Connection) -> Result<Vec<KeptPause>, LedgerError> {
    let mut all = connection.prepare_cached("SELECT wechat_id, scope, since, until, reason, errcode, errmsg, detail FROM pause")?;
    let rows = all.query_map([], |row| {
        let errcode: Option<i64> = row.get(5)?;
        let errmsg: Option<String> = row.get(6)?;
        let answer = errcode.map(|errcode| Answer { errcode, errmsg: errmsg.unwrap_or_default() });
        Ok(KeptPause {
            wechat_id: row.get(0)?,
            scope: row.get::<_, AsWord<_>>(1)?.0,
            since: row.get::<_, Millis>(2)?.0,
            until: row.get::<_, Millis>(3)?.0,
            failure: Failure { reason: row.get::<_, AsWord<_>>(4)?.0, answer, detail: row.get(7)? },
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn token(connection: &Connection, owner: &str) -> Result<Option<StoredToken>, LedgerError> {
    let mut by_owner = connection.prepare_cached("SELECT origin, access_token, ends_at, refresh_token FROM token WHERE owner = ?1")?;
    let token = by_owner.query_row([owner], |row| {
        Ok(StoredToken {
            owner: owner.to_owned(),
            origin: row.get(0)?,
            access_token: Secret::from(row.get::<_, String>(1)?),
            ends_at: row.get::<_, Millis>(2)?.0,
            refresh_token: row.get::<_, Option<String>>(3)?.map(Secret::from),
        })
    });
    Ok(token.optional()?)
}

/// The nickname stands in the outcome of the latest command, or in the command itself while it is unfinished.
pub fn wanted(connection: &Connection, wechat_id: &str) -> Result<Vec<Wanted>, LedgerError> {
    let mut of_official_account = connection.prepare_cached(
        "SELECT account.kf_account, account.last_action, account.last_position, coalesce(command.data, command.given) ->> 'nickname',
           EXISTS (SELECT 1 FROM command AS other WHERE other.kf_account = account.kf_account AND other.finished_at IS NULL)
         FROM account LEFT JOIN command ON command.position = account.last_position
         WHERE substr(account.kf_account, instr(account.kf_account, '@') + 1) = ?1
         ORDER BY account.kf_account",
    )?;
    let rows = of_official_account.query_map([wechat_id], |row| {
        Ok(Wanted {
            kf_account: row.get(0)?,
            action: row.get::<_, AsWord<_>>(1)?.0,
            position: Position(row.get(2)?),
            nickname: row.get(3)?,
            unfinished: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Looks at the oldest commands only: outcomes are reached nearly in the order of acceptance, so no index is needed.
pub fn prune(connection: &Connection, after: Position, before: Timestamp) -> Result<Pruned, LedgerError> {
    let mut window = connection.prepare_cached(
        "SELECT max(position), min(received_at) FROM (SELECT position, received_at FROM command WHERE position > ?1 ORDER BY position LIMIT ?2)",
    )?;
    let (last, oldest) =
        window.query_row(params![after, PRUNE_ROWS], |row| Ok((row.get::<_, Option<Position>>(0)?, row.get::<_, Option<Millis>>(1)?)))?;
    let (Some(last), Some(oldest)) = (last, oldest) else { return Ok(Pruned { forgotten: 0, next: None }) };
    let mut old = connection
        .prepare_cached("DELETE FROM command WHERE position > ?1 AND position <= ?2 AND state = 'finished' AND finished_at < ?3")?;
    let forgotten = old.execute(params![after, last, Millis(before)])?;
    Ok(Pruned { forgotten, next: (oldest.0 < before).then_some(last) })
}
