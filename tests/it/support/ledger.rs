//! The worker's own ledger file, seen from outside: what it says of a command, and a lock that stalls its next commit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::eventually;

/// The ledger file of a test's worker.
pub struct Ledger {
    path: PathBuf,
}

/// What the ledger says of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub state: String,
    pub attempts: i64,
    pub position: i64,
    /// Why it waits.
    pub trouble: Option<String>,
    /// WeChat's latest answer while it waits.
    pub errcode: Option<i64>,
    pub errmsg: Option<String>,
}

/// A token that the ledger keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptToken {
    pub access_token: String,
    pub refresh_token: Option<String>,
}

/// The write lock of the ledger, until it is dropped: the worker's next commit waits, and fails after its 10 s.
pub struct WriteLock(#[expect(dead_code, reason = "dropping the connection gives the lock back")] Connection);

impl Ledger {
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Takes the write lock as another process would, after whatever the worker writes just now.
    pub fn lock(&self) -> WriteLock {
        let connection = Connection::open(&self.path).expect("the ledger opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("a time limit can be set");
        connection.execute_batch("BEGIN IMMEDIATE").expect("the write lock is to be had");
        WriteLock(connection)
    }

    /// Who it says that it is.
    pub fn id(&self) -> String {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the ledger opens");
        connection.query_row("SELECT ledger_id FROM identity", [], |row| row.get(0)).expect("the ledger has an id")
    }

    /// Takes the file away from under a worker.
    pub fn take_away(&self) {
        std::fs::rename(&self.path, self.path.with_extension("taken-away")).expect("there is a ledger");
    }

    /// Puts it where it was.
    pub fn bring_back(&self) {
        std::fs::rename(self.path.with_extension("taken-away"), &self.path).expect("it was taken away");
    }

    /// Removes the file of a worker that has ended.
    pub fn delete(&self) {
        std::fs::remove_file(&self.path).expect("there is a ledger");
        for companion in ["-wal", "-shm"] {
            let mut path = self.path.as_os_str().to_owned();
            path.push(companion);
            // A worker that ended in order has left none.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The entry of a command, where there is one.
    pub fn entry(&self, command_id: &str) -> Option<Entry> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the ledger opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("a time limit can be set");
        let sql = "SELECT state, attempts, position, trouble, errcode, errmsg FROM command WHERE command_id = ?1";
        let entry = |row: &rusqlite::Row<'_>| {
            Ok(Entry {
                state: row.get(0)?,
                attempts: row.get(1)?,
                position: row.get(2)?,
                trouble: row.get(3)?,
                errcode: row.get(4)?,
                errmsg: row.get(5)?,
            })
        };
        connection.query_row(sql, [command_id], entry).optional().expect("the ledger can be read")
    }

    /// The token that it keeps for an Official Account, where there is one.
    pub fn token(&self, wechat_id: &str) -> Option<KeptToken> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the ledger opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("a time limit can be set");
        let sql = "SELECT access_token, refresh_token FROM token WHERE owner = ?1";
        let token = |row: &rusqlite::Row<'_>| Ok(KeptToken { access_token: row.get(0)?, refresh_token: row.get(1)? });
        connection.query_row(sql, [wechat_id], token).optional().expect("the ledger can be read")
    }

    /// The file and its companions, as far as they are there.
    pub fn files(&self) -> Vec<PathBuf> {
        let companion = |ending: &str| {
            let mut path = self.path.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        ["", "-wal", "-shm"].map(companion).into_iter().filter(|path| path.exists()).collect()
    }

    /// Waits until the ledger says that a command is in this state.
    pub async fn until(&self, command_id: &str, state: &str) -> Entry {
        let what = format!("the ledger says that {command_id} is {state}");
        eventually(&what, async || self.entry(command_id).filter(|entry| entry.state == state)).await
    }
}
