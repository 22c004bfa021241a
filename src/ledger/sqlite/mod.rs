//! The ledger in one SQLite file: one thread writes, and everything that waits shares a transaction and an fsync.

mod known;
mod memory;
mod reader;
mod rows;
mod schema;
mod source;
mod trail;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::mpsc;

pub use reader::Reader;
pub use source::{Moved, Source};

use known::Known;
use rows::Statements;

use super::request::{BATCH, Decision, Errand, Reply, Request, answer_all, count_ended, decide_all, keys_of, part};
use super::sheet::{Sheet, Terms};
use super::{Attendance, FetchedToken, LedgerError, Settings, TokenTurn};
use crate::event::now;
use crate::metrics::Metrics;

/// How long SQLite waits for another program's lock (a backup, say) before a request fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a file can't be a ledger.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// One process may write to a file.
    #[error("the ledger {0} is in use by another worker; give each its own `ledger.url`, or stop the other one")]
    InUse(PathBuf),
    /// The folder or the file can't be reached.
    #[error("the ledger {path} can't be opened: {source}; check that the folder exists and that the worker may write there")]
    File { path: PathBuf, source: std::io::Error },
    /// SQLite refused it: no database, damaged, or no room.
    #[error("the ledger {path} can't be used: {source}{advice}", advice = advice(.source))]
    Database { path: PathBuf, source: rusqlite::Error },
    /// It is being copied into a database.
    #[error(
        "the ledger {0} is being moved into a database; run `kf-worker ledger migrate` again to finish that, or with --abandon to go on with the file"
    )]
    Moving(PathBuf),
    /// Another ledger goes on with what it holds.
    #[error("the ledger {0} was moved into a database; set `ledger.url` to that")]
    Moved(PathBuf),
    /// A newer version wrote it, or a migration failed.
    #[error("the ledger {path} can't be brought to this version's form: {source}")]
    Migration { path: PathBuf, source: rusqlite_migration::Error },
}

/// What to do about an error, where that is not plain.
pub fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "; the file is damaged: stop the worker, keep the file, restore a backup, and look at the disk"
        }
        _ => "",
    }
}

/// Opens the file, makes it where it doesn't exist, takes it for this process alone, and answers requests on a thread of
/// its own until nobody can ask any more. Answers who this ledger is.
pub fn start(
    path: &Path,
    settings: &Settings,
    metrics: Arc<Metrics>,
    queue: mpsc::UnboundedReceiver<Request>,
) -> Result<String, OpenError> {
    let Opened { connection, id, lock } = Opened::open(path)?;
    let moved = Moved::read(&connection).map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    match moved {
        Moved::No => {}
        Moved::Begun(_) => return Err(OpenError::Moving(path.to_owned())),
        Moved::Done(_) => return Err(OpenError::Moved(path.to_owned())),
    }
    let file_error = |source| OpenError::File { path: path.to_owned(), source };
    let file = FileIdentity::of(path).map_err(file_error)?;
    let (path, settings, holder) = (path.to_owned(), settings.clone(), super::random_name());
    let next_position = rows::first_free(&connection).map_err(|source| OpenError::Database { path: path.clone(), source })?;
    let (decided, answers) = mpsc::unbounded_channel();
    tokio::spawn(answer_where_awaited(answers));
    let writer = Writer { path, settings, holder, metrics, file, known: Known::new(next_position), decided, _lock: lock };
    std::thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run(&connection, queue)).map_err(file_error)?;
    Ok(id)
}

/// The decisions of a transaction, and how it ended.
type Decided = (Vec<Box<dyn Decision>>, Result<(), LedgerError>);

/// Answers on the runtime's thread: the writer's own would wake it for each answer, and not once for all.
async fn answer_where_awaited(mut decided: mpsc::UnboundedReceiver<Decided>) {
    while let Some((decisions, committed)) = decided.recv().await {
        answer_all(decisions, &committed);
    }
}

/// A file that this process alone has, in this version's form.
struct Opened {
    connection: Connection,
    /// Who this ledger is.
    id: String,
    /// Held for as long as this process has it.
    lock: File,
}

impl Opened {
    fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = take_lock(path)?;
        let mut connection = open_for_writing(path)?;
        schema::migrations().to_latest(&mut connection).map_err(|source| OpenError::Migration { path: path.to_owned(), source })?;
        let id = connection.query_row("SELECT ledger_id FROM identity", [], |row| row.get(0));
        let id = id.map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
        Ok(Self { connection, id, lock })
    }
}

/// One process writes to a ledger. The lock is on a file beside it, since SQLite's own locks are lost when any
/// descriptor of the database is closed.
fn take_lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file_error = |source| OpenError::File { path: path.to_owned(), source };
    let lock = private(OpenOptions::new().write(true).create(true).truncate(false)).open(&lock_path).map_err(file_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(file_error(source)),
    }
}

/// The ledger holds nicknames and `meta`: only the worker's own user may read it.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    // SQLite's companions (-wal, -shm) take their mode from the file, so it is made first.
    private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(path)
        .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(database)?;
    let set_up = || {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // We acknowledge after the commit, so the commit must be on disk.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -8_000)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    };
    set_up().map_err(database)?;
    Ok(connection)
}

