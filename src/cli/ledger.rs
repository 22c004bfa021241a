//! `kf-worker ledger`: moving a ledger from a file into a database, and forgetting old outcomes by hand.

use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::bar::bar;
use super::{Config, Configuration, Exit};
use crate::ledger::{self, Ledger, MoveError, Place};
use crate::metrics::Metrics;

#[derive(Subcommand)]
pub enum LedgerCommand {
    /// Copy the ledger of a file into a database, check that nothing is missing, and put the database to use in its place.
    ///
    /// Stop the worker first. When interrupted, run it again: it goes on where it was.
    #[command(
        after_help = "Examples:\n  kf-worker ledger migrate --from sqlite:/var/lib/kf-worker/kf-ledger.db --to postgres://kf@db.example/kf?sslmode=verify-full\n  kf-worker ledger migrate --from sqlite:kf-ledger.db --abandon"
    )]
    Migrate {
        /// The file: sqlite:PATH.
        #[arg(long, value_name = "URL")]
        from: String,
        /// The database: postgres://…, without a password, which everybody could read in the list of processes. Where it is not
        /// given it is the one of KF_LEDGER__URL, or `ledger.url` of the configuration.
        #[arg(long, value_name = "URL")]
        to: Option<String>,
        /// Give up a move that was begun: empty the database and use the file again.
        #[arg(long)]
        abandon: bool,
        /// Print what was copied as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget outcomes older than `ledger.retention` now. Running workers do so at least every hour.
    #[command(after_help = "Example:\n  kf-worker ledger prune")]
    Prune {
        /// Print how many as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does what is asked and answers the exit code.
///
/// # Errors
/// Where the configuration is needed and has faults; they have been told.
pub fn ledger(configuration: &Configuration, what: LedgerCommand) -> Result<Exit, Exit> {
    match what {
        LedgerCommand::Migrate { from, to, abandon, json } => migrate(&from, to.as_deref(), configuration, abandon, json),
        LedgerCommand::Prune { json } => Ok(prune(&configuration.whole()?, json)),
    }
}

/// What a move is told on the command line, both ends of it.
struct Ends {
    from: std::path::PathBuf,
    to: ledger::PostgresUrl,
}

/// Moves a ledger. The configuration is only read where it has to say where to.
fn migrate(from: &str, to: Option<&str>, configuration: &Configuration, abandon: bool, json: bool) -> Result<Exit, Exit> {
    let flag = to;
    let environment = std::env::var("KF_LEDGER__URL").ok();
    let to = match (flag, environment) {
        (Some(url), _) => Place::parse(url).map_err(|trouble| format!("--to {trouble}")),
        (None, Some(url)) => Place::parse(&url).map_err(|trouble| format!("KF_LEDGER__URL {trouble}")),
        (None, None) => Ok(configuration.ledger()?),
    };
    if let (Some(_), Ok(Place::Postgres(url))) = (flag, &to)
        && url.has_password()
    {
        return Err(usage(
            "--to holds a password, which everybody on this machine could read in the list of processes; leave --to out and put the address into `ledger.url`, or into the environment as KF_LEDGER__URL",
        ));
    }
    let ends = match (Place::parse(from), to) {
        (Ok(Place::Sqlite(from)), Ok(Place::Postgres(to))) => Ends { from, to },
        (Err(trouble), _) => return Err(usage(&format!("--from {trouble}"))),
        (_, Err(trouble)) => return Err(usage(&trouble)),
        (Ok(Place::Postgres(_)), _) => return Err(usage("--from is a database; a ledger can be moved from a file (sqlite:PATH) only")),
        (_, Ok(Place::Sqlite(_))) => {
            return Err(usage("there is no database to move to; name it with --to postgres://…, or by `ledger.url`"));
        }
    };
    let done = super::in_runtime(async {
        match abandon {
            true => ledger::abandon(&ends.from, &ends.to).await.map(|()| None),
            false => copy(&ends).await.map(Some),
        }
    });
    match done {
        Ok(Ok(None)) => super::note("the move was given up: the file may be used again, the database is empty"),
        Ok(Ok(Some(counts))) if json => super::print(json!(counts)),
        Ok(Ok(Some(counts))) => {
            super::print(format_args!("moved: {counts}"));
            super::note(format_args!("set `ledger.url` to the database and start the workers; the file can't be used any more"));
        }
        Ok(Err(error)) => {
            super::tell(&error);
            return Err(exit_of(&error));
        }
        Err(exit) => return Err(exit),
    }
    Ok(Exit::Done)
}

async fn copy(ends: &Ends) -> Result<ledger::Counts, MoveError> {
    let bar = bar("{bar:30} {pos}/{len} commands copied, {eta} left", 0, true);
    let counts = ledger::migrate(&ends.from, &ends.to, |copied, of| {
        bar.set_length(of);
        bar.set_position(copied);
    })
    .await;
    bar.finish_and_clear();
    counts
}

/// Forgets old outcomes.
fn prune(config: &Config, json: bool) -> Exit {
    let bar = bar("{spinner} {pos} outcomes forgotten", 0, true);
    let pruned = super::in_runtime(async {
        let metrics = Metrics::new().map_err(|error| (Exit::Failed, error.to_string()))?;
        let ledger = Ledger::open(&config.ledger, Arc::new(metrics)).await.map_err(|error| (Exit::from(&error), error.to_string()))?;
        let forgotten = ledger.prune_all(|forgotten| bar.set_position(forgotten as u64)).await;
        forgotten.map_err(|error| (Exit::Failed, error.to_string()))
    });
    bar.finish_and_clear();
    match pruned {
        Ok(Ok(forgotten)) if json => super::print(json!({ "forgotten": forgotten })),
        Ok(Ok(forgotten)) => super::print(format_args!("{forgotten} outcomes were forgotten")),
        Ok(Err((exit, message))) => {
            super::tell(message);
            return exit;
        }
        Err(exit) => return exit,
    }
    Exit::Done
}

fn usage(message: &str) -> Exit {
    super::tell(message);
    Exit::Usage
}

fn exit_of(error: &MoveError) -> Exit {
    match error {
        MoveError::Open(error) => Exit::from(error),
        MoveError::Source(_) | MoveError::Target(_) | MoveError::Differ { .. } | MoveError::Disturbed => Exit::Failed,
        MoveError::Occupied(_) | MoveError::Used(_) | MoveError::Moved => Exit::Configuration,
    }
}
