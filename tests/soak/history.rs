//! Every row that the ledger has held: read while it is there, since the worker forgets it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::interval;

use crate::ledger::{self, Row};

/// How often new rows are read; far more often than they are forgotten.
const LOOK: Duration = Duration::from_secs(5);
/// By how much a row may be written later than one with a later time, in milliseconds; generously.
const OVERLAP: i64 = 10_000;

/// The rows seen so far, by position.
pub struct History {
    ledger: PathBuf,
    rows: BTreeMap<i64, Row>,
    /// When the latest of them was finished; 0 before the first.
    latest: i64,
}

impl History {
    pub fn of(ledger: &Path) -> Self {
        Self { ledger: ledger.to_owned(), rows: BTreeMap::new(), latest: 0 }
    }

    /// Reads what is new, for ever.
    pub async fn follow(&mut self) {
        let mut ticks = interval(LOOK);
        loop {
            ticks.tick().await;
            let (ledger, since) = (self.ledger.clone(), (self.latest - OVERLAP).max(0));
            let read = tokio::task::spawn_blocking(move || ledger::finished_since(&ledger, since)).await;
            self.take(read.expect("the ledger can be read"));
        }
    }

    /// All of them, oldest first, once the worker has ended.
    pub fn complete(mut self) -> Vec<Row> {
        let left = ledger::read(&self.ledger);
        self.take(left);
        self.rows.into_values().collect()
    }

    fn take(&mut self, rows: Vec<Row>) {
        for row in rows {
            // What has no end yet is read again.
            self.latest = self.latest.max(row.finished_at);
            self.rows.insert(row.position, row);
        }
    }
}
