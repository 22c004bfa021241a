//! `kf-worker watch`: the results as they come, until Ctrl-C.

use jiff::Timestamp;

use super::outcomes::{Filter, Lines};
use super::{Exit, note, tell};
use crate::broker::{ConnectError, Results, Settings};
use crate::event::{Told, on_one_line};
use crate::retry;

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker watch
  kf-worker watch --status failed --account '*@test'
  kf-worker watch --json | jq -r 'select(.status == \"failed\") | .error.detail'

Results from before it was started are shown by `kf-worker results`. It has a queue of its own at the broker, which is gone
when it ends; who reads more slowly than results come misses the oldest of those that wait there once they are 100,000.";

/// Watches until Ctrl-C, or until the broker refuses.
pub fn watch(settings: &Settings, filter: &Filter, json: bool) -> Exit {
    let ended = super::in_runtime(async {
        tokio::select! {
            refused = keep_watching(settings, filter, json) => Some(refused),
            // Where signals can't be had, Ctrl-C ends the process as it ends any other.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    });
    match ended {
        Ok(None) => Exit::Done,
        Ok(Some(error)) => {
            tell(&error);
            Exit::from(&error)
        }
        Err(exit) => exit,
    }
}

/// Shows results, connecting again whenever the broker was lost. A broker that was never reached, or that refuses, ends it.
async fn keep_watching(settings: &Settings, filter: &Filter, json: bool) -> ConnectError {
    let open = async || Results::open(settings, filter.action, filter.status).await;
    let mut results = match open().await {
        Ok(results) => results,
        Err(error) => return error,
    };
    note(format_args!("watching the results of `{}` on {}; Ctrl-C ends it", settings.prefix, settings.url));
    let mut shown = Shown { lines: Lines::on_stdout(), latest: Timestamp::now() };
    loop {
        let lost = show(&mut results, filter, &mut shown, json).await;
        tell(format_args!("{lost}; connecting again"));
        results.close().await;
        let mut failures = 0;
        results = loop {
            failures += 1;
            tokio::time::sleep(retry::before_reconnecting(failures)).await;
            match open().await {
                Ok(results) => break results,
                Err(error) if error.needs_an_operator() => return error,
                Err(error) => tracing::debug!(%error, failures, "the broker can't be reached yet"),
            }
        };
        tell(format_args!(
            "connected again; results in between were missed, and the ledger has them: kf-worker results --since {:.0}",
            shown.latest
        ));
    }
}

/// What was shown so far.
struct Shown {
    lines: Lines,
    /// When the latest result was reached, or the watching began: whatever is missed came later. When the connection was
    /// lost is only known some heartbeats after.
    latest: Timestamp,
}

/// Shows results until the connection is lost, and answers why.
async fn show(results: &mut Results, filter: &Filter, shown: &mut Shown, json: bool) -> ConnectError {
    loop {
        let data = match results.next().await {
            Ok(data) => data,
            Err(error) => return error,
        };
        let Some(told) = Told::read(&data) else { continue };
        shown.latest = shown.latest.max(told.finished_at);
        let wanted = |pattern: &crate::command::AccountPattern| told.kf_account.as_deref().is_some_and(|account| pattern.fits(account));
        if !filter.account.as_ref().is_none_or(wanted) {
            continue;
        }
        if json {
            super::print(on_one_line(&data));
        } else {
            super::print(shown.lines.line(&told));
        }
    }
}
