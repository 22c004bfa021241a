//! The ledger in one SQLite file: one thread writes, and everything that waits shares a transaction and an fsync.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::page::Page;
use super::rows::{Stored, read_finished};
use super::{
    Acceptance, Arrival, Claim, Finished, KeptPause, LedgerError, OpenError, Position, Settings, StoredToken, Waiting, Wanted, memory,
    schema,
};
use crate::event::{Conclusion, now};
use crate::outcome::Scope;

/// Requests that share one transaction at most.
const BATCH: usize = 512;
/// How long SQLite waits for another program's lock (a backup, say) before a request fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle on the ledger; clones share the writing thread, which ends when the last is dropped.
#[derive(Clone)]
pub struct Ledger {
    requests: mpsc::UnboundedSender<Work>,
    id: String,
}

/// Something to do in a transaction; given the reason instead of a page where there is none. It tells whether it went
/// well, and leaves behind what is to be said once the transaction has ended.
type Work = Box<dyn FnOnce(Result<&Page<'_>, LedgerError>) -> (Result<(), LedgerError>, Answer) + Send>;

/// Says to who asked that the transaction was committed, or why not.
type Answer = Box<dyn FnOnce(Result<(), LedgerError>)>;

impl Ledger {
    /// Opens the file, makes it where it doesn't exist, and takes it for this process alone.
    ///
    /// # Errors
    /// Where another worker has it, where it can't be reached, or where it is no ledger of this or an older version.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let lock = take_lock(&settings.path)?;
        let mut connection = open_for_writing(&settings.path)?;
        schema::migrations().to_latest(&mut connection).map_err(|source| OpenError::Migration { path: settings.path.clone(), source })?;
        let id = connection
            .query_row("SELECT ledger_id FROM identity", [], |row| row.get(0))
            .map_err(|source| OpenError::Database { path: settings.path.clone(), source })?;
        let file = FileIdentity::of(&settings.path).map_err(|source| OpenError::File { path: settings.path.clone(), source })?;
        let (requests, queue) = mpsc::unbounded_channel();
        let mut writer = Writer { connection, settings: settings.clone(), file, _lock: lock };
        writer.take_over().map_err(|source| OpenError::TakeOver { path: settings.path.clone(), source })?;
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::File { path: settings.path.clone(), source })?;
        Ok(Self { requests, id })
    }

    /// Who this ledger is; put-off copies carry it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Accepts arrivals in their order, in one transaction. The answers come in the same order.
    ///
    /// # Errors
    /// Where the ledger can't be written; then nothing was accepted.
    pub async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<Acceptance>, LedgerError> {
        self.ask(move |page| arrivals.iter().map(|arrival| page.accept(arrival)).collect()).await
    }

    /// Claims a command for one call to WeChat and counts the call.
    ///
    /// # Errors
    /// Where the ledger can't be written; then WeChat must not be called.
    pub async fn begin(&self, position: Position) -> Result<Claim, LedgerError> {
        self.ask(move |page| page.begin(position)).await
    }

    /// Records that a command waits, and why. Answers its outcome where a newer command superseded it.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn wait(&self, position: Position, waiting: Waiting) -> Result<Option<Finished>, LedgerError> {
        self.ask(move |page| page.wait(position, &waiting)).await
    }

    /// The outcome of a waiting command, where a newer one superseded it meanwhile.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn check(&self, position: Position) -> Result<Option<Finished>, LedgerError> {
        self.ask(move |page| page.finished(position)).await
    }

    /// Writes the outcome of a command; where it has one already, that one stands and is answered.
    ///
    /// # Errors
    /// Where the ledger can't be written; then the command has no outcome yet.
    pub async fn finish(&self, position: Position, conclusion: Conclusion, dead_letter: bool) -> Result<Finished, LedgerError> {
        self.ask(move |page| page.finish(position, &conclusion, dead_letter)).await
    }

    /// Records that the dead letter owed for a command is in its queue.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn dead_lettered(&self, position: Position) -> Result<(), LedgerError> {
        self.ask(move |page| page.dead_lettered(position)).await
    }

    /// Records that carrying out a command has panicked.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn panicked(&self, position: Position) -> Result<(), LedgerError> {
        self.ask(move |page| page.panicked(position)).await
    }

    /// The pauses that outlived the last process.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn pauses(&self) -> Result<Vec<KeptPause>, LedgerError> {
        self.ask(|page| memory::pauses(page.connection)).await
    }

    /// Remembers a pause, in place of the one of its scope.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn keep_pause(&self, pause: KeptPause) -> Result<(), LedgerError> {
        self.ask(move |page| page.keep_pause(&pause)).await
    }

    /// Forgets the pause of a scope.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn forget_pause(&self, wechat_id: String, scope: Scope) -> Result<(), LedgerError> {
        self.ask(move |page| page.forget_pause(&wechat_id, scope)).await
    }

    /// The token that was kept for an owner.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn token(&self, owner: String) -> Result<Option<StoredToken>, LedgerError> {
        self.ask(move |page| memory::token(page.connection, &owner)).await
    }

    /// Keeps a token, in place of its owner's former one.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it must not be used.
    pub async fn save_token(&self, token: StoredToken) -> Result<(), LedgerError> {
        self.ask(move |page| page.save_token(&token)).await
    }

    /// What every known account of an Official Account should be.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn wanted(&self, wechat_id: String) -> Result<Vec<Wanted>, LedgerError> {
        self.ask(move |page| memory::wanted(page.connection, &wechat_id)).await
    }

    /// Gives back what is in flight at an orderly end, so that it does not look like a death.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it will look like one.
    pub async fn release(&self) -> Result<(), LedgerError> {
        self.ask(|page| page.release()).await
    }

    /// Forgets some outcomes older than the retention; answers how many. Zero means that there are no more for now.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn prune(&self) -> Result<usize, LedgerError> {
        self.ask(|page| page.prune()).await
    }

    /// Proves that the ledger can be written.
    ///
    /// # Errors
    /// Where it can't.
    pub async fn probe(&self) -> Result<(), LedgerError> {
        self.ask(|page| page.probe()).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Page<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |page| {
            let result = page.and_then(work);
            let went_well = result.as_ref().map(|_| ()).map_err(Clone::clone);
            // Who has stopped waiting needs no answer.
            (went_well, Box::new(move |committed: Result<(), LedgerError>| drop(reply.send(committed.and(result)))))
        });
        self.requests.send(work).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Reads a ledger beside the worker that writes it.
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens the file for reading only.
    ///
    /// # Errors
    /// Where it isn't there or is no ledger.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = |source| OpenError::Database { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, flags).map_err(database)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(database)?;
        Ok(Self { connection })
    }

    /// What every known account of an Official Account should be.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub fn wanted(&self, wechat_id: &str) -> Result<Vec<Wanted>, LedgerError> {
        memory::wanted(&self.connection, wechat_id)
    }

    /// The token that was kept for an owner.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub fn token(&self, owner: &str) -> Result<Option<StoredToken>, LedgerError> {
        memory::token(&self.connection, owner)
    }

    /// The outcome of a command, where it has one.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub fn find(&self, command_id: &str) -> Result<Lookup, LedgerError> {
        let mut by_id = self.connection.prepare_cached("SELECT position, state FROM command WHERE command_id = ?1")?;
        let found = by_id.query_row([command_id], |row| Ok((Position(row.get(0)?), row.get::<_, Stored>(1)?))).optional()?;
        match found {
            None => Ok(Lookup::Unknown),
            Some((_, Stored::Unfinished(_))) => Ok(Lookup::Unfinished),
            Some((position, Stored::Finished)) => Ok(Lookup::Finished(Box::new(read_finished(&self.connection, position)?))),
        }
    }
}

