//! The ledger as a run reads it: one row for each command, in the order of acceptance.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// What the ledger says of one command.
pub struct Row {
    pub position: i64,
    pub command_id: String,
    pub action: String,
    pub kf_account: String,
    pub state: String,
    pub attempts: u64,
    /// Milliseconds since 1970.
    pub finished_at: i64,
    pub status: String,
    pub reason: String,
    /// The event's data, byte for byte.
    pub data: String,
}

impl Row {
    /// A field of the event's data.
    pub fn field(&self, name: &str) -> Value {
        let data: Value = serde_json::from_str(&self.data).unwrap_or_default();
        data[name].clone()
    }

    /// For messages to people.
    pub fn name(&self) -> String {
        let Self { position, command_id, action, kf_account, status, reason, attempts, .. } = self;
        format!("{command_id} (position {position}, {action} {kf_account}, {status} {reason}, {attempts} attempts)")
    }
}

/// Every row, oldest first, of a ledger that no worker uses any more.
pub fn read(path: &Path) -> Vec<Row> {
    finished_since(path, 0)
}

/// Every row that was finished then or later, in milliseconds since 1970; since 0, those without an end as well. What is
/// null reads as nothing or 0.
pub fn finished_since(path: &Path, since: i64) -> Vec<Row> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("the ledger opens");
    let sql = "SELECT position, command_id, ifnull(action, ''), ifnull(kf_account, ''), state, attempts, ifnull(finished_at, 0),
                 ifnull(status, ''), ifnull(reason, ''), ifnull(data, '')
               FROM command WHERE ifnull(finished_at, 0) >= ? ORDER BY position";
    let mut statement = connection.prepare(sql).expect("the ledger has its tables");
    let rows = statement.query_map([since], |row| {
        Ok(Row {
            position: row.get(0)?,
            command_id: row.get(1)?,
            action: row.get(2)?,
            kf_account: row.get(3)?,
            state: row.get(4)?,
            attempts: row.get::<_, u32>(5)?.into(),
            finished_at: row.get(6)?,
            status: row.get(7)?,
            reason: row.get(8)?,
            data: row.get(9)?,
        })
    });
    rows.and_then(Iterator::collect).expect("the ledger can be read")
}
