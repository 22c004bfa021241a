//! Shows now and then how much the ledger has still to do and how large it is, and tells of commands whose messages are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Census, Missing, Recall, Settings};
use crate::metrics::Metrics;

/// How often it is looked over.
const INTERVAL: Duration = Duration::from_secs(30);
/// Of so many commands whose messages are gone is told at most, the oldest ones.
const MOST_MISSING: usize = 100;

/// Goes on for as long as the worker runs.
pub async fn look_over(settings: Settings, metrics: Arc<Metrics>) {
    // Its own, so that no page keeps it waiting.
    let recall = Recall::new(settings.place);
    let mut told = HashSet::new();
    loop {
        let census = recall.census().await;
        // Whoever needs the ledger for more than this tells of it.
        let census = census.inspect_err(|error| tracing::debug!(error, "the ledger can't be looked over")).ok();
        metrics.census(
            census.map(|Census { unfinished, oldest_since, size_bytes }| {
                (unfinished, oldest_since.map_or(0, Timestamp::as_second), size_bytes)
            }),
        );
        let unseen_since = Timestamp::now().checked_sub(settings.patience).unwrap_or(Timestamp::MIN);
        if let Ok(missing) = recall.missing(unseen_since, MOST_MISSING).await {
            told = report_missing(missing, &told);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Tells of each command once; answers those of which is told.
fn report_missing(missing: Vec<Missing>, told: &HashSet<String>) -> HashSet<String> {
    for Missing { command_id, kf_account, seen_at } in missing.iter().filter(|missing| !told.contains(&missing.command_id)) {
        tracing::warn!(
            command.id = command_id,
            kf_account,
            seen_at = %format_args!("{seen_at:.0}"),
            "the message of an accepted command is gone: it holds nobody up any more; send it again under the same id"
        );
    }
    missing.into_iter().map(|missing| missing.command_id).collect()
}
