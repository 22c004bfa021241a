//! The commands of one Official Account that are in hand, and its calls in flight: whether it is so slow, and holds so many, that others wait for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Calls hang when none was answered for so long.
const HANGS: Duration = Duration::from_secs(1);

/// The commands in hand and the calls in flight.
#[derive(Default)]
pub struct InHand {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each command was taken, and a number that tells apart what was taken at the same instant.
    commands: BTreeSet<(Instant, u64)>,
    numbers: u64,
    calls: usize,
    /// When a call was answered last, or the first of those in flight begun.
    answered_at: Option<Instant>,
}

/// A command in hand, counted as long as this lives.
pub struct Taken {
    in_hand: Arc<InHand>,
    place: (Instant, u64),
}

/// A call in flight, counted as long as this lives.
pub struct Calling {
    in_hand: Arc<InHand>,
}

impl InHand {
    /// Counts a command in hand.
    pub fn take(self: &Arc<Self>, taken_at: Instant) -> Taken {
        let mut state = self.locked();
        state.numbers += 1;
        let place = (taken_at, state.numbers);
        state.commands.insert(place);
        Taken { in_hand: Arc::clone(self), place }
    }

    /// Counts a call in flight.
    pub fn call(self: &Arc<Self>) -> Calling {
        let mut state = self.locked();
        if state.calls == 0 {
            state.answered_at = Some(Instant::now());
        }
        state.calls += 1;
        Calling { in_hand: Arc::clone(self) }
    }

    /// How many commands are in hand.
    pub fn commands(&self) -> usize {
        self.locked().commands.len()
    }

    /// Whether the oldest command has been in hand for so long.
    pub fn is_older_than(&self, long: Duration) -> bool {
        self.locked().commands.first().is_some_and(|(taken_at, _)| taken_at.elapsed() >= long)
    }

    /// Whether calls are in flight and none is answered.
    pub fn hangs(&self) -> bool {
        let state = self.locked();
        state.calls > 0 && state.answered_at.is_some_and(|answered_at| answered_at.elapsed() >= HANGS)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether so many others were taken before it that are still in hand.
    pub fn is_beyond(&self, many: usize) -> bool {
        self.in_hand.locked().commands.range(..self.place).count() >= many
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.in_hand.locked().commands.remove(&self.place);
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        let mut state = self.in_hand.locked();
        state.calls -= 1;
        state.answered_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_hang_when_none_is_answered_for_a_second() {
        let in_hand = Arc::new(InHand::default());
        tokio::time::advance(2 * HANGS).await;
        let first = in_hand.call();
        assert!(!in_hand.hangs(), "it has just begun");
        tokio::time::advance(HANGS / 2).await;
        let second = in_hand.call();
        tokio::time::advance(HANGS / 2).await;
        assert!(in_hand.hangs());
        drop(first);
        assert!(!in_hand.hangs(), "one was answered");
        tokio::time::advance(HANGS).await;
        assert!(in_hand.hangs());
        drop(second);
        assert!(!in_hand.hangs(), "none is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn commands_are_counted_in_the_order_in_which_they_were_taken() {
        let in_hand = Arc::new(InHand::default());
        let first = in_hand.take(Instant::now());
        tokio::time::advance(HANGS).await;
        let second = in_hand.take(Instant::now());
        assert_eq!((first.is_beyond(1), second.is_beyond(1), in_hand.commands()), (false, true, 2));
        assert!(in_hand.is_older_than(HANGS));
        drop(first);
        assert!(!second.is_beyond(1) && !in_hand.is_older_than(HANGS));
    }
}
