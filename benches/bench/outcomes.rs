//! A ledger that has seen many commands: written in SQL, since a worker would take hours.

use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::stage::{Stage, ledger_at};
use crate::start;

/// Outcomes of one kf account.
const OF_ONE_ACCOUNT: usize = 10;
/// Over so many days they were reached: less than the worker keeps them.
const DAYS: i64 = 80;

/// The rows as the worker leaves them, with about as many bytes in them.
const FILL: &str = r#"
    BEGIN;
    INSERT INTO command (command_id, content, action, kf_account, state, attempts, begun_at,
                         received_at, age_from, seen_at, finished_at, status, detail, data)
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :outcomes),
    given (n, command_id, action, kf_account, at) AS (
        SELECT n, 'filled-' || n, iif(n / :accounts % 2 = 0, 'add', 'delete'),
               'old' || (n % :accounts) || '@oa' || (n % 10), :from + n * :span / :outcomes
        FROM numbers
    )
    SELECT command_id, randomblob(32), action, kf_account, 'finished', 1, at, at, at, at, at + 5, 'succeeded', '',
           '{"command_id":"' || command_id || '","action":"' || action || '","kf_account":"' || kf_account ||
           '","status":"succeeded","effect":"' || iif(action = 'add', 'created', 'deleted') ||
           '","attempts":1,"received_at":"2026-01-01T00:00:00.000Z","finished_at":"2026-01-01T00:00:00.005Z"}'
    FROM given;
    INSERT INTO account (kf_account, last_action, last_action_at, last_position, last_delete_at)
    SELECT kf_account, action, received_at, max(position), iif(action = 'delete', received_at, NULL)
    FROM command GROUP BY kf_account;
    COMMIT;
"#;

/// The URL of a ledger with so many outcomes.
pub async fn ledger_with(stage: &Stage, outcomes: usize) -> String {
    let path = stage.new_folder().join("ledger.db");
    // A worker makes the tables.
    start::until_ready(stage, &ledger_at(&path)).await;
    let url = ledger_at(&path);
    tokio::task::block_in_place(|| fill(path, outcomes)).expect("the ledger can be filled");
    url
}

fn fill(path: PathBuf, outcomes: usize) -> rusqlite::Result<()> {
    let ledger = Connection::open(path)?;
    // Whatever happens meanwhile, it is thrown away in the end.
    ledger.pragma_update(None, "synchronous", "OFF")?;
    let span = DAYS * 24 * 3_600 * 1_000;
    let values = [
        (":outcomes", outcomes.to_string()),
        (":accounts", (outcomes / OF_ONE_ACCOUNT).to_string()),
        (":from", (Timestamp::now().as_millisecond() - span).to_string()),
        (":span", span.to_string()),
    ];
    let sql = values.iter().fold(FILL.to_owned(), |sql, (name, value)| sql.replace(name, value));
    ledger.execute_batch(&sql)?;
    ledger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
