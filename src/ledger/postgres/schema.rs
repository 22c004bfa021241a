//! The tables of the PostgreSQL ledger and the steps that bring an older one to today's form.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::connection::begin_statement;

/// Every step in order; a step that was released is never changed.
const STEPS: [&str; 3] = [
    "
    -- One row for each command id, kept for `ledger.retention` after its outcome.
    CREATE TABLE kf_worker.command (
        position        bigint PRIMARY KEY,                -- the order of acceptance, for good
        command_id      text NOT NULL UNIQUE,
        content         bytea NOT NULL,                    -- fingerprint: what makes a repeat the same command
        action          text,                              -- null where it could not be read
        kf_account      text,
        given           text,                              -- the producer's fields, JSON; until there is an outcome
        state           text NOT NULL,                     -- accepted, running, waiting, abandoned, finished
        generation      bigint NOT NULL,                   -- 0, and one more for each replay
        attempts        bigint NOT NULL,                   -- calls to WeChat begun
        attempts_before bigint NOT NULL,                   -- those of earlier generations among them
        begun_at        timestamptz,                       -- the latest call
        answer_lost     boolean NOT NULL,                  -- a call of this command may have landed unseen
        suspect         boolean NOT NULL,                  -- under way when its worker died: it runs alone next time
        deaths          bigint NOT NULL,                   -- times that its worker died while it ran alone as a suspect
        trouble         text,                              -- why it waits
        trouble_since   timestamptz,
        errcode         bigint,                            -- WeChat's latest answer while it waits
        errmsg          text,
        received_at     timestamptz NOT NULL,
        age_from        timestamptz NOT NULL,              -- first receipt of this generation
        seen_at         timestamptz NOT NULL,              -- latest receipt
        finished_at     timestamptz,
        status          text,
        reason          text,
        detail          text,
        data            text,                              -- the event's data, byte for byte
        dead_letter     text                               -- null, owed, confirmed
    ) WITH (fillfactor = 80, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_scale_factor = 0.05);
    CREATE INDEX unfinished_of_account ON kf_worker.command (kf_account, position) WHERE state <> 'finished';
    CREATE SEQUENCE kf_worker.position;

    -- What is known of each account, never pruned. One without a last action is about to get its first command.
    CREATE TABLE kf_worker.account (
        kf_account      text PRIMARY KEY,
        revision        bigint,                            -- the latest accepted
        last_action     text,
        last_action_at  timestamptz,
        last_position   bigint,                            -- of the latest accepted command
        last_delete_at  timestamptz,                       -- when the latest accepted delete was sent
        lost_add_at     timestamptz,                       -- when the latest add whose answer was lost was sent
        epoch           bigint NOT NULL DEFAULT 0,         -- counts the claims: a claim is lost once there was another one
        holder          text,                              -- who may call WeChat for it, and until when
        lease_until     timestamptz
    ) WITH (fillfactor = 70, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_scale_factor = 0.05);
    CREATE INDEX claimed ON kf_worker.account (holder) WHERE holder IS NOT NULL;
    CREATE INDEX of_official_account ON kf_worker.account (split_part(kf_account, '@', 2));

    -- Who this ledger is: put-off copies carry it. While a file is being copied into it, `move` names that move.
    CREATE TABLE kf_worker.identity (ledger_id text NOT NULL, move text);
    INSERT INTO kf_worker.identity (ledger_id) VALUES (replace(gen_random_uuid()::text, '-', ''));

    -- Pauses of Official Accounts that outlive the process.
    CREATE TABLE kf_worker.pause (
        wechat_id       text NOT NULL,
        scope           text NOT NULL,
        since           timestamptz NOT NULL,
        until           timestamptz NOT NULL,
        reason          text NOT NULL,
        errcode         bigint,                            -- WeChat's answer, where it gave one
        errmsg          text,
        detail          text NOT NULL,
        PRIMARY KEY (wechat_id, scope)
    );

    -- Tokens that can't be fetched again, or not without ending another. Whoever reads this table can use them.
    CREATE TABLE kf_worker.token (
        owner           text PRIMARY KEY,
        origin          bytea NOT NULL,                    -- fingerprint of the configuration it was fetched with
        access_token    text NOT NULL,
        ends_at         timestamptz NOT NULL,
        refresh_token   text
    );

    -- Who fetches a token just now, and until when the others wait for it.
    CREATE TABLE kf_worker.token_turn (
        owner           text PRIMARY KEY,
        fetcher         text NOT NULL,
        ends_at         timestamptz NOT NULL
    );

    -- The workers, by the name under which they claim.
    CREATE TABLE kf_worker.worker (
        holder          text PRIMARY KEY,
        joined_at       timestamptz NOT NULL,
        seen_at         timestamptz NOT NULL
    );
",
    "
    -- The latest outcomes, for whoever looks at a worker. A large ledger takes its time.
    SET LOCAL statement_timeout = 0;
    CREATE INDEX latest_outcomes ON kf_worker.command (finished_at) WHERE finished_at IS NOT NULL;
",
    "
    -- By a column that changes with the outcome alone, and none for claims, which only an orderly end asks for: so that beginning
    -- a call, and giving a claim back, touch no index. A large ledger takes its time.
    SET LOCAL statement_timeout = 0;
    DROP INDEX kf_worker.unfinished_of_account;
    CREATE INDEX unfinished_of_account ON kf_worker.command (kf_account, position) WHERE finished_at IS NULL;
    DROP INDEX kf_worker.claimed;
",
];

/// A number that only this program locks, made from its name.
const LOCK: i64 = 0x6b66_2d77_6f72_6b65;

/// What was found, and brought to today's form where it was older.
pub enum Form {
    Current,
    Newer(i32),
}

/// The form that this version knows.
pub fn known() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// Begins the transaction in which the missing steps are taken, and answers which form the ledger has: 0 where there is none.
/// Several workers may do this at once: the lock lets one go first and ends with the transaction, so that it works through a
/// pooling proxy too. (The migration libraries lock for a whole session or not at all.)
///
/// Nothing may be asked about the tables before the lock is held: the server would remember that they were not there.
pub async fn begin(client: &Client) -> Result<i32, tokio_postgres::Error> {
    client.batch_execute(&format!("{}; SELECT pg_advisory_xact_lock({LOCK})", begin_statement())).await?;
    if let Some(found) = version(client).await? {
        return Ok(found);
    }
    // Even where it is there, `IF NOT EXISTS` asks for the right to make one.
    let missing = client.query_typed("SELECT to_regnamespace('kf_worker') IS NULL", &[]).await?;
    if missing.first().is_some_and(|row| row.get(0)) {
        client.batch_execute("CREATE SCHEMA kf_worker").await?;
    }
    let table = "CREATE TABLE kf_worker.version (version int NOT NULL); INSERT INTO kf_worker.version VALUES (0)";
    client.batch_execute(table).await?;
    Ok(0)
}

/// Takes the steps from that form to today's, and commits.
pub async fn migrate(client: &Client, found: i32) -> Result<Form, tokio_postgres::Error> {
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        client.batch_execute(step).await?;
    }
    if found < known() {
        client.execute_typed("UPDATE kf_worker.version SET version = $1", &[(&known(), Type::INT4)]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(if found > known() { Form::Newer(found) } else { Form::Current })
}

/// Which form the ledger has, where there is one.
pub async fn version(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    let there = client.query_typed("SELECT to_regclass('kf_worker.version') IS NOT NULL", &[]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let rows = client.query_typed("SELECT version FROM kf_worker.version", &[]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}
