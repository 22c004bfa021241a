//! How the database is reached: the connection and its certificate, and what can go wrong.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::{Encryption, PostgresUrl};
use crate::tls::{self, TlsError};

/// Everything that is asked of the database is answered within this time, or its connection is given up.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Counting and copying a large ledger, or making another index, takes its time.
pub const PATIENCE: Duration = Duration::from_secs(3_600);
/// A transaction ends within this time at most, so that a worker that is stopped in the middle of one holds up nobody
/// for longer: the server ends it.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{}", Told(.0))]
    Failed(tokio_postgres::Error),
    #[error("it did not answer within {} s", TIME_LIMIT.as_secs())]
    Silent,
    #[error("its certificate can't be checked: {0}")]
    Certificates(#[from] Box<TlsError>),
}

/// Why a database can't be the ledger.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the ledger's database {0} can't be used: {1}{advice}", advice = .1.advice())]
    Unusable(PostgresUrl, Trouble),
    #[error(
        "the ledger's database {place} was written by a newer version of kf-worker (its form is {found}, this version knows {known}); use that version"
    )]
    Newer { place: PostgresUrl, found: i32, known: i32 },
    #[error("there is no ledger in the database {0} yet; `kf-worker run` makes it")]
    Missing(PostgresUrl),
    #[error(
        "the ledger's database {place} has the encoding {encoding}, which can't hold every nickname; make one with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`"
    )]
    Encoding { place: PostgresUrl, encoding: String },
    #[error("the ledger in the database {0} is still being filled by `kf-worker ledger migrate`; let it finish, or run it again")]
    Filling(PostgresUrl),
}

impl OpenError {
    /// Whether it may pass by itself.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unusable(_, trouble) if !trouble.needs_an_operator())
    }
}

impl PostgresUrl {
    async fn connect(&self) -> Result<Connected, Trouble> {
        let connected = async {
            match &self.encryption {
                Encryption::Off => {
                    let (client, connection) = self.config().connect(NoTls).await.map_err(Trouble::Failed)?;
                    Ok(Connected { client, driver: tokio::spawn(async move { drop(connection.await) }) })
                }
                Encryption::Checked(tls) => {
                    let tls = MakeRustlsConnect::new(tls.client().map_err(Box::new)?);
                    let (client, connection) = self.config().connect(tls).await.map_err(Trouble::Failed)?;
                    Ok(Connected { client, driver: tokio::spawn(async move { drop(connection.await) }) })
                }
            }
        };
        tokio::time::timeout(TIME_LIMIT, connected).await.unwrap_or(Err(Trouble::Silent))
    }
}

/// A connection that is opened anew where it was lost.
pub struct Connection {
    url: PostgresUrl,
    /// Within which a statement must be answered.
    limit: Duration,
    connected: Option<Connected>,
}

struct Connected {
    client: Client,
    /// Reads and writes for the client.
    driver: JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub fn new(url: PostgresUrl) -> Self {
        Self { url, limit: TIME_LIMIT, connected: None }
    }

    /// For work that may take long.
    pub fn patient(url: PostgresUrl) -> Self {
        Self { limit: PATIENCE, ..Self::new(url) }
    }

    /// Within which a statement must be answered.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    pub fn url(&self) -> &PostgresUrl {
        &self.url
    }

    /// Whether there was a connection that may have been lost meanwhile.
    pub fn is_open(&self) -> bool {
        self.connected.is_some()
    }

    /// The open connection, or a new one.
    pub async fn client(&mut self) -> Result<&Client, Trouble> {
        let connected = match self.connected.take().filter(|connected| !connected.client.is_closed()) {
            Some(connected) => connected,
            None => self.url.connect().await?,
        };
        Ok(&self.connected.insert(connected).client)
    }

    /// Gives the connection up: nobody knows what it is in the middle of.
    pub fn give_up(&mut self) {
        self.connected = None;
    }

    /// Sends one statement and answers its rows, within the time limit. Where the connection was lost before, which is
    /// only noticed then, it is sent once more on a new one.
    pub async fn query(&mut self, statement: &str, with: &[Parameter<'_>]) -> Result<Vec<Row>, Trouble> {
        let was_open = self.is_open();
        match self.query_once(statement, with).await {
            Err(Trouble::Failed(error)) if was_open && error.is_closed() => self.query_once(statement, with).await,
            answered => answered,
        }
    }

    async fn query_once(&mut self, statement: &str, with: &[Parameter<'_>]) -> Result<Vec<Row>, Trouble> {
        let limit = self.limit;
        let client = self.client().await?;
        // Its types are given, so that the server need not be asked for them, nor keep a prepared statement.
        let answered = match tokio::time::timeout(limit, client.query_typed(statement, with)).await {
            Ok(answered) => answered.map_err(Trouble::Failed),
            Err(_) => Err(Trouble::Silent),
        };
        if answered.is_err() {
            self.give_up();
        }
        answered
    }
}

/// A parameter of a statement and its type.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Begins a transaction with limits of its own, so that nothing is set for longer: between transactions a pooling proxy
/// may give the server's connection to somebody else. Everything is found by an index; the planner, which can't know how few
/// rows the arrays mean, would read whole tables instead, or compile what takes a millisecond.
pub fn begin_statement() -> String {
    format!(
        "BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; SET LOCAL idle_in_transaction_session_timeout = {idle};
         SET LOCAL enable_seqscan = off; SET LOCAL jit = off",
        limit = TIME_LIMIT.as_millis(),
        idle = IDLE_LIMIT.as_millis(),
    )
}

impl Trouble {
    /// Whether trying again later is pointless.
    fn needs_an_operator(&self) -> bool {
        match self {
            Self::Failed(error) => error.code().is_some_and(|code| {
                let class = code.code().get(..2).unwrap_or_default();
                // Who may not come in, and what does not exist or is not permitted.
                class == "28" || class == "3D" || class == "42"
            }),
            Self::Silent => false,
            Self::Certificates(_) => true,
        }
    }

    /// What to do, where that is not plain.
    fn advice(&self) -> &'static str {
        let Self::Failed(error) = self else { return "" };
        match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                "; grant the user CREATE on the database, or make the schema `kf_worker` for it"
            }
            Some(code) if *code == SqlState::INVALID_CATALOG_NAME => "; create the database",
            _ => "",
        }
    }
}

/// What the server says, or what stands in the way, without values of anybody's.
struct Told<'a>(&'a tokio_postgres::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = self.0.as_db_error() {
            // Its detail may hold values.
            return write!(formatter, "{} ({})", server.message(), server.code().code());
        }
        if let Some(refusal) = tls::refusal(self.0) {
            return formatter.write_str(&refusal);
        }
        write!(formatter, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(cause) = source {
            write!(formatter, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
