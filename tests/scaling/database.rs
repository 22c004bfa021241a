//! What PostgreSQL has done so far, by its own account.

use crate::support::postgres::Database;

/// Its counters.
#[derive(Clone, Copy)]
pub struct Load {
    transactions: f64,
    log_bytes: f64,
}

/// What it did for each command.
pub struct PerCommand {
    pub transactions: f64,
    pub log_bytes: f64,
}

pub fn load(database: &Database) -> Load {
    let sql = "SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') FROM pg_stat_database WHERE datname = current_database()";
    let row: Vec<f64> = database.rows(sql)[0].iter().map(|column| column.parse().expect("a number")).collect();
    Load { transactions: row[0], log_bytes: row[1] }
}

impl Load {
    pub fn per_command(self, since: Self, commands: f64) -> PerCommand {
        let each = |now: f64, then: f64| (now - then) / commands.max(1.0);
        PerCommand { transactions: each(self.transactions, since.transactions), log_bytes: each(self.log_bytes, since.log_bytes) }
    }
}

/// Connections that workers hold.
pub fn connections(database: &Database) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'kf-worker'";
    database.rows(sql)[0][0].clone()
}
