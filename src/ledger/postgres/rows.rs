//! How records are loaded from, and stored in, the tables of a PostgreSQL database: a few statements for any number of
//! records, sent one behind the other without waiting in between.

use std::borrow::Cow;
use std::collections::HashMap;

use futures_util::future::{try_join, try_join5};
use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::Trouble;
use super::connection::{Connection, Parameter};
use crate::command::Content;
use crate::ledger::record::{AccountRecord, COMMAND, CommandRecord, Ended, Latest, Lease, Word};
use crate::ledger::sheet::{Keys, Records, Sheet};
use crate::ledger::{Epoch, LedgerError, Position};
use crate::outcome::Answer;

/// The columns of an account.
const ACCOUNT: &str =
    "kf_account, revision, last_action, last_action_at, last_position, last_delete_at, lost_add_at, epoch, holder, lease_until";
/// The names of all accounts that are asked for: $1 names, $2 positions of commands, $3 a holder's where it is not null.
const NAMES: &str = "SELECT unnest($1::text[]) UNION ALL SELECT kf_account FROM kf_worker.command WHERE position = ANY($2)
    UNION ALL SELECT kf_account FROM kf_worker.account WHERE holder = $3";

/// What a transaction has loaded, and of which ledger.
pub struct Loaded {
    pub records: Records,
    /// The present, by the database's clock, once everything was locked.
    pub now: Timestamp,
    /// Who this ledger is, and whether workers may use it.
    pub ledger_id: String,
    pub in_use: bool,
}

