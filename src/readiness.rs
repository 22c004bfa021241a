//! Whether the worker can do its work now, and if not, why not: what `/readyz` answers.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::outcome::words;

/// The parts that must be well, each set by its owner.
#[derive(Debug)]
pub struct Readiness {
    state: Mutex<State>,
    /// Wakes the one who waits for a change.
    changed: Notify,
    /// Until something changes it has not been ready since then.
    made_at: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    consuming: bool,
    draining: bool,
    blocked: bool,
    /// Why the broker can't be used, in a sentence.
    broker_trouble: Option<String>,
    /// Why the ledger can't be used, in a sentence.
    ledger_trouble: Option<String>,
    /// When the loop that takes commands last came round, while there is one.
    round: Option<Instant>,
    /// Why the worker is not ready, and since when; nothing before the first change.
    told: Option<(NotReady, Timestamp)>,
}

words! {
    /// Why a worker is not ready, in a word.
    NotReady {
        Starting = "starting",
        Draining = "draining",
        /// The broker can't be used.
        Disconnected = "disconnected",
        /// The broker takes no messages from us.
        Blocked = "blocked",
        /// The ledger can't be used.
        Ledger = "ledger",
    }
}

/// Why the worker is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyNot {
    pub reason: NotReady,
    /// The same in a sentence.
    pub sentence: String,
    /// Since when it is not ready for this reason.
    pub since: Timestamp,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.sentence)
    }
}

/// The loop that takes commands comes round every second; after this long without it something is stuck for good.
const STUCK: Duration = Duration::from_secs(60);

impl Readiness {
    /// Commands are being taken, or no more.
    pub fn consuming(&self, yes: bool) {
        self.change(|state| {
            state.consuming = yes;
            if yes {
                state.broker_trouble = None;
            } else {
                state.blocked = false;
            }
        });
    }

    /// The loop that takes commands has come round.
    pub fn round(&self) {
        // No change: nobody is told of it, since it comes with every batch of commands.
        self.lock().round = Some(Instant::now());
    }

    /// Whether the loop that takes commands is stuck, so that only a new process helps.
    pub fn is_stuck(&self) -> bool {
        let state = self.lock();
        // The loop ends where draining begins, which may then take as long as is configured.
        state.consuming && !state.draining && state.round.is_some_and(|round| round.elapsed() > STUCK)
    }

    /// The worker is shutting down.
    pub fn draining(&self) {
        self.change(|state| state.draining = true);
    }

    /// The broker takes no messages from us, or takes them again.
    pub fn blocked(&self, yes: bool) {
        self.change(|state| state.blocked = yes);
    }

    /// The broker can't be used.
    pub fn broker_trouble(&self, trouble: String) {
        self.change(|state| state.broker_trouble = Some(trouble));
    }

    /// The ledger can't be used, or can again.
    pub fn ledger_trouble(&self, trouble: Option<String>) {
        self.change(|state| state.ledger_trouble = trouble);
    }

    /// Nothing where all is well, else why not.
    pub fn why_not(&self) -> Option<WhyNot> {
        let state = self.lock();
        let (reason, sentence) = state.trouble()?;
        let since = state.told.map_or(self.made_at, |(_, since)| since);
        Some(WhyNot { reason, sentence: sentence.to_owned(), since })
    }

    /// Waits until something has changed since the last time; meant for one who waits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let reason = state.trouble().map(|(reason, _)| reason);
        if reason != state.told.map(|(reason, _)| reason) {
            state.told = reason.map(|reason| (reason, Timestamp::now()));
        }
        drop(state);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock has left plain flags, which are as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The most telling reason not to be ready, in a word and a sentence.
    fn trouble(&self) -> Option<(NotReady, &str)> {
        if self.draining {
            Some((NotReady::Draining, "the worker is shutting down"))
        } else if let Some(trouble) = &self.ledger_trouble {
            Some((NotReady::Ledger, trouble))
        } else if let Some(trouble) = &self.broker_trouble {
            Some((NotReady::Disconnected, trouble))
        } else if !self.consuming {
            Some((NotReady::Starting, "not consuming yet"))
        } else if self.blocked {
            Some((NotReady::Blocked, "the broker takes no messages from us; look for its memory or disk alarm"))
        } else {
            None
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), made_at: Timestamp::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_come_round_is_stuck() {
        let readiness = Readiness::default();
        assert!(!readiness.is_stuck());
        readiness.consuming(true);
        readiness.round();
        tokio::time::advance(STUCK).await;
        assert!(!readiness.is_stuck());
        tokio::time::advance(STUCK).await;
        assert!(readiness.is_stuck());
        readiness.consuming(false);
        assert!(!readiness.is_stuck(), "between sessions there is no loop");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_drains_for_long_is_not_stuck() {
        let readiness = Readiness::default();
        readiness.consuming(true);
        readiness.round();
        readiness.draining();
        tokio::time::advance(2 * STUCK).await;
        assert!(!readiness.is_stuck());
    }

    #[test]
    fn the_most_telling_reason_comes_first() {
        let readiness = Readiness::default();
        let reason = || readiness.why_not().map(|why_not| why_not.reason);
        assert_eq!(reason(), Some(NotReady::Starting));
        readiness.broker_trouble("connection refused".to_owned());
        assert_eq!(readiness.why_not().unwrap().to_string(), "disconnected: connection refused");
        let since = readiness.why_not().unwrap().since;
        readiness.broker_trouble("timed out".to_owned());
        assert_eq!(readiness.why_not().unwrap().since, since, "it is the same trouble, in other words");
        readiness.consuming(true);
        assert_eq!(reason(), None);
        readiness.blocked(true);
        assert_eq!(reason(), Some(NotReady::Blocked));
        readiness.ledger_trouble(Some("disk full".to_owned()));
        assert_eq!(readiness.why_not().unwrap().to_string(), "ledger: disk full");
        assert!(readiness.why_not().unwrap().since > since);
        readiness.draining();
        assert_eq!(reason(), Some(NotReady::Draining));
    }
}
