//! A database that a file is moved into: filled in steps that may be repeated.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::connection::Connection;
use super::rows::{self, column};
use super::{OpenError, PostgresUrl, Trouble, memory};
use crate::ledger::moving::{Counts, Found};
use crate::ledger::record::{AccountRecord, CommandRecord, Latest};
use crate::ledger::{KeptPause, LedgerError, Position, StoredToken};

/// The database.
pub struct Target {
    connection: Connection,
}

impl Target {
    /// Connects, and makes the tables where there are none.
    pub async fn open(url: &PostgresUrl) -> Result<Self, OpenError> {
        let mut connection = Connection::patient(url.clone());
        super::bring_to_form(&mut connection).await?;
        Ok(Self { connection })
    }

    /// What it is found to be.
    pub async fn state(&mut self) -> Result<Found, LedgerError> {
        let statement = "SELECT ledger_id, move, (SELECT count(*) FROM kf_worker.command),
            (SELECT count(*) FROM kf_worker.command WHERE finished_at IS NULL), (SELECT count(*) FROM kf_worker.account),
            (SELECT count(*) FROM kf_worker.pause), (SELECT count(*) FROM kf_worker.token),
            (SELECT coalesce(max(position), 0) FROM kf_worker.command),
            (SELECT count(*) FROM kf_worker.worker WHERE seen_at > clock_timestamp() - $1 * interval '1 second')
            FROM kf_worker.identity";
        let absent_after = memory::ABSENT_AFTER.as_secs_f64();
        let rows = self.connection.query(statement, &[(&absent_after, Type::FLOAT8)]).await?;
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
        Ok(Found { ledger_id: column(row, 0)?, filled_by: column(row, 1)?, workers, counts })
    }

    /// Whether a move of this ledger fills it.
    pub async fn is_filled_with(&mut self, ledger_id: &str) -> Result<bool, LedgerError> {
        let statement = "SELECT FROM kf_worker.identity WHERE ledger_id = $1 AND move IS NOT NULL";
        Ok(!self.connection.query(statement, &[(&ledger_id, Type::TEXT)]).await?.is_empty())
    }

    /// From here on it is the ledger of the file, and not yet to be used. `false` where somebody else has put something there.
    pub async fn begin_filling(&mut self, ledger_id: &str, name: &str) -> Result<bool, LedgerError> {
        // Sent twice, since the first answer was lost, it finds itself.
        let statement = "UPDATE kf_worker.identity SET ledger_id = $1, move = $2
            WHERE (move IS NULL OR move = $2) AND NOT EXISTS (SELECT FROM kf_worker.command) RETURNING ledger_id";
        Ok(!self.connection.query(statement, &[(&ledger_id, Type::TEXT), (&name, Type::TEXT)]).await?.is_empty())
    }

    /// Writes commands, once more where they are there.
    pub async fn fill_commands(&mut self, commands: &[CommandRecord]) -> Result<(), LedgerError> {
        let client = self.connection.client().await?;
        Ok(rows::store_commands(client, &commands.iter().collect::<Vec<_>>()).await.map_err(Trouble::Failed)?)
    }

    /// Writes accounts, likewise.
    pub async fn fill_accounts(&mut self, accounts: Vec<AccountRecord>) -> Result<(), LedgerError> {
        let accounts: Vec<AccountRecord> = accounts.into_iter().map(within_range).collect();
        let client = self.connection.client().await?;
        Ok(rows::store_accounts(client, &accounts.iter().collect::<Vec<_>>()).await.map_err(Trouble::Failed)?)
    }

    /// Writes pauses, likewise.
    pub async fn fill_pauses(&mut self, pauses: &[KeptPause]) -> Result<(), LedgerError> {
        for pause in pauses {
            memory::keep_pause(&mut self.connection, pause).await?;
        }
        Ok(())
    }

    /// Writes tokens, likewise.
    pub async fn fill_tokens(&mut self, tokens: &[StoredToken]) -> Result<(), LedgerError> {
        for token in tokens {
            memory::save_token(&mut self.connection, token).await?;
        }
        Ok(())
    }

    /// Workers may use it; new commands go on from this position. `false` where somebody else has begun something there.
    pub async fn end_filling(&mut self, ledger_id: &str, name: &str, next: Position) -> Result<bool, LedgerError> {
        // Without statistics the first transactions would read whole tables.
        for statement in ["ANALYZE kf_worker.command", "ANALYZE kf_worker.account"] {
            self.connection.query(statement, &[]).await?;
        }
        self.connection.query("SELECT setval('kf_worker.position', $1, false)", &[(&next.0, Type::INT8)]).await?;
        let statement =
            "UPDATE kf_worker.identity SET move = NULL WHERE ledger_id = $1 AND (move = $2 OR move IS NULL) RETURNING ledger_id";
        Ok(!self.connection.query(statement, &[(&ledger_id, Type::TEXT), (&name, Type::TEXT)]).await?.is_empty())
    }

    /// Forgets everything, and is nobody's ledger again.
    pub async fn empty(&mut self) -> Result<(), LedgerError> {
        for statement in [
            "TRUNCATE kf_worker.command, kf_worker.account, kf_worker.pause, kf_worker.token, kf_worker.token_turn",
            "UPDATE kf_worker.identity SET ledger_id = replace(gen_random_uuid()::text, '-', ''), move = NULL",
        ] {
            self.connection.query(statement, &[]).await?;
        }
        Ok(())
    }
}

/// An old file may hold times that no database does: a producer may have written any.
fn within_range(account: AccountRecord) -> AccountRecord {
    let within = |at: Timestamp| at.max(Timestamp::UNIX_EPOCH);
    let latest = account.latest.map(|latest| Latest { at: within(latest.at), ..latest });
    AccountRecord { latest, last_delete_at: account.last_delete_at.map(within), ..account }
}
