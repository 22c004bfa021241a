//! The shared ledger after the last worker has ended.

use crate::ledger::Row;
use crate::support::postgres::Database;

/// Every command's row, oldest first. What is null reads as nothing or 0.
pub fn read(database: &Database) -> Vec<Row> {
    let sql = "SELECT position, command_id, coalesce(action, ''), coalesce(kf_account, ''), state, attempts,
                 coalesce((extract(epoch FROM finished_at) * 1000)::bigint, 0), coalesce(status, ''), coalesce(reason, ''), coalesce(data, '')
               FROM kf_worker.command ORDER BY position";
    database.rows(sql).into_iter().map(row).collect()
}

fn row(columns: Vec<String>) -> Row {
    let [position, command_id, action, kf_account, state, attempts, finished_at, status, reason, data] =
        <[String; 10]>::try_from(columns).expect("ten columns");
    let number = |text: &str| text.parse().expect("a number");
    Row {
        position: number(&position),
        command_id,
        action,
        kf_account,
        state,
        attempts: number(&attempts).unsigned_abs(),
        finished_at: number(&finished_at),
        status,
        reason,
        data,
    }
}

/// Claims that nobody has given back.
pub fn claims(database: &Database) -> Vec<String> {
    let left = database.rows("SELECT kf_account FROM kf_worker.account WHERE holder IS NOT NULL");
    left.into_iter().flatten().map(|kf_account| format!("a claim on {kf_account} was not given back")).collect()
}