/// Brings into the file itself what was committed to the log beside it, and empties that.
fn into_one_file(connection: &Connection) -> Result<(), LedgerError> {
    // It answers with a row, which says that a reader was in the way where it was.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Keeps a token where none was kept since it was asked for, or only one of another configuration.
fn save_token(transaction: &Transaction<'_>, fetched: &FetchedToken) -> Result<bool, LedgerError> {
    let FetchedToken { token, before, .. } = fetched;
    let kept = memory::token(transaction, &token.owner)?.filter(|kept| kept.origin == token.origin).map(|kept| kept.access_token);
    let newer = kept.is_some_and(|kept| kept != token.access_token && Some(&kept) != before.as_ref());
    if !newer {
        memory::save_token(transaction, token)?;
    }
    Ok(!newer)
}

/// Which file it is, whatever stands at its path later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// The writing thread's own.
struct Writer {
    path: PathBuf,
    settings: Settings,
    holder: String,
    metrics: Arc<Metrics>,
    file: FileIdentity,
    known: Known,
    decided: mpsc::UnboundedSender<Decided>,
    /// Held for as long as this process may write.
    _lock: File,
}

impl Writer {
    /// Takes whatever waits: all decisions share one transaction and are answered after its commit.
    fn run(mut self, connection: &Connection, mut queue: mpsc::UnboundedReceiver<Request>) {
        let mut statements = match Statements::prepare(connection) {
            Ok(statements) => statements,
            // Who asks is told that the ledger is closed.
            Err(error) => return tracing::error!(%error, "the ledger can't be used"),
        };
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            let (mut decisions, errands) = part(&mut batch);
            if !decisions.is_empty() {
                let committed = self.decide(connection, &mut statements, &mut decisions);
                // Nobody waits any more where there is no runtime any more.
                let _ = self.decided.send((decisions, committed));
            }
            for errand in errands {
                self.run_errand(connection, errand);
            }
        }
    }

    fn decide(
        &mut self,
        connection: &Connection,
        statements: &mut Statements<'_>,
        decisions: &mut [Box<dyn Decision>],
    ) -> Result<(), LedgerError> {
        let keys = keys_of(decisions);
        // The lock on the file says that it is shared with nobody.
        let Settings { lease, patience, .. } = self.settings;
        let terms = Terms { holder: self.holder.clone(), now: now(), lease, patience, shared: false };
        let (sheet, kf_accounts) = self.transact(connection, |_| {
            let (records, kf_accounts) = statements.load(&keys, &self.known, &terms.holder)?;
            let mut sheet = Sheet::new(terms, records);
            decide_all(decisions, &mut sheet)?;
            statements.store(&sheet, &self.known)?;
            Ok((sheet, kf_accounts))
        })?;
        count_ended(&sheet, &self.metrics);
        self.known.learn(kf_accounts, sheet);
        Ok(())
    }

    fn run_errand(&self, connection: &Connection, errand: Errand) {
        let retention = self.settings.retention;
        match errand {
            Errand::Pauses(reply) => self.answer(connection, reply, |transaction| memory::pauses(transaction)),
            Errand::KeepPause(pause, reply) => self.answer(connection, reply, |transaction| memory::keep_pause(transaction, &pause)),
            Errand::ForgetPause(wechat_id, scope, reply) => {
                self.answer(connection, reply, |transaction| memory::forget_pause(transaction, &wechat_id, scope));
            }
            Errand::Token(owner, reply) => self.answer(connection, reply, |transaction| memory::token(transaction, &owner)),
            // There is none but this one.
            Errand::TokenTurn(_, reply) => drop(reply.send(Ok(TokenTurn::Yours))),
            Errand::EndTokenTurn(_, reply) => drop(reply.send(Ok(()))),
            Errand::SaveToken(token, reply) => self.answer(connection, reply, |transaction| save_token(transaction, &token)),
            Errand::Wanted(wechat_id, reply) => self.answer(connection, reply, |transaction| memory::wanted(transaction, &wechat_id)),
            Errand::Prune(after, reply) => {
                let before = now().checked_sub(retention).unwrap_or(Timestamp::MIN);
                self.answer(connection, reply, |transaction| memory::prune(transaction, after, before));
            }
            Errand::Probe(reply) => self.answer(connection, reply, |transaction| {
                transaction.execute("UPDATE identity SET ledger_id = ledger_id", [])?;
                Ok(())
            }),
            // There is none but this one.
            Errand::Attend(reply) => drop(reply.send(Ok(Attendance { index: 0, of: 1 }))),
            Errand::Leave(reply) => drop(reply.send(Ok(()))),
            Errand::Close(reply) => drop(reply.send(into_one_file(connection))),
        }
    }

    /// Does something in a transaction of its own and answers.
    fn answer<T>(&self, connection: &Connection, reply: Reply<T>, work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>) {
        // Who has stopped waiting needs no answer.
        drop(reply.send(self.transact(connection, work)));
    }

    fn transact<T>(
        &self,
        connection: &Connection,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        // SQLite goes on writing to a file that was deleted under it.
        if FileIdentity::of(&self.path).ok() != Some(self.file) {
            return Err(LedgerError::Gone);
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}
