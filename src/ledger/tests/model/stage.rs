//! Where a ledger is played with: its workers, and what stands in its tables after each step.

use rusqlite::types::Value;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::*;

/// No lease runs out by itself.
const LONG: Duration = Duration::from_secs(600);
/// All that a command's row should say, in words that both databases write alike.
const COMMANDS: &str = "SELECT position, coalesce(data, ''), concat_ws(' ', command_id, coalesce(action, '-'), generation, state, attempts,
    attempts_before, CAST(answer_lost AS integer), CAST(suspect AS integer), deaths, coalesce(trouble, '-'), coalesce(status, '-'),
    coalesce(reason, '-'), coalesce(dead_letter, '-')) FROM command ORDER BY position";

/// A ledger with its workers.
pub struct Stage {
    fixture: Fixture,
    /// A way of the test's own to the database.
    beside: Beside,
    pub workers: Vec<Worker>,
    /// Workers that there ever were.
    hired: usize,
}

pub struct Worker {
    /// Nobody else ever has it.
    pub name: usize,
    pub ledger: Opened,
}

enum Beside {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

/// A row of a command.
#[derive(Debug)]
pub struct Row {
    pub position: i64,
    pub data: String,
    pub line: String,
}

/// A row of an account.
#[derive(Debug)]
pub struct AccountRow {
    pub latest: i64,
    pub revision: Option<i64>,
    /// Where claims are kept there.
    pub epoch: Option<i64>,
    pub line: String,
}

impl Stage {
    pub async fn new(fixture: Fixture, workers: usize) -> Self {
        let first = Worker { name: 0, ledger: open(&fixture).await };
        let beside = Beside::of(&fixture).await;
        let mut stage = Self { fixture, beside, workers: vec![first], hired: 1 };
        while stage.workers.len() < workers {
            let worker = stage.hire().await;
            stage.workers.push(worker);
        }
        stage
    }

    pub fn is_shared(&self) -> bool {
        matches!(self.fixture, Fixture::Postgres(_))
    }

    async fn hire(&mut self) -> Worker {
        self.hired += 1;
        Worker { name: self.hired - 1, ledger: open(&self.fixture).await }
    }

    /// Begins with nothing: a file anew, a database with the workers that it has.
    pub async fn clear(&mut self) {
        match &self.beside {
            Beside::Postgres(client) => client.batch_execute("TRUNCATE kf_worker.command, kf_worker.account").await.unwrap(),
            Beside::Sqlite(_) => {
                self.workers.clear();
                self.fixture = Fixture::sqlite();
                let worker = self.hire().await;
                self.workers.push(worker);
                self.beside = Beside::of(&self.fixture).await;
            }
        }
    }

    /// A worker dies without a word, something may be done meanwhile, and another takes its place. Answers the dead one.
    pub async fn replace(&mut self, worker: usize, meanwhile: Option<&str>) -> usize {
        let dead = self.workers.remove(worker).name;
        if let Some(statement) = meanwhile {
            self.execute(statement).await;
        }
        let next = self.hire().await;
        self.workers.insert(worker, next);
        dead
    }

    pub async fn execute(&self, statement: &str) {
        match &self.beside {
            Beside::Sqlite(connection) => connection.execute_batch(statement).unwrap(),
            Beside::Postgres(client) => client.batch_execute(statement).await.unwrap(),
        }
    }

    /// What stands in the tables.
    pub async fn rows(&self) -> (Vec<Row>, Vec<AccountRow>) {
        let (seconds, claim) = match self.beside {
            Beside::Sqlite(_) => ("last_delete_at / 1000", "NULL, concat_ws(' '"),
            Beside::Postgres(_) => {
                ("CAST(extract(epoch FROM last_delete_at) AS bigint)", "epoch, concat_ws(' ', CAST(holder IS NOT NULL AS integer)")
            }
        };
        let accounts = format!(
            "SELECT last_position, coalesce(revision, -1), {claim}, kf_account, coalesce(revision, -1), last_action, coalesce({seconds}, -1),
             CAST(lost_add_at IS NOT NULL AS integer)) FROM account WHERE last_action IS NOT NULL ORDER BY kf_account"
        );
        let commands = self.select(COMMANDS).await.into_iter().map(|row| {
            let [position, data, line] = row.try_into().unwrap();
            Row { position: position.parse().unwrap(), data, line }
        });
        let accounts = self.select(&accounts).await.into_iter().map(|row| {
            let [latest, revision, epoch, line] = row.try_into().unwrap();
            let revision = revision.parse().ok().filter(|revision| *revision >= 0);
            AccountRow { latest: latest.parse().unwrap(), revision, epoch: epoch.parse().ok(), line }
        });
        (commands.collect(), accounts.collect())
    }

    async fn select(&self, query: &str) -> Vec<Vec<String>> {
        match &self.beside {
            Beside::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(query).unwrap();
                let columns = statement.column_count();
                let text = |value| match value {
                    Value::Text(text) => text,
                    Value::Integer(number) => number.to_string(),
                    _ => String::new(),
                };
                let read = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column).map(text)).collect();
                statement.query_map([], read).unwrap().map(Result::unwrap).collect()
            }
            Beside::Postgres(client) => {
                let found = client.simple_query(query).await.unwrap().into_iter();
                let rows = found.filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
                rows.map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect()).collect()
            }
        }
    }
}

impl Beside {
    async fn of(fixture: &Fixture) -> Self {
        match fixture {
            Fixture::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
                // What this connection writes is never asked for after a power cut.
                connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
                connection.busy_timeout(DEADLINE).unwrap();
                Self::Sqlite(connection)
            }
            Fixture::Postgres(database) => {
                let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
                tokio::spawn(connection);
                client.batch_execute("SET search_path = kf_worker").await.unwrap();
                Self::Postgres(client)
            }
        }
    }
}

async fn open(fixture: &Fixture) -> Opened {
    fixture.reopen(&Settings { lease: LONG, ..fixture.settings() }).await
}