/// What a ledger knows of a command id.
#[derive(Debug)]
pub enum Lookup {
    Unknown,
    Unfinished,
    Finished(Box<Finished>),
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
    connection: Connection,
    settings: Settings,
    file: FileIdentity,
    /// Held for as long as this process may write.
    _lock: File,
}

impl Writer {
    /// Takes whatever waits, does it in one transaction, and answers all of it after the commit.
    fn run(mut self, mut queue: mpsc::UnboundedReceiver<Work>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            let mut batch = batch.drain(..);
            let mut answers = Vec::with_capacity(batch.len());
            let result = self.transact(|page| {
                // One failure undoes the whole transaction: nobody may rely on a part of it.
                for work in batch.by_ref() {
                    let (went_well, answer) = work(Ok(page));
                    answers.push(answer);
                    went_well?;
                }
                Ok(())
            });
            if let Err(error) = &result {
                answers.extend(batch.map(|work| work(Err(error.clone())).1));
            }
            for answer in answers {
                answer(result.clone());
            }
        }
    }

    /// What the last process left in flight has an unknown outcome.
    fn take_over(&mut self) -> Result<(), LedgerError> {
        self.transact(|page| page.take_over())
    }

    fn transact(&mut self, work: impl FnOnce(&Page<'_>) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        // SQLite goes on writing to a file that was deleted under it.
        if FileIdentity::of(&self.settings.path).ok() != Some(self.file) {
            return Err(LedgerError::Gone);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (retention, patience) = (self.settings.retention, self.settings.patience);
        work(&Page { connection: &transaction, now: now(), retention, patience })?;
        Ok(transaction.commit()?)
    }
}
