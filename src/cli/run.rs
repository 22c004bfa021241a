//! `kf-worker run`: the worker itself, with its signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Config, Exit};
use crate::RunError;

/// Runs until a signal, or until the worker gives up.
pub fn run(config: Config) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kf-worker: no threads can be started: {error}");
            return Exit::Failed;
        }
    };
    // One provider of cryptography for everything that speaks TLS. A second installation would be a mistake of ours,
    // and the first one would stand.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        match on_signals(shutdown.clone()) {
            Ok(()) => crate::run(config, shutdown).await,
            Err(error) => {
                eprintln!("kf-worker: signals can't be received: {error}");
                return Exit::Failed;
            }
        }
        .map_or_else(|error| report(&error), |()| Exit::Done)
    });
    // A thread that still does blocking work must not keep a worker alive that has ended.
    runtime.shutdown_background();
    ended
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
                eprintln!("kf-worker: a second signal: ending at once; what was in flight comes back at the next start");
                std::process::exit(Exit::Failed as i32);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

fn report(error: &RunError) -> Exit {
    eprintln!("kf-worker: {error}");
    match error {
        RunError::Ledger(_) | RunError::Admin(_) | RunError::WeChat(_) | RunError::Refused(_) => Exit::Configuration,
        RunError::Unreachable(_) => Exit::Unavailable,
        RunError::Metrics(_) => Exit::Failed,
    }
}
