//! Who may call WeChat next: so many at once in all, no Official Account more than its share while others wait, and
//! one at a time while everything fails.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore, oneshot};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::retry::{self, Budget};

/// How many calls there may be.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Calls in flight at once, in all.
    pub at_once: usize,
    /// So many more may get ready for theirs meanwhile, where calls are quick: nobody's place stands empty while the ledger
    /// writes.
    pub ahead: usize,
    /// Those of one Official Account among them, while others wait.
    pub share: usize,
    /// Retries beyond successes before there is only one call at a time.
    pub budget: u32,
}

/// An Official Account gets more than its share, while nobody else waits, only where its last call took less than
/// this: calls that hang would still be there when somebody comes.
const QUICK: Duration = Duration::from_secs(1);

/// All calls in flight, and everybody who waits to make one.
pub struct Calls {
    settings: Settings,
    state: Mutex<State>,
    /// As many as calls may be in flight.
    places: Arc<Semaphore>,
    /// Read by every call; written by one that must be alone.
    alone: Arc<RwLock<()>>,
    metrics: Arc<Metrics>,
}

struct State {
    in_flight: usize,
    /// The lines of all who ever called: kept while idle, since nobody's place in the round may start anew.
    lines: HashMap<Arc<str>, Line>,
    /// Lines in which somebody waits, the one that was served least recently first.
    waiting: BTreeSet<(u64, Arc<str>)>,
    /// Counts the permits given out.
    served: u64,
    budget: Budget,
    /// Failures in a row since the budget was used up.
    failures: u32,
}

/// The line of one Official Account.
#[derive(Default)]
struct Line {
    in_flight: usize,
    waiting: VecDeque<oneshot::Sender<Slot>>,
    /// When it was served last, as a count of permits.
    served: u64,
    quick: bool,
}

/// The right to get ready for one call, and to make it once there is a place. It ends when this is dropped.
pub struct Permit {
    slot: Slot,
    _beside: Beside,
}

/// Whether others may call at the same time.
enum Beside {
    Others { _guard: OwnedRwLockReadGuard<()> },
    Nobody { _guard: OwnedRwLockWriteGuard<()> },
}

/// One of the calls that are in flight. It ends when this is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// One of those who make calls, or get ready to.
struct Slot {
    calls: Arc<Calls>,
    wechat_id: Arc<str>,
    given_at: Instant,
    wait: Duration,
}

