//! Lanes: for each key one at a time, lowest place first; different keys side by side. Knows nothing of commands.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All lanes that hold something. A lane ends when it is empty, so that only keys with work take memory.
pub struct Lanes<K, P, T> {
    lanes: Mutex<HashMap<K, Lane<P, T>>>,
}

struct Lane<P, T> {
    /// What waits, by place; the number keeps those of one place in the order of their coming.
    items: BTreeMap<(P, u64), T>,
    arrivals: u64,
    changed: Arc<Notify>,
}

/// The right to work on a lane. There is one for each lane; dropping it ends the lane with all that it holds.
pub struct Turn<K: Hash + Eq, P: Ord, T> {
    lanes: Arc<Lanes<K, P, T>>,
    key: K,
    changed: Arc<Notify>,
}

impl<K: Hash + Eq + Clone, P: Ord, T> Lanes<K, P, T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { lanes: Mutex::default() })
    }

    /// Adds an item to its lane. Answers a turn where nobody works on the lane yet: the caller starts somebody.
    pub fn push(self: &Arc<Self>, key: &K, place: P, item: T) -> Option<Turn<K, P, T>> {
        let mut lanes = self.locked();
        let mut turn = None;
        let lane = lanes.entry(key.clone()).or_insert_with(|| {
            let changed = Arc::new(Notify::new());
            turn = Some(Turn { lanes: Arc::clone(self), key: key.clone(), changed: Arc::clone(&changed) });
            Lane { items: BTreeMap::new(), arrivals: 0, changed }
        });
        lane.add(place, item);
        lane.changed.notify_one();
        turn
    }

    /// Tells who works on a lane, if anybody does, that something has changed for it.
    pub fn touch(&self, key: &K) {
        if let Some(lane) = self.locked().get(key) {
            lane.changed.notify_one();
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<K, Lane<P, T>>> {
        // No code of others runs under the lock, so a poisoned one guards whole lanes.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Ord, T> Lane<P, T> {
    fn add(&mut self, place: P, item: T) {
        self.arrivals += 1;
        self.items.insert((place, self.arrivals), item);
    }
}

impl<K: Hash + Eq + Clone, P: Ord, T> Turn<K, P, T> {
    /// The item with the lowest place; `None` where the lane is empty, which ends it.
    pub fn next(&self) -> Option<T> {
        let mut lanes = self.lanes.locked();
        let lane = lanes.get_mut(&self.key)?;
        match lane.items.pop_first() {
            Some((_, item)) => Some(item),
            None => {
                lanes.remove(&self.key);
                None
            }
        }
    }

    /// Puts an item back that has not had its end.
    pub fn put_back(&self, place: P, item: T) {
        if let Some(lane) = self.lanes.locked().get_mut(&self.key) {
            lane.add(place, item);
        }
    }

    /// Waits until something was pushed since this was last awaited.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl<K: Hash + Eq, P: Ord, T> Drop for Turn<K, P, T> {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // The lane of this key may be a new one, with a turn of its own.
        if lanes.get(&self.key).is_some_and(|lane| Arc::ptr_eq(&lane.changed, &self.changed)) {
            lanes.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_lane_gives_out_the_lowest_place_whatever_the_order_of_coming() {
        let lanes = Lanes::new();
        let turn = lanes.push(&"a", 3, "third").unwrap();
        assert!(lanes.push(&"a", 1, "first").is_none());
        assert!(lanes.push(&"a", 2, "second").is_none());
        assert!(lanes.push(&"a", 2, "second again").is_none());
        let order: Vec<_> = std::iter::from_fn(|| turn.next()).collect();
        assert_eq!(order, ["first", "second", "second again", "third"]);
    }

    #[test]
    fn keys_do_not_wait_for_each_other_and_an_empty_lane_is_gone() {
        let lanes = Lanes::new();
        let a = lanes.push(&"a", 1, ()).unwrap();
        let b = lanes.push(&"b", 1, ()).unwrap();
        assert_eq!(a.next(), Some(()));
        assert_eq!(a.next(), None);
        assert!(lanes.push(&"a", 2, ()).is_some());
        assert_eq!(lanes.locked().len(), 1, "the new turn was dropped and its lane with it; b has its own");
        drop(b);
        assert!(lanes.locked().is_empty());
    }

    #[test]
    fn what_is_put_back_goes_behind_what_came_with_a_lower_place() {
        let lanes = Lanes::new();
        let turn = lanes.push(&"a", 5, "newer").unwrap();
        let newer = turn.next().unwrap();
        lanes.push(&"a", 4, "older");
        turn.put_back(5, newer);
        assert_eq!((turn.next(), turn.next()), (Some("older"), Some("newer")));
    }

    #[test]
    fn a_turn_that_is_over_does_not_end_the_lane_of_the_next() {
        let lanes = Lanes::new();
        let over = lanes.push(&"a", 1, "first").unwrap();
        assert_eq!((over.next(), over.next()), (Some("first"), None));
        let turn = lanes.push(&"a", 2, "second").unwrap();
        drop(over);
        assert_eq!(turn.next(), Some("second"));
    }

    #[tokio::test]
    async fn a_push_is_noticed_also_when_nobody_waited_yet() {
        let lanes = Lanes::new();
        let turn = lanes.push(&"a", 1, ()).unwrap();
        turn.changed().await;
        lanes.push(&"a", 2, ());
        turn.changed().await;
    }

    #[test]
    fn who_works_on_a_lane_is_woken_by_a_word_for_it_and_by_none_for_another() {
        let lanes = Lanes::new();
        let turn = lanes.push(&"a", 1, ()).unwrap();
        assert!(turn.changed().now_or_never().is_some(), "of the push itself");
        lanes.touch(&"b");
        assert!(turn.changed().now_or_never().is_none());
        lanes.touch(&"a");
        assert!(turn.changed().now_or_never().is_some());
    }
}
