//! The worker's own ledger, seen from outside: what it says of a command, and a lock that stalls its next commit.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::eventually;
use super::postgres::{Database, psql_program};

/// The ledger of a test's worker.
pub enum Ledger {
    File(PathBuf),
    /// The database's URL.
    Database(String),
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
pub enum WriteLock {
    File(#[expect(dead_code, reason = "dropping the connection gives the lock back")] Connection),
    /// A `psql` in the middle of a transaction.
    Database(Child),
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        if let Self::Database(psql) = self {
            drop(psql.stdin.take());
            psql.wait().ok();
        }
    }
}

const ENTRY: &str = "state, attempts, position, trouble, errcode, errmsg";

impl Ledger {
    pub fn at(path: &Path) -> Self {
        Self::File(path.to_owned())
    }

    pub fn in_database(url: &str) -> Self {
        Self::Database(url.to_owned())
    }

    /// Takes the write lock as another process would, after whatever the worker writes just now.
    pub fn lock(&self) -> WriteLock {
        match self {
            Self::File(path) => {
                let connection = Connection::open(path).expect("the ledger opens");
                connection.busy_timeout(Duration::from_secs(10)).expect("a time limit can be set");
                connection.execute_batch("BEGIN IMMEDIATE").expect("the write lock is to be had");
                WriteLock::File(connection)
            }
            Self::Database(url) => {
                let mut psql = Command::new("sh");
                psql.args(["-c", &psql_program(), "sh", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]);
                psql.args(["--set=ON_ERROR_STOP=1", url]);
                let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
                let lock = "BEGIN; LOCK TABLE kf_worker.account IN EXCLUSIVE MODE; SELECT 'locked';\n";
                let stdin = psql.stdin.as_mut().expect("stdin is piped");
                stdin.write_all(lock.as_bytes()).and_then(|()| stdin.flush()).expect("psql reads");
                let mut told = String::new();
                BufReader::new(psql.stdout.take().expect("stdout is piped")).read_line(&mut told).expect("psql writes");
                assert_eq!(told.trim(), "locked");
                WriteLock::Database(psql)
            }
        }
    }

    /// Who it says that it is.
    pub fn id(&self) -> String {
        match self {
            Self::File(_) => {
                self.reading().query_row("SELECT ledger_id FROM identity", [], |row| row.get(0)).expect("the ledger has an id")
            }
            Self::Database(url) => Database::at(url).rows("SELECT ledger_id FROM kf_worker.identity")[0][0].clone(),
        }
    }

    /// Takes the file away from under a worker.
    pub fn take_away(&self) {
        std::fs::rename(self.path(), self.path().with_extension("taken-away")).expect("there is a ledger");
    }

    /// Puts it where it was.
    pub fn bring_back(&self) {
        std::fs::rename(self.path().with_extension("taken-away"), self.path()).expect("it was taken away");
    }

    /// Removes the file of a worker that has ended.
    pub fn delete(&self) {
        std::fs::remove_file(self.path()).expect("there is a ledger");
        for companion in ["-wal", "-shm"] {
            let mut path = self.path().as_os_str().to_owned();
            path.push(companion);
            // A worker that ended in order has left none.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The entry of a command, where there is one.
    pub fn entry(&self, command_id: &str) -> Option<Entry> {
        let Self::Database(url) = self else {
            let sql = format!("SELECT {ENTRY} FROM command WHERE command_id = ?1");
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
            return self.reading().query_row(&sql, [command_id], entry).optional().expect("the ledger can be read");
        };
        let rows = Database::at(url).rows(&format!("SELECT {ENTRY} FROM kf_worker.command WHERE command_id = '{command_id}'"));
        let row = rows.into_iter().next()?;
        let number = |index: usize| row[index].parse::<i64>().ok();
        Some(Entry {
            state: row[0].clone(),
            attempts: number(1)?,
            position: number(2)?,
            trouble: present(&row[3]),
            errcode: number(4),
            errmsg: present(&row[5]),
        })
    }

    /// The token that it keeps for an Official Account, where there is one.
    pub fn token(&self, wechat_id: &str) -> Option<KeptToken> {
        let Self::Database(url) = self else {
            let sql = "SELECT access_token, refresh_token FROM token WHERE owner = ?1";
            let token = |row: &rusqlite::Row<'_>| Ok(KeptToken { access_token: row.get(0)?, refresh_token: row.get(1)? });
            return self.reading().query_row(sql, [wechat_id], token).optional().expect("the ledger can be read");
        };
        let rows = Database::at(url).rows(&format!("SELECT access_token, refresh_token FROM kf_worker.token WHERE owner = '{wechat_id}'"));
        rows.first().map(|row| KeptToken { access_token: row[0].clone(), refresh_token: present(&row[1]) })
    }

    /// The file and its companions, as far as they are there.
    pub fn files(&self) -> Vec<PathBuf> {
        let companion = |ending: &str| {
            let mut path = self.path().as_os_str().to_owned();
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

    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Database(url) => panic!("{url} is no file"),
        }
    }

    fn reading(&self) -> Connection {
        let connection = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the ledger opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("a time limit can be set");
        connection
    }
}

fn present(text: &str) -> Option<String> {
    (text != "NULL").then(|| text.to_owned())
}