/// Begins a transaction, locks all accounts that it is about, in the order of their names, and loads all that the
/// decisions need: one round trip.
pub async fn load(client: &Client, keys: &Keys, holder: &str) -> Result<Loaded, LedgerError> {
    let names: Vec<&str> = keys.kf_accounts.iter().map(String::as_str).collect();
    let command_ids: Vec<&str> = keys.command_ids.iter().map(String::as_str).collect();
    let positions: Vec<i64> = keys.positions.iter().map(|position| position.0).collect();
    let holder = keys.claimed.then_some(holder);
    let arrivals = i64::try_from(keys.arrivals).unwrap_or(i64::MAX);
    let begin = super::connection::begin_statement();
    let new_accounts = "INSERT INTO kf_worker.account (kf_account) SELECT name FROM unnest($1::text[]) AS name ORDER BY name
        ON CONFLICT (kf_account) DO NOTHING";
    let accounts = format!("SELECT {ACCOUNT} FROM kf_worker.account WHERE kf_account IN ({NAMES}) ORDER BY kf_account FOR UPDATE");
    let unfinished = format!("SELECT {COMMAND} FROM kf_worker.command WHERE finished_at IS NULL AND kf_account IN ({NAMES})");
    let by_id = format!("SELECT {COMMAND} FROM kf_worker.command WHERE command_id = ANY($1) OR position = ANY($2)");
    let moment = "SELECT date_trunc('milliseconds', clock_timestamp()), ledger_id, move IS NULL FROM kf_worker.identity";
    let places = "SELECT nextval('kf_worker.position') FROM generate_series(1, $1)";
    let about: [Parameter<'_>; 3] = [(&names, Type::TEXT_ARRAY), (&positions, Type::INT8_ARRAY), (&holder, Type::TEXT)];
    let by_id_with: [Parameter<'_>; 2] = [(&command_ids, Type::TEXT_ARRAY), (&positions, Type::INT8_ARRAY)];
    let [new_accounts_with, places_with]: [[Parameter<'_>; 1]; 2] = [[(&names, Type::TEXT_ARRAY)], [(&arrivals, Type::INT8)]];
    // Each is sent when it is first polled, which happens in this order.
    let some_new = arrivals > 0;
    let locked = try_join(client.batch_execute(&begin), async {
        if some_new { client.execute_typed(new_accounts, &new_accounts_with).await.map(drop) } else { Ok(()) }
    });
    let loaded = try_join5(
        client.query_typed(&accounts, &about),
        client.query_typed(&unfinished, &about),
        client.query_typed(&by_id, &by_id_with),
        async { if some_new { client.query_typed(places, &places_with).await } else { Ok(Vec::new()) } },
        client.query_typed(moment, &[]),
    );
    let (_, (accounts, unfinished, by_id, places, moment)) = try_join(locked, loaded).await.map_err(Trouble::Failed)?;
    let mut commands = HashMap::new();
    for row in unfinished.iter().chain(&by_id) {
        let command = read_command(row)?;
        commands.insert(command.position, command);
    }
    let now = moment.first().ok_or(LedgerError::Unreadable("no time"))?;
    let records = Records {
        commands: commands.into_values().collect(),
        accounts: accounts.iter().map(read_account).collect::<Result<_, _>>()?,
        free_positions: places.iter().map(|row| column(row, 0).map(Position)).collect::<Result<_, _>>()?,
    };
    Ok(Loaded { records, now: column(now, 0)?, ledger_id: column(now, 1)?, in_use: column(now, 2)? })
}

/// What is known of a command id.
pub async fn find(connection: &mut Connection, command_id: &str) -> Result<Option<CommandRecord>, LedgerError> {
    let by_id = format!("SELECT {COMMAND} FROM kf_worker.command WHERE command_id = $1");
    let rows = connection.query(&by_id, &[(&command_id, Type::TEXT)]).await?;
    rows.first().map(read_command).transpose()
}

/// The commands that were finished last, the newest first.
pub async fn latest(connection: &mut Connection, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
    let newest = format!("SELECT {COMMAND} FROM kf_worker.command WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $1");
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    connection.query(&newest, &[(&most, Type::INT8)]).await?.iter().map(read_command).collect()
}

/// Unfinished commands whose messages were seen last before then, the oldest first.
pub async fn missing(connection: &mut Connection, seen_before: Timestamp, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
    let unseen = "finished_at IS NULL AND seen_at < $1 ORDER BY position LIMIT $2";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let parameters: &[Parameter<'_>] = &[(&seen_before, Type::TIMESTAMPTZ), (&most, Type::INT8)];
    let rows = connection.query(&format!("SELECT {COMMAND} FROM kf_worker.command WHERE {unseen}"), parameters).await?;
    rows.iter().map(read_command).collect()
}

/// Writes back what has changed and commits: one round trip.
pub async fn store_and_commit(client: &Client, sheet: &Sheet) -> Result<(), Error> {
    let stored = async {
        let commands: Vec<&CommandRecord> = sheet.changed_commands().collect();
        let accounts: Vec<&AccountRecord> = sheet.changed_accounts_and_claims().collect();
        try_join(store_commands(client, &commands), store_accounts(client, &accounts)).await
    };
    // Where a statement fails the commit behind it rolls back.
    try_join(stored, client.batch_execute("COMMIT")).await.map(drop)
}

/// Writes commands, new ones and changed ones. A position that is another command's already, since the database was put
/// back to a former state, is an error (an id that is null), and nothing is written.
pub async fn store_commands(client: &Client, commands: &[&CommandRecord]) -> Result<(), Error> {
    if commands.is_empty() {
        return Ok(());
    }
    let ended = |of: fn(&Ended) -> Option<&str>| column_of(commands, move |command| command.ended.as_ref().and_then(of));
    let statement = format!(
        "INSERT INTO kf_worker.command AS command ({COMMAND})
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
           $10::bigint[], $11::timestamptz[], $12::boolean[], $13::boolean[], $14::bigint[], $15::text[], $16::timestamptz[], $17::bigint[],
           $18::text[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::timestamptz[], $23::text[], $24::text[], $25::text[],
           $26::text[], $27::text[])
         ON CONFLICT (position) DO UPDATE
         SET command_id = CASE command.command_id WHEN excluded.command_id THEN excluded.command_id END,
           given = excluded.given, state = excluded.state, generation = excluded.generation, attempts = excluded.attempts,
           attempts_before = excluded.attempts_before, begun_at = excluded.begun_at, answer_lost = excluded.answer_lost,
           suspect = excluded.suspect, deaths = excluded.deaths, trouble = excluded.trouble, trouble_since = excluded.trouble_since,
           errcode = excluded.errcode, errmsg = excluded.errmsg, age_from = excluded.age_from, seen_at = excluded.seen_at,
           finished_at = excluded.finished_at, status = excluded.status, reason = excluded.reason, detail = excluded.detail,
           data = excluded.data, dead_letter = excluded.dead_letter"
    );
    let content: Vec<&[u8]> = column_of(commands, |command| command.content.0.as_slice());
    let texts = |of: fn(&CommandRecord) -> Option<&str>| column_of(commands, move |command| of(command).map(storable));
    let numbers = |of: fn(&CommandRecord) -> i64| column_of(commands, of);
    let times = |of: fn(&CommandRecord) -> Option<Timestamp>| column_of(commands, of);
    let flags = |of: fn(&CommandRecord) -> bool| column_of(commands, of);
    client
        .execute_typed(
            &statement,
            &[
                (&numbers(|command| command.position.0), Type::INT8_ARRAY),
                (&texts(|command| Some(&command.command_id)), Type::TEXT_ARRAY),
                (&content, Type::BYTEA_ARRAY),
                (&texts(|command| command.action.map(Word::word)), Type::TEXT_ARRAY),
                (&texts(|command| command.kf_account.as_deref()), Type::TEXT_ARRAY),
                (&texts(|command| command.given.as_deref()), Type::TEXT_ARRAY),
                (&texts(|command| Some(command.state.word())), Type::TEXT_ARRAY),
                (&numbers(|command| command.generation.into()), Type::INT8_ARRAY),
                (&numbers(|command| command.attempts.into()), Type::INT8_ARRAY),
                (&numbers(|command| command.attempts_before.into()), Type::INT8_ARRAY),
                (&times(|command| command.begun_at), Type::TIMESTAMPTZ_ARRAY),
                (&flags(|command| command.answer_lost), Type::BOOL_ARRAY),
                (&flags(|command| command.suspect), Type::BOOL_ARRAY),
                (&numbers(|command| command.deaths.into()), Type::INT8_ARRAY),
                (&texts(|command| command.trouble.map(|(trouble, _)| trouble.word())), Type::TEXT_ARRAY),
                (&times(|command| command.trouble.map(|(_, since)| since)), Type::TIMESTAMPTZ_ARRAY),
                (&column_of(commands, |command| command.answer.as_ref().map(|answer| answer.errcode)), Type::INT8_ARRAY),
                (&texts(|command| command.answer.as_ref().map(|answer| answer.errmsg.as_str())), Type::TEXT_ARRAY),
                (&times(|command| Some(command.received_at)), Type::TIMESTAMPTZ_ARRAY),
                (&times(|command| Some(command.age_from)), Type::TIMESTAMPTZ_ARRAY),
                (&times(|command| Some(command.seen_at)), Type::TIMESTAMPTZ_ARRAY),
                (&times(|command| command.ended.as_ref().map(|ended| ended.finished_at)), Type::TIMESTAMPTZ_ARRAY),
                (&ended(|ended| Some(ended.status.word())), Type::TEXT_ARRAY),
                (&ended(|ended| ended.reason.map(Word::word)), Type::TEXT_ARRAY),
                (&texts(|command| command.ended.as_ref().map(|ended| ended.detail.as_str())), Type::TEXT_ARRAY),
                (&ended(|ended| Some(&ended.data)), Type::TEXT_ARRAY),
                (&ended(|ended| ended.dead_letter.map(Word::word)), Type::TEXT_ARRAY),
            ],
        )
        .await
        .map(drop)
}

/// Writes accounts, new ones and changed ones.
pub async fn store_accounts(client: &Client, accounts: &[&AccountRecord]) -> Result<(), Error> {
    if accounts.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "INSERT INTO kf_worker.account ({ACCOUNT})
         SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::bigint[], $6::timestamptz[], $7::timestamptz[],
           $8::bigint[], $9::text[], $10::timestamptz[])
         ON CONFLICT (kf_account) DO UPDATE
         SET revision = excluded.revision, last_action = excluded.last_action, last_action_at = excluded.last_action_at,
           last_position = excluded.last_position, last_delete_at = excluded.last_delete_at, lost_add_at = excluded.lost_add_at,
           epoch = excluded.epoch, holder = excluded.holder, lease_until = excluded.lease_until"
    );
    let times = |of: fn(&AccountRecord) -> Option<Timestamp>| column_of(accounts, of);
    client
        .execute_typed(
            &statement,
            &[
                (&column_of(accounts, |account| account.kf_account.as_str()), Type::TEXT_ARRAY),
                (&column_of(accounts, |account| account.revision), Type::INT8_ARRAY),
                (&column_of(accounts, |account| account.latest.map(|latest| latest.action.word())), Type::TEXT_ARRAY),
                (&times(|account| account.latest.map(|latest| latest.at)), Type::TIMESTAMPTZ_ARRAY),
                (&column_of(accounts, |account| account.latest.map(|latest| latest.position.0)), Type::INT8_ARRAY),
                (&times(|account| account.last_delete_at), Type::TIMESTAMPTZ_ARRAY),
                (&times(|account| account.lost_add_at), Type::TIMESTAMPTZ_ARRAY),
                (&column_of(accounts, |account| account.epoch.0), Type::INT8_ARRAY),
                (&column_of(accounts, |account| account.lease.as_ref().map(|lease| lease.holder.as_str())), Type::TEXT_ARRAY),
                (&times(|account| account.lease.as_ref().map(|lease| lease.until)), Type::TIMESTAMPTZ_ARRAY),
            ],
        )
        .await
        .map(drop)
}

fn column_of<'a, R, T>(records: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    records.iter().map(|record| of(record)).collect()
}

/// PostgreSQL takes no NUL in a text, and what WeChat says or a producer sends may hold one.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

pub fn read_command(row: &Row) -> Result<CommandRecord, LedgerError> {
    let errmsg: Option<String> = column(row, 17)?;
    let ended = match word(row, 22)? {
        Some(status) => Some(Ended {
            finished_at: column(row, 21)?,
            status,
            reason: word(row, 23)?,
            detail: column::<Option<String>>(row, 24)?.unwrap_or_default(),
            data: column(row, 25)?,
            dead_letter: word(row, 26)?,
        }),
        None => None,
    };
    Ok(CommandRecord {
        position: Position(column(row, 0)?),
        command_id: column(row, 1)?,
        content: Content(column::<&[u8]>(row, 2)?.try_into().map_err(|_| LedgerError::Unreadable("a fingerprint of another length"))?),
        action: word(row, 3)?,
        kf_account: column(row, 4)?,
        given: column(row, 5)?,
        state: word(row, 6)?.ok_or(LedgerError::Unreadable("a command without a state"))?,
        generation: count(row, 7)?,
        attempts: count(row, 8)?,
        attempts_before: count(row, 9)?,
        begun_at: column(row, 10)?,
        answer_lost: column(row, 11)?,
        suspect: column(row, 12)?,
        deaths: count(row, 13)?,
        trouble: word(row, 14)?.zip(column(row, 15)?),
        answer: column::<Option<i64>>(row, 16)?.map(|errcode| Answer { errcode, errmsg: errmsg.unwrap_or_default() }),
        received_at: column(row, 18)?,
        age_from: column(row, 19)?,
        seen_at: column(row, 20)?,
        ended,
    })
}

fn read_account(row: &Row) -> Result<AccountRecord, LedgerError> {
    let latest = match (word(row, 2)?, column(row, 3)?, column(row, 4)?) {
        (Some(action), Some(at), Some(position)) => Some(Latest { action, at, position: Position(position) }),
        _ => None,
    };
    let lease = column::<Option<String>>(row, 8)?.zip(column(row, 9)?);
    Ok(AccountRecord {
        kf_account: column(row, 0)?,
        revision: column(row, 1)?,
        latest,
        last_delete_at: column(row, 5)?,
        lost_add_at: column(row, 6)?,
        epoch: Epoch(column(row, 7)?),
        lease: lease.map(|(holder, until)| Lease { holder, until }),
    })
}

/// A column's value, in its type.
pub fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, LedgerError> {
    row.try_get(index).map_err(|_| LedgerError::Unreadable("a column of another type"))
}

/// One of a closed list of words.
pub fn word<T: Word>(row: &Row, index: usize) -> Result<Option<T>, LedgerError> {
    let Some(word) = column::<Option<&str>>(row, index)? else { return Ok(None) };
    T::from_stored(word).map(Some).ok_or(LedgerError::Unreadable("a word that this version does not know"))
}

fn count(row: &Row, index: usize) -> Result<u32, LedgerError> {
    column::<i64>(row, index)?.try_into().map_err(|_| LedgerError::Unreadable("a count out of its range"))
}