impl Calls {
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.calls_in_flight_limit.set(settings.at_once.try_into().unwrap_or(i64::MAX));
        let state = State {
            in_flight: 0,
            lines: HashMap::new(),
            waiting: BTreeSet::new(),
            served: 0,
            budget: Budget::new(settings.budget),
            failures: 0,
        };
        let places = Arc::new(Semaphore::new(settings.at_once));
        Arc::new(Self { settings, state: Mutex::new(state), places, alone: Arc::default(), metrics })
    }

    /// Waits for the right to make a call for an Official Account; where nobody may call beside it, until nobody does.
    /// Whoever stops waiting loses nothing but its place.
    pub async fn acquire(self: &Arc<Self>, wechat_id: &str, alone: bool) -> Permit {
        let (sender, granted) = oneshot::channel();
        self.locked().line_up(wechat_id, sender);
        self.hand_out();
        let slot = match granted.await {
            Ok(slot) => slot,
            // A sender stands in its line until it is used.
            Err(_) => std::future::pending().await,
        };
        let lock = Arc::clone(&self.alone);
        let beside =
            if alone { Beside::Nobody { _guard: lock.write_owned().await } } else { Beside::Others { _guard: lock.read_owned().await } };
        Permit { slot, _beside: beside }
    }

    /// WeChat answered, whatever it said.
    pub fn answered(self: &Arc<Self>) {
        let everything_failed = {
            let mut state = self.locked();
            state.failures = 0;
            let was_empty = state.budget.is_empty();
            state.budget.earn();
            was_empty
        };
        if everything_failed {
            self.metrics.wechat_failing.set(0);
            tracing::info!("WeChat answers again");
            self.hand_out();
        }
    }

    /// A call met trouble that asks for another one.
    pub fn failed(&self) {
        let mut state = self.locked();
        let was_empty = state.budget.is_empty();
        if state.budget.spend() {
            state.failures = state.failures.saturating_add(1);
            if !was_empty {
                self.metrics.wechat_failing.set(1);
                tracing::warn!("nearly every call to WeChat fails; one call at a time is made until one is answered");
            }
        }
    }

    /// Gives out what can be given out. Outside the lock, since whoever has stopped waiting gives back at once.
    fn hand_out(self: &Arc<Self>) {
        while let Some((waiting, slot)) = self.next() {
            drop(waiting.send(slot));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Slot>, Slot)> {
        let mut state = self.locked();
        let (wechat_id, waiting) = state.serve(self.settings)?;
        let wait = if state.budget.is_empty() { retry::while_everything_fails(state.failures) } else { Duration::ZERO };
        Some((waiting, Slot { calls: Arc::clone(self), wechat_id, given_at: Instant::now(), wait }))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line_up(&mut self, wechat_id: &str, sender: oneshot::Sender<Slot>) {
        let wechat_id = self.lines.get_key_value(wechat_id).map_or_else(|| Arc::from(wechat_id), |(known, _)| Arc::clone(known));
        let line = self.lines.entry(Arc::clone(&wechat_id)).or_default();
        line.waiting.push_back(sender);
        self.waiting.insert((line.served, wechat_id));
    }

    /// Counts a call in for whoever comes next, where one may.
    fn serve(&mut self, settings: Settings) -> Option<(Arc<str>, oneshot::Sender<Slot>)> {
        let limit = if self.budget.is_empty() { 1 } else { settings.at_once + settings.ahead };
        while self.in_flight < limit {
            let (served, wechat_id) = self.first_in_turn(settings)?;
            self.waiting.remove(&(served, Arc::clone(&wechat_id)));
            let line = self.lines.get_mut(&wechat_id)?;
            let waiting = line.waiting.pop_front();
            let somebody = waiting.filter(|waiting| !waiting.is_closed());
            if somebody.is_some() {
                self.served += 1;
                line.served = self.served;
                line.in_flight += 1;
                self.in_flight += 1;
            }
            if !line.waiting.is_empty() {
                self.waiting.insert((line.served, Arc::clone(&wechat_id)));
            }
            if let Some(waiting) = somebody {
                return Some((wechat_id, waiting));
            }
        }
        None
    }

    /// The line that was served least recently, of those that have not their share.
    fn first_in_turn(&self, settings: Settings) -> Option<(u64, Arc<str>)> {
        let (only_one, is_ahead) = (self.waiting.len() == 1, self.in_flight >= settings.at_once);
        let may = |line: &Line| (line.in_flight < settings.share || (only_one && line.quick)) && (line.quick || !is_ahead);
        self.waiting.iter().find(|(_, wechat_id)| self.lines.get(wechat_id).is_some_and(may)).cloned()
    }

    fn give_back(&mut self, wechat_id: &Arc<str>, quick: bool) {
        self.in_flight -= 1;
        let Some(line) = self.lines.get_mut(wechat_id) else { return };
        line.in_flight -= 1;
        line.quick = quick;
    }
}

impl Permit {
    /// How long to wait before the call: while everything fails, calls are spaced out.
    pub fn wait(&self) -> Duration {
        self.slot.wait
    }

    /// Waits for a place for the call.
    pub async fn place(&self) -> Place {
        match Arc::clone(&self.slot.calls.places).acquire_owned().await {
            Ok(permit) => Place { _permit: permit },
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.calls.locked().give_back(&self.wechat_id, self.given_at.elapsed() < QUICK + self.wait);
        self.calls.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(at_once: usize, share: usize, budget: u32) -> Arc<Calls> {
        with_some_ahead(at_once, 0, share, budget)
    }

    fn with_some_ahead(at_once: usize, ahead: usize, share: usize, budget: u32) -> Arc<Calls> {
        Calls::new(Settings { at_once, ahead, share, budget }, Arc::new(Metrics::new().unwrap()))
    }

    /// Takes a permit where there is one now.
    async fn now(calls: &Arc<Calls>, wechat_id: &str) -> Option<Permit> {
        tokio::time::timeout(Duration::from_millis(1), calls.acquire(wechat_id, false)).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_leaves_half_to_the_others() {
        let calls = calls(4, 2, 10);
        let hanging = (now(&calls, "hanging").await, now(&calls, "hanging").await);
        assert!(hanging.0.is_some() && hanging.1.is_some());
        assert!(now(&calls, "hanging").await.is_none(), "none of its calls was ever quick");
        let well = now(&calls, "well").await;
        assert!(well.is_some());
        drop(hanging);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_quick_may_use_what_nobody_else_wants() {
        let calls = calls(4, 2, 10);
        drop(now(&calls, "busy").await);
        let first = now(&calls, "busy").await;
        drop(now(&calls, "busy").await);
        let more = [now(&calls, "busy").await, now(&calls, "busy").await, now(&calls, "busy").await];
        assert!(more.iter().all(Option::is_some), "one of them has been quick");
        let mut waiting = std::pin::pin!(calls.acquire("other", false));
        let mut greedy = std::pin::pin!(calls.acquire("busy", false));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending() && futures_util::poll!(greedy.as_mut()).is_pending());
        drop(first);
        let others = futures_util::poll!(waiting.as_mut());
        assert!(others.is_ready(), "the next call is the other's");
        assert!(futures_util::poll!(greedy.as_mut()).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn where_calls_are_quick_some_get_ready_while_others_are_in_flight() {
        let calls = with_some_ahead(2, 1, 2, 10);
        for wechat_id in ["a", "b"] {
            assert!(now(&calls, wechat_id).await.is_some());
        }
        let in_flight = [now(&calls, "a").await.unwrap(), now(&calls, "b").await.unwrap()];
        let places = [in_flight[0].place().await, in_flight[1].place().await];
        assert!(now(&calls, "new").await.is_none(), "nobody knows whether its calls are quick");
        let ahead = now(&calls, "a").await.unwrap();
        assert!(now(&calls, "b").await.is_none(), "there are enough of them");
        let mut place = std::pin::pin!(ahead.place());
        assert!(futures_util::poll!(place.as_mut()).is_pending());
        drop(places);
        assert!(futures_util::poll!(place.as_mut()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn turns_go_round() {
        let calls = calls(1, 1, 10);
        let mut held = now(&calls, "a").await;
        let mut waiting: Vec<_> = ["a", "a", "b", "c"].iter().map(|id| (*id, Box::pin(calls.acquire(id, false)))).collect();
        for (_, turn) in &mut waiting {
            assert!(futures_util::poll!(turn.as_mut()).is_pending());
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held.take());
            for index in 0..waiting.len() {
                if let std::task::Poll::Ready(permit) = futures_util::poll!(waiting[index].1.as_mut()) {
                    order.push(waiting.remove(index).0);
                    held = Some(permit);
                    break;
                }
            }
        }
        assert_eq!(order, ["b", "c", "a", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_from_idleness_does_not_go_before_who_has_waited() {
        let calls = calls(1, 1, 10);
        drop(now(&calls, "waits").await);
        let held = now(&calls, "idle").await;
        let mut waits = std::pin::pin!(calls.acquire("waits", false));
        let mut back = std::pin::pin!(calls.acquire("idle", false));
        assert!(futures_util::poll!(waits.as_mut()).is_pending() && futures_util::poll!(back.as_mut()).is_pending());
        drop(held);
        assert!(futures_util::poll!(back.as_mut()).is_pending());
        assert!(futures_util::poll!(waits.as_mut()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_holds_up_nobody() {
        let calls = calls(1, 1, 10);
        let held = now(&calls, "a").await;
        assert!(now(&calls, "b").await.is_none());
        drop(held);
        assert!(now(&calls, "c").await.is_some());
        assert_eq!(calls.locked().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_at_a_time_while_everything_fails_and_a_newcomer_first() {
        let calls = calls(8, 4, 3);
        (0..3).for_each(|_| calls.failed());
        let first = now(&calls, "a").await.unwrap();
        assert!(now(&calls, "a").await.is_none());
        let mut again = std::pin::pin!(calls.acquire("a", false));
        let mut newcomer = std::pin::pin!(calls.acquire("b", false));
        assert!(futures_util::poll!(again.as_mut()).is_pending() && futures_util::poll!(newcomer.as_mut()).is_pending());
        calls.failed();
        drop(first);
        assert!(futures_util::poll!(again.as_mut()).is_pending());
        let std::task::Poll::Ready(permit) = futures_util::poll!(newcomer.as_mut()) else { panic!("the newcomer waits") };
        assert!(permit.wait() <= Duration::from_secs(1));
        calls.answered();
        assert!(futures_util::poll!(again.as_mut()).is_ready(), "one answer ends it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_must_be_alone_waits_for_all_and_all_for_it() {
        let calls = calls(4, 4, 10);
        let other = now(&calls, "a").await;
        let mut alone = std::pin::pin!(calls.acquire("b", true));
        assert!(futures_util::poll!(alone.as_mut()).is_pending());
        drop(other);
        let std::task::Poll::Ready(permit) = futures_util::poll!(alone.as_mut()) else { panic!("nobody else calls") };
        assert!(now(&calls, "a").await.is_none());
        drop(permit);
        assert!(now(&calls, "a").await.is_some());
    }
}
