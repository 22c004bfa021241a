//! A database that a file is moved into: filled in steps that may be repeated.

use tokio_postgres::types::Type;

use super::connection::Connection;
use super::rows::{self, column};
use super::{OpenError, PostgresUrl, Trouble, memory, schema};
use crate::ledger::LedgerError;
use crate::ledger::moving::{Asked, Counts, Found, Piece};

/// The database.
pub struct Target {
    connection: Connection,
}

impl Target {
    /// Connects, and makes the tables where there are none.
    pub async fn open(url: &PostgresUrl) -> Result<Self, OpenError> {
        let mut connection = Connection::new(url.clone());
        match super::migrate(&mut connection).await.map_err(|trouble| OpenError::Unusable(url.clone(), trouble))? {
            schema::Form::Current => Ok(Self { connection }),
            schema::Form::Newer(found) => Err(OpenError::Newer { place: url.clone(), found, known: schema::known() }),
        }
    }

    pub async fn state(&mut self) -> Result<Found, LedgerError> {
        let statement = "SELECT ledger_id, filled, (SELECT count(*) FROM kf_worker.command),
            (SELECT count(*) FROM kf_worker.command WHERE state <> 'finished'), (SELECT count(*) FROM kf_worker.account),
            (SELECT count(*) FROM kf_worker.pause), (SELECT count(*) FROM kf_worker.token),
            (SELECT coalesce(max(position), 0) FROM kf_worker.command),
            (SELECT count(*) FROM kf_worker.worker WHERE seen_at > clock_timestamp() - interval '10 seconds')
            FROM kf_worker.identity";
        let rows = self.connection.query(statement, &[]).await?;
        let row = rows.first().ok_or(LedgerError::Unreadable("no identity"))?;
        let count = |index| column::<i64>(row, index).map(|count| count.try_into().unwrap_or_default());
        let counts = Counts {
            commands: count(2)?,
            unfinished: count(3)?,
            accounts: count(4)?,
            pauses: count(5)?,
            tokens: count(6)?,
            last_position: column(row, 7)?,
        };
        let workers = column::<i64>(row, 8)?.try_into().unwrap_or_default();
        Ok(Found { ledger_id: column(row, 0)?, filled: column(row, 1)?, workers, counts })
    }

    /// From here on it is the ledger of the file, and not yet to be used.
    pub async fn begin_filling(&mut self, ledger_id: &str) -> Asked<()> {
        let statement = "UPDATE kf_worker.identity SET ledger_id = $1, filled = false";
        self.connection.query(statement, &[(&ledger_id, Type::TEXT)]).await.map(drop)
    }

    pub async fn fill(&mut self, piece: Piece) -> Result<(), LedgerError> {
        match piece {
            Piece::Commands(commands) => {
                let client = self.connection.client().await?;
                rows::store_commands(client, &commands.iter().collect::<Vec<_>>()).await.map_err(Trouble::Failed)?;
            }
            Piece::Accounts(accounts) => {
                let client = self.connection.client().await?;
                rows::store_accounts(client, &accounts.iter().collect::<Vec<_>>()).await.map_err(Trouble::Failed)?;
            }
            Piece::Pauses(pauses) => {
                for pause in pauses {
                    memory::keep_pause(&mut self.connection, &pause).await?;
                }
            }
            Piece::Tokens(tokens) => {
                for token in tokens {
                    memory::save_token(&mut self.connection, &token).await?;
                }
            }
        }
        Ok(())
    }

    /// Workers may use it; new commands go on from this position.
    pub async fn end_filling(&mut self, next: crate::ledger::Position) -> Asked<()> {
        self.connection.query("SELECT setval('kf_worker.position', $1, false)", &[(&next.0, Type::INT8)]).await?;
        self.connection.query("UPDATE kf_worker.identity SET filled = true", &[]).await.map(drop)
    }

    /// Forgets everything, and is nobody's ledger again.
    pub async fn empty(&mut self) -> Asked<()> {
        for statement in [
            "TRUNCATE kf_worker.command, kf_worker.account, kf_worker.pause, kf_worker.token",
            "UPDATE kf_worker.identity SET ledger_id = replace(gen_random_uuid()::text, '-', ''), filled = true",
        ] {
            self.connection.query(statement, &[]).await?;
        }
        Ok(())
    }
}
