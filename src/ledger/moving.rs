//! Moving a ledger from a file into a database: nothing is left behind, and at no time can two ledgers be used.
//!
//! The file is marked first, so that no worker takes it up any more; the database says that it is being filled, so that no
//! worker takes it up yet. What is copied is copied in steps that may be repeated, so that a move that was interrupted
//! goes on where it was. Only when both hold the same may the database be used.

use std::fmt;
use std::path::Path;

use super::postgres::{self, PostgresUrl};
use super::{LedgerError, OpenError, Position, sqlite};

/// Records copied in one step.
const STEP: usize = 1_000;

/// Why a ledger was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the file can't be read, or not be marked: {0}")]
    Source(LedgerError),
    #[error("the database can't be filled: {0}")]
    Target(LedgerError),
    #[error("the database holds another ledger already ({0}); name an empty database")]
    Occupied(Counts),
    #[error("{0} workers use the database; stop them first")]
    Used(usize),
    #[error(
        "the ledger was moved already, or all but the last step of it is done, so that it can't be moved or given up any more: set `ledger.url` to the database; where workers say that it is still being filled, run this again with the same --to"
    )]
    Moved,
    #[error("the database was changed by somebody else during the move; see who uses it, and run this again")]
    Disturbed,
    #[error(
        "after copying, the file holds {source_counts} and the database {target_counts}; nothing was put to use. Run it again, or give it up with --abandon"
    )]
    Differ { source_counts: Counts, target_counts: Counts },
}

/// How much a ledger holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub commands: u64,
    /// Those among the commands.
    pub unfinished: u64,
    pub accounts: u64,
    pub pauses: u64,
    pub tokens: u64,
    /// The place of the latest command.
    pub last_position: i64,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commands, unfinished, accounts, pauses, tokens, last_position } = self;
        write!(
            formatter,
            "{commands} commands ({unfinished} unfinished, the last in position {last_position}), {accounts} accounts, {pauses} pauses, {tokens} tokens"
        )
    }
}

/// Copies a file into a database and puts that to use in its place. Tells after each step how many commands are there, of
/// how many. Answers what both hold.
///
/// # Errors
/// Why not. Whatever was copied stays, and the next try goes on from there.
pub async fn migrate(from: &Path, to: &PostgresUrl, mut progress: impl FnMut(u64, u64)) -> Result<Counts, MoveError> {
    let mut source = sqlite::Source::open(from).map_err(OpenError::from)?;
    let mut target = postgres::Target::open(to).await.map_err(OpenError::from)?;
    let begun = begin_or_go_on(&mut source, &mut target).await?;
    let source_counts = source.counts().map_err(MoveError::Source)?;
    copy(&source, &mut target, &begun, |copied| progress(copied, source_counts.commands)).await?;
    let target_counts = target.state().await.map_err(in_target)?.counts;
    if target_counts != source_counts {
        return Err(MoveError::Differ { source_counts, target_counts });
    }
    // In this order, so that there is no moment at which both could be used.
    source.mark(&sqlite::Moved::Done(begun.name.clone())).map_err(MoveError::Source)?;
    let next = source.next_position().map_err(MoveError::Source)?;
    if !target.end_filling(source.id(), &begun.name, next).await.map_err(in_target)? {
        return Err(MoveError::Disturbed);
    }
    Ok(source_counts)
}

/// A move under way.
struct Begun {
    /// Which the file and the database both know.
    name: String,
    /// How many commands were copied before, and the last one's position.
    copied: u64,
    after: Position,
}

impl Begun {
    fn anew() -> Self {
        Self { name: super::random_name(), copied: 0, after: Position(0) }
    }
}

/// Finds out where the move stands by what file and database say of it, and begins it where it was not begun.
async fn begin_or_go_on(source: &mut sqlite::Source, target: &mut postgres::Target) -> Result<Begun, MoveError> {
    let found = target.state().await.map_err(in_target)?;
    let ours = found.ledger_id == source.id();
    let go_on = |name| Begun { name, copied: found.counts.commands, after: Position(found.counts.last_position) };
    let begun = match (source.moved().map_err(MoveError::Source)?, &found.filled_by) {
        // Everything was copied, and the database not put to use yet.
        (sqlite::Moved::Done(name), Some(filled_by)) if ours && name == *filled_by => return Ok(go_on(name)),
        (sqlite::Moved::Done(_), _) => return Err(MoveError::Moved),
        // It was interrupted while it copied.
        (sqlite::Moved::Begun(name), Some(filled_by)) if ours && name == *filled_by => return Ok(go_on(name)),
        // Another move has left there an older state of the file.
        (_, Some(_)) if ours => {
            target.empty().await.map_err(in_target)?;
            Begun::anew()
        }
        _ if found.workers > 0 => return Err(MoveError::Used(found.workers)),
        _ if found.counts != Counts::default() || found.filled_by.is_some() => return Err(MoveError::Occupied(found.counts)),
        // The database is nobody's.
        _ => Begun::anew(),
    };
    if !target.begin_filling(source.id(), &begun.name).await.map_err(in_target)? {
        return Err(MoveError::Disturbed);
    }
    source.mark(&sqlite::Moved::Begun(begun.name.clone())).map_err(MoveError::Source)?;
    Ok(begun)
}

/// Copies all but the commands that were copied before.
async fn copy(
    source: &sqlite::Source,
    target: &mut postgres::Target,
    begun: &Begun,
    mut progress: impl FnMut(u64),
) -> Result<(), MoveError> {
    // Accounts first: they are few, and the commands tell how far an interrupted move had come.
    let mut after = String::new();
    loop {
        let accounts = source.accounts(&after, STEP).map_err(MoveError::Source)?;
        let Some(last) = accounts.last() else { break };
        after = last.kf_account.clone();
        target.fill_accounts(accounts).await.map_err(in_target)?;
    }
    let Begun { mut copied, mut after, .. } = *begun;
    loop {
        progress(copied);
        let commands = source.commands(after, STEP).map_err(MoveError::Source)?;
        let Some(last) = commands.last() else { break };
        after = last.position;
        copied += commands.len() as u64;
        target.fill_commands(&commands).await.map_err(in_target)?;
    }
    target.fill_pauses(&source.pauses().map_err(MoveError::Source)?).await.map_err(in_target)?;
    target.fill_tokens(&source.tokens().map_err(MoveError::Source)?).await.map_err(in_target)
}

/// Gives up a move that was begun: the database is emptied, and the file may be used again.
///
/// # Errors
/// Where the move was ended, or either can't be reached.
pub async fn abandon(from: &Path, to: &PostgresUrl) -> Result<(), MoveError> {
    let mut source = sqlite::Source::open(from).map_err(OpenError::from)?;
    if let sqlite::Moved::Done(_) = source.moved().map_err(MoveError::Source)? {
        return Err(MoveError::Moved);
    }
    let mut target = postgres::Target::open(to).await.map_err(OpenError::from)?;
    if target.is_filled_with(source.id()).await.map_err(in_target)? {
        target.empty().await.map_err(in_target)?;
    }
    // Should it be another database than the one that was being filled: what is left there is never gone on with, since
    // the file forgets the name of the move here.
    source.mark(&sqlite::Moved::No).map_err(MoveError::Source)
}

fn in_target(trouble: impl Into<LedgerError>) -> MoveError {
    MoveError::Target(trouble.into())
}

/// What a database is found to be.
pub struct Found {
    pub ledger_id: String,
    /// The move that fills it, where one does.
    pub filled_by: Option<String>,
    pub workers: usize,
    pub counts: Counts,
}
