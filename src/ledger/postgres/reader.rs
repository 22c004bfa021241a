//! A ledger in a database, read beside the workers that write it.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::connection::{Connection, Parameter, TIME_LIMIT};
use super::{OpenError, PostgresUrl, Trouble, memory, rows, schema};
use crate::ledger::record::CommandRecord;
use crate::ledger::{Census, LedgerError, StoredToken, Wanted};

/// How much is unfinished, by the index on it, the time from which the age of the oldest counts, and the size of all tables.
const CENSUS: &str = "SELECT count(*), min(age_from),
      (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'kf_worker'::regnamespace)
    FROM kf_worker.command WHERE finished_at IS NULL";

/// Reads a ledger beside the workers that write it.
pub struct Reader {
    /// One question at a time.
    connection: tokio::sync::Mutex<Connection>,
    /// The form in which it was found.
    form: i32,
}

impl Reader {
    /// Connects and sees that there is a ledger.
    pub async fn open(url: &PostgresUrl) -> Result<Self, OpenError> {
        let mut connection = Connection::new(url.clone());
        let unusable = |trouble| OpenError::Unusable(url.clone(), trouble);
        let client = connection.client().await.map_err(unusable)?;
        let version = tokio::time::timeout(TIME_LIMIT, schema::version(client)).await.map_err(|_| unusable(Trouble::Silent))?;
        match version.map_err(|error| unusable(Trouble::Failed(error)))? {
            None => Err(OpenError::Missing(url.clone())),
            Some(found) if found > schema::known() => Err(OpenError::Newer { place: url.clone(), found, known: schema::known() }),
            Some(form) => Ok(Self { connection: connection.into(), form }),
        }
    }

    /// How many steps its form is behind this version's.
    pub fn steps_behind(&self) -> i64 {
        (schema::known() - self.form).into()
    }

    pub async fn wanted(&self, wechat_id: &str) -> Result<Vec<Wanted>, LedgerError> {
        memory::wanted(&mut *self.connection.lock().await, wechat_id).await
    }

    pub async fn token(&self, owner: &str) -> Result<Option<StoredToken>, LedgerError> {
        memory::token(&mut *self.connection.lock().await, owner).await
    }

    /// What is known of a command id.
    pub async fn find(&self, command_id: &str) -> Result<Option<CommandRecord>, LedgerError> {
        let mut connection = self.connection.lock().await;
        rows::find(&mut connection, command_id).await
    }

    /// The commands that were finished last, the newest first.
    pub async fn latest(&self, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
        let mut connection = self.connection.lock().await;
        rows::latest(&mut connection, most).await
    }

    /// Unfinished commands whose messages were seen last before then, the oldest first.
    pub async fn missing(&self, seen_before: Timestamp, most: usize) -> Result<Vec<CommandRecord>, LedgerError> {
        let mut connection = self.connection.lock().await;
        rows::missing(&mut connection, seen_before, most).await
    }

    /// How much is unfinished, and how large the tables are.
    pub async fn census(&self) -> Result<Census, LedgerError> {
        let rows = self.query(CENSUS, &[]).await?;
        let row = rows.first().ok_or(LedgerError::Unreadable("no census"))?;
        let number = |index| rows::column::<i64>(row, index).map(|number| number.try_into().unwrap_or_default());
        Ok(Census { unfinished: number(0)?, oldest_since: rows::column(row, 1)?, size_bytes: number(2)? })
    }
    /// Asks the database.
    pub async fn query(&self, statement: &str, with: &[Parameter<'_>]) -> Result<Vec<Row>, Trouble> {
        self.connection.lock().await.query(statement, with).await
    }
}
