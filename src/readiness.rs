//! Whether the worker can do its work now, and if not, why not: what `/readyz` answers.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::NotReady;

/// The parts that must be well, each set by its owner.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<State>,
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
        self.change(|state| state.round = Some(Instant::now()));
    }

    /// Whether the loop that takes commands is stuck, so that only a new process helps.
    pub fn is_stuck(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.consuming && state.round.is_some_and(|round| round.elapsed() > STUCK)
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

    /// Nothing where all is well, else the reason, in a word and a sentence.
    pub fn why_not(&self) -> Option<(NotReady, String)> {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (reason, sentence) = if state.draining {
            (NotReady::Draining, "the worker is shutting down")
        } else if let Some(trouble) = &state.ledger_trouble {
            (NotReady::Ledger, trouble.as_str())
        } else if let Some(trouble) = &state.broker_trouble {
            (NotReady::Disconnected, trouble.as_str())
        } else if !state.consuming {
            (NotReady::Starting, "not consuming yet")
        } else if state.blocked {
            (NotReady::Blocked, "the broker takes no messages from us; look for its memory or disk alarm")
        } else {
            return None;
        };
        Some((reason, sentence.to_owned()))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // A thread that panicked while it held the lock has left plain flags, which are as good as before.
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
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

    #[test]
    fn the_most_telling_reason_comes_first() {
        let readiness = Readiness::default();
        let reason = || readiness.why_not().map(|(reason, _)| reason);
        assert_eq!(reason(), Some(NotReady::Starting));
        readiness.broker_trouble("connection refused".to_owned());
        assert_eq!(readiness.why_not(), Some((NotReady::Disconnected, "connection refused".to_owned())));
        readiness.consuming(true);
        assert_eq!(reason(), None);
        readiness.blocked(true);
        assert_eq!(reason(), Some(NotReady::Blocked));
        readiness.ledger_trouble(Some("disk full".to_owned()));
        assert_eq!(readiness.why_not(), Some((NotReady::Ledger, "disk full".to_owned())));
        readiness.draining();
        assert_eq!(reason(), Some(NotReady::Draining));
    }
}
