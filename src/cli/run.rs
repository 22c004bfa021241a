//! `kf-worker run`: the worker itself, with its signals.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Config, Exit};
use crate::RunError;
use crate::config::{self, Faults, SecretFiles};
use crate::ledger::LedgerError;
use crate::supervisor::GaveUp;

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker run --config /etc/kf-worker.toml
  kf-worker run --config /etc/kf-worker.toml --log-format json

SIGTERM and SIGINT end it in order within `worker.drain`, a second one at once. SIGHUP reads Official Accounts and passwords again.";

/// How often it is looked whether a file with a secret has changed.
const LOOK: Duration = Duration::from_secs(2);

/// Runs until a signal, or until the worker gives up.
pub fn run(config: Config, file: Option<PathBuf>) -> Exit {
    let ended = super::in_runtime(async {
        let shutdown = CancellationToken::new();
        on_signals(shutdown.clone())?;
        let (sender, changes) = mpsc::channel(1);
        on_change(file, config.secret_files.clone(), sender)?;
        Ok::<_, std::io::Error>(crate::run(config, changes, shutdown).await)
    });
    match ended {
        Ok(Ok(Ok(()))) => Exit::Done,
        Ok(Ok(Err(error))) => report(&error),
        Ok(Err(error)) => {
            super::tell(format_args!("signals can't be had: {error}"));
            Exit::Failed
        }
        Err(exit) => exit,
    }
}

/// The first signal drains, a second one ends the process at once.
fn on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                super::tell(format_args!("a second signal: ending at once; what was in flight comes back at the next start"));
                std::process::exit(Exit::Failed as i32);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Reads the configuration again and hands it on, upon SIGHUP and when a file that holds a secret has changed: who renews
/// secrets can rarely send signals. A configuration with faults changes nothing.
fn on_change(file: Option<PathBuf>, mut secret_files: SecretFiles, changes: mpsc::Sender<Config>) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut look = tokio::time::interval(LOOK);
    tokio::spawn(async move {
        // The faults for which a changed secret was not taken up. A certificate may be renewed before its key: it is tried again.
        let mut untaken: Option<Faults> = None;
        loop {
            let looked = tokio::select! {
                _ = hangup.recv() => false,
                _ = look.tick() => true,
            };
            if looked && secret_files.have_changed() {
                tracing::info!("a file with a secret has changed");
            } else if looked && untaken.is_none() {
                continue;
            }
            match config::load(file.as_deref(), std::env::vars_os()) {
                Ok(config) => {
                    secret_files = config.secret_files.clone();
                    untaken = None;
                    if changes.send(config).await.is_err() {
                        return;
                    }
                }
                Err(faults) => {
                    if !looked || untaken.as_ref() != Some(&faults) {
                        tracing::error!(%faults, "the configuration was read again and not taken up");
                    }
                    untaken = looked.then_some(faults).or(untaken);
                }
            }
        }
    });
    Ok(())
}

fn report(error: &RunError) -> Exit {
    super::tell(format_args!("{error}"));
    match error {
        RunError::Ledger(error) => Exit::from(error),
        RunError::Memory(LedgerError::Postgres(_)) => Exit::Unavailable,
        RunError::Memory(_) | RunError::Admin(_) | RunError::WeChat(_) | RunError::Traces(_) | RunError::GaveUp(GaveUp::Refused(_)) => {
            Exit::Configuration
        }
        RunError::GaveUp(GaveUp::Unreachable(_)) => Exit::Unavailable,
        RunError::Metrics(_) => Exit::Failed,
    }
}
