//! What the ledger remembers besides commands, in PostgreSQL: pauses, dear tokens, what each account should be, and who is there.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::connection::{Connection, Parameter};
use super::rows::{column, storable, word};
use crate::ledger::request::Pruned;
use crate::ledger::{Attendance, FetchedToken, Fetcher, KeptPause, LedgerError, Position, StoredToken, TokenTurn, Wanted};
use crate::outcome::{Answer, Failure, Scope};
use crate::secret::Secret;

/// Commands looked at in one transaction when outcomes are forgotten, so that nobody waits long behind it.
const PRUNE_ROWS: i64 = 500;
/// A worker that has not said for so long that it is alive is none.
pub const ABSENT_AFTER: Duration = Duration::from_secs(10);
/// A turn to fetch a token lasts as long as so many claims on an account, each longer than one request: a platform's verify
/// ticket, its token, and the token that it gets for an Official Account.
const TURN_CLAIMS: u32 = 4;

/// Remembers a pause, in place of the one of its scope.
pub async fn keep_pause(connection: &mut Connection, pause: &KeptPause) -> Result<(), LedgerError> {
    let answer = pause.failure.answer.as_ref();
    connection
        .query(
            "INSERT INTO kf_worker.pause (wechat_id, scope, since, until, reason, errcode, errmsg, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (wechat_id, scope) DO UPDATE
             SET since = $3, until = $4, reason = $5, errcode = $6, errmsg = $7, detail = $8",
            &[
                (&pause.wechat_id, Type::TEXT),
                (&pause.scope.as_str(), Type::TEXT),
                (&pause.since, Type::TIMESTAMPTZ),
                (&pause.until, Type::TIMESTAMPTZ),
                (&pause.failure.reason.as_str(), Type::TEXT),
                (&answer.map(|answer| answer.errcode), Type::INT8),
                (&answer.map(|answer| storable(&answer.errmsg)), Type::TEXT),
                (&storable(&pause.failure.detail), Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}

/// Forgets the pause of a scope.
pub async fn forget_pause(connection: &mut Connection, wechat_id: &str, scope: Scope) -> Result<(), LedgerError> {
    let which: [Parameter<'_>; 2] = [(&wechat_id, Type::TEXT), (&scope.as_str(), Type::TEXT)];
    connection.query("DELETE FROM kf_worker.pause WHERE wechat_id = $1 AND scope = $2", &which).await?;
    Ok(())
}

/// Keeps a token that comes from another ledger.
pub async fn save_token(connection: &mut Connection, token: &StoredToken) -> Result<(), LedgerError> {
    connection
        .query(
            "INSERT INTO kf_worker.token (owner, origin, access_token, ends_at, refresh_token) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (owner) DO UPDATE SET origin = $2, access_token = $3, ends_at = $4, refresh_token = $5",
            &[
                (&token.owner, Type::TEXT),
                (&token.origin, Type::BYTEA),
                (&token.access_token.expose(), Type::TEXT),
                (&token.ends_at, Type::TIMESTAMPTZ),
                (&token.refresh_token.as_ref().map(Secret::expose), Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}

/// Takes the turn to fetch a token where nobody has it, or only for as long as has passed.
pub async fn token_turn(connection: &mut Connection, fetcher: &Fetcher, claim: Duration) -> Result<TokenTurn, LedgerError> {
    let lasts = claim * TURN_CLAIMS;
    let statement = "
        WITH taken AS (
          INSERT INTO kf_worker.token_turn AS turn (owner, fetcher, ends_at) VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')
          ON CONFLICT (owner) DO UPDATE SET fetcher = $2, ends_at = excluded.ends_at
          WHERE turn.fetcher = $2 OR turn.ends_at <= clock_timestamp()
          RETURNING owner)
        SELECT EXISTS (SELECT FROM taken),
          (SELECT extract(epoch FROM ends_at - clock_timestamp())::float8 FROM kf_worker.token_turn WHERE owner = $1)";
    let seconds = lasts.as_secs_f64();
    let with: [Parameter<'_>; 3] = [(&fetcher.owner, Type::TEXT), (&fetcher.name, Type::TEXT), (&seconds, Type::FLOAT8)];
    let rows = connection.query(statement, &with).await?;
    let row = rows.first().ok_or(LedgerError::Unreadable("no answer about a turn"))?;
    if column(row, 0)? {
        return Ok(TokenTurn::Yours);
    }
    // One that was taken in this very moment is not seen yet.
    let left: Option<f64> = column(row, 1)?;
    Ok(TokenTurn::Others(left.map_or(lasts, |left| Duration::try_from_secs_f64(left).unwrap_or_default())))
}

/// Gives the turn back.
pub async fn end_token_turn(connection: &mut Connection, fetcher: &Fetcher) -> Result<(), LedgerError> {
    let statement = "DELETE FROM kf_worker.token_turn WHERE owner = $1 AND fetcher = $2";
    connection.query(statement, &[(&fetcher.owner, Type::TEXT), (&fetcher.name, Type::TEXT)]).await?;
    Ok(())
}

/// Sent twice, since an answer may be lost, it finds its own token and says the same.
pub async fn save_fetched_token(connection: &mut Connection, fetched: &FetchedToken) -> Result<bool, LedgerError> {
    let FetchedToken { token, before, fetcher } = fetched;
    let statement = "
        WITH ended AS (DELETE FROM kf_worker.token_turn WHERE owner = $1 AND fetcher = $6)
        INSERT INTO kf_worker.token AS kept (owner, origin, access_token, ends_at, refresh_token) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (owner) DO UPDATE SET origin = $2, access_token = $3, ends_at = $4, refresh_token = $5
        WHERE kept.origin <> $2 OR kept.access_token = $3 OR kept.access_token = $7
        RETURNING owner";
    let rows = connection
        .query(
            statement,
            &[
                (&token.owner, Type::TEXT),
                (&token.origin, Type::BYTEA),
                (&token.access_token.expose(), Type::TEXT),
                (&token.ends_at, Type::TIMESTAMPTZ),
                (&token.refresh_token.as_ref().map(Secret::expose), Type::TEXT),
                (&fetcher.name, Type::TEXT),
                (&before.as_ref().map(Secret::expose), Type::TEXT),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// All that are remembered.
pub async fn pauses(connection: &mut Connection) -> Result<Vec<KeptPause>, LedgerError> {
    let all = "SELECT wechat_id, scope, since, until, reason, errcode, errmsg, detail FROM kf_worker.pause ORDER BY wechat_id, scope";
    let rows = connection.query(all, &[]).await?;
    let read = |row| {
        let errmsg: Option<String> = column(row, 6)?;
        let answer = column::<Option<i64>>(row, 5)?.map(|errcode| Answer { errcode, errmsg: errmsg.unwrap_or_default() });
        let (Some(scope), Some(reason)) = (word(row, 1)?, word(row, 4)?) else {
            return Err(LedgerError::Unreadable("a pause without scope or reason"));
        };
        let failure = Failure { reason, answer, detail: column(row, 7)? };
        Ok(KeptPause { wechat_id: column(row, 0)?, scope, since: column(row, 2)?, until: column(row, 3)?, failure })
    };
    rows.iter().map(read).collect()
}

/// The token that is kept for an owner.
pub async fn token(connection: &mut Connection, owner: &str) -> Result<Option<StoredToken>, LedgerError> {
    let by_owner = "SELECT origin, access_token, ends_at, refresh_token FROM kf_worker.token WHERE owner = $1";
    let rows = connection.query(by_owner, &[(&owner, Type::TEXT)]).await?;
    let read = |row| {
        Ok(StoredToken {
            owner: owner.to_owned(),
            origin: column(row, 0)?,
            access_token: Secret::from(column::<String>(row, 1)?),
            ends_at: column(row, 2)?,
            refresh_token: column::<Option<String>>(row, 3)?.map(Secret::from),
        })
    };
    rows.first().map(read).transpose()
}

/// The nickname stands in the outcome of the latest command, or in the command itself while it is unfinished.
pub async fn wanted(connection: &mut Connection, wechat_id: &str) -> Result<Vec<Wanted>, LedgerError> {
    let of_official_account = "
        SELECT account.kf_account, account.last_action, account.last_position, coalesce(command.data, command.given),
          EXISTS (SELECT FROM kf_worker.command AS other WHERE other.kf_account = account.kf_account AND other.finished_at IS NULL)
        FROM kf_worker.account LEFT JOIN kf_worker.command ON command.position = account.last_position
        WHERE split_part(account.kf_account, '@', 2) = $1 AND account.last_action IS NOT NULL
        ORDER BY account.kf_account COLLATE \"C\"";
    let rows = connection.query(of_official_account, &[(&wechat_id, Type::TEXT)]).await?;
    let read = |row| {
        Ok(Wanted {
            kf_account: column(row, 0)?,
            action: word(row, 1)?.ok_or(LedgerError::Unreadable("an account without an action"))?,
            position: Position(column(row, 2)?),
            nickname: nickname(column(row, 3)?),
            unfinished: column(row, 4)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Read here, since PostgreSQL takes no JSON in which any text holds a NUL.
fn nickname(data: Option<&str>) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        nickname: Option<String>,
    }
    serde_json::from_str::<Named>(data?).ok()?.nickname
}

/// Looks at the oldest commands only: outcomes are reached nearly in the order of acceptance, so no index is needed. What
/// another worker is forgetting just now is left to it.
pub async fn prune(connection: &mut Connection, after: Position, retention: Duration) -> Result<Pruned, LedgerError> {
    let seconds = retention.as_secs_f64();
    let statement = "
        WITH oldest AS (
          SELECT position, received_at FROM kf_worker.command WHERE position > $1 ORDER BY position LIMIT $3),
        old AS (
          SELECT position FROM kf_worker.command
          WHERE position IN (SELECT position FROM oldest) AND state = 'finished' AND finished_at < now() - $2 * interval '1 second'
          FOR UPDATE SKIP LOCKED),
        forgotten AS (DELETE FROM kf_worker.command WHERE position IN (SELECT position FROM old) RETURNING position)
        SELECT (SELECT count(*) FROM forgotten), (SELECT max(position) FROM oldest),
          (SELECT min(received_at) < now() - $2 * interval '1 second' FROM oldest)";
    let rows = connection.query(statement, &[(&after.0, Type::INT8), (&seconds, Type::FLOAT8), (&PRUNE_ROWS, Type::INT8)]).await?;
    let row = rows.first().ok_or(LedgerError::Unreadable("no answer of pruning"))?;
    let forgotten = column::<i64>(row, 0)?.try_into().unwrap_or_default();
    let (last, some_old) = (column::<Option<i64>>(row, 1)?, column::<Option<bool>>(row, 2)?.unwrap_or(false));
    Ok(Pruned { forgotten, next: last.filter(|_| some_old).map(Position) })
}

/// Says that this worker is there, and counts those that are.
pub async fn attend(connection: &mut Connection, holder: &str) -> Result<Attendance, LedgerError> {
    let here = "INSERT INTO kf_worker.worker (holder, joined_at, seen_at) VALUES ($1, clock_timestamp(), clock_timestamp())
        ON CONFLICT (holder) DO UPDATE SET seen_at = clock_timestamp()";
    let gone = "DELETE FROM kf_worker.worker WHERE seen_at < clock_timestamp() - interval '1 hour'";
    let present =
        "SELECT holder FROM kf_worker.worker WHERE seen_at >= clock_timestamp() - $1 * interval '1 second' ORDER BY joined_at, holder";
    let seconds = ABSENT_AFTER.as_secs_f64();
    connection.query(here, &[(&holder, Type::TEXT)]).await?;
    connection.query(gone, &[]).await?;
    let rows = connection.query(present, &[(&seconds, Type::FLOAT8)]).await?;
    let holders = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<&str>, _>>()?;
    let index = holders.iter().position(|other| *other == holder).unwrap_or(0);
    Ok(Attendance { index, of: holders.len().max(1) })
}

/// Says that this worker takes no more commands.
pub async fn leave(connection: &mut Connection, holder: &str) -> Result<(), LedgerError> {
    connection.query("DELETE FROM kf_worker.worker WHERE holder = $1", &[(&holder, Type::TEXT)]).await?;
    Ok(())
}

/// Proves that the database takes writes.
pub async fn probe(connection: &mut Connection) -> Result<(), LedgerError> {
    connection.query("UPDATE kf_worker.identity SET ledger_id = ledger_id", &[]).await?;
    Ok(())
}
