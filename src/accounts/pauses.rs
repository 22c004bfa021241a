//! What holds back the calls of one Official Account, until when and why, and the one call that finds out whether it still does.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::outcome::{Action, Failure, Reason, Scope};
use crate::retry::Budget;

/// Calls of some kind are not made for a while.
#[derive(Debug, Clone)]
pub struct Pause {
    pub scope: Scope,
    /// When the next call may be tried.
    pub until: Instant,
    /// When it began, however often it was prolonged.
    pub since: Timestamp,
    /// What made it begin, or last prolonged it.
    pub failure: Failure,
    /// The number of the call that is under way to find out whether it is over.
    probed_by: Option<u64>,
    /// When it was begun or prolonged.
    set_at: Instant,
    /// How long it was to last then.
    wait: Duration,
}

/// A pause that begins so soon after another has run out prolongs it.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Everything that holds back one Official Account.
#[derive(Debug)]
pub struct Pauses {
    slots: [Option<Pause>; Scope::ALL.len()],
    budget: Budget,
    /// Failures in a row of calls that were to be tried again, since the budget was used up.
    failures: u32,
    /// The command whose request WeChat called malformed last, if nothing else was answered since.
    malformed: Option<i64>,
    /// Counts the probes.
    probes: u64,
    /// When room was made last among the 100 accounts.
    room_made_at: Option<Instant>,
}

/// How a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Free,
    /// A pause has run out: this call alone goes, and tells whether it is over. Its number tells it from the next one.
    Probe(u64),
}

impl Pause {
    /// Whether a call is under way to find out whether it is over.
    pub fn is_probed(&self) -> bool {
        self.probed_by.is_some()
    }

    /// When the next call may go; now where that was before.
    pub fn next_call_at(&self) -> Timestamp {
        let left = self.until.saturating_duration_since(Instant::now());
        Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX)
    }

    /// Whether operators are told of it. A quota returns by the clock; of anything else only a call tells that it is over,
    /// however long none is made.
    pub fn is_told(&self) -> bool {
        let returns = matches!(self.failure.reason, Reason::MinuteQuota | Reason::DayQuota);
        !returns || self.until > Instant::now()
    }
}

impl Way {
    pub fn is_probe(self) -> bool {
        matches!(self, Self::Probe(_))
    }
}

impl Pauses {
    pub fn new(budget: u32) -> Self {
        Self { slots: Default::default(), budget: Budget::new(budget), failures: 0, malformed: None, probes: 0, room_made_at: None }
    }

    /// Everything that is paused.
    pub fn all(&self) -> impl Iterator<Item = &Pause> {
        self.slots.iter().flatten()
    }

    /// What holds this action back now; the longest pause where there are several, a probe only where there is no other.
    pub fn of(&self, action: Action) -> Option<&Pause> {
        let now = Instant::now();
        let holding = scopes_of(action).filter_map(|scope| self.slots[slot(scope)].as_ref());
        holding.filter(|pause| pause.is_probed() || pause.until > now).max_by_key(|pause| (!pause.is_probed(), pause.until))
    }

    /// Lets a call through where nothing holds it back, or where it is the one that finds out.
    pub fn enter(&mut self, action: Action) -> Result<Way, Box<Pause>> {
        if let Some(pause) = self.of(action) {
            return Err(Box::new(pause.clone()));
        }
        let number = self.probes + 1;
        let mut way = Way::Free;
        for scope in scopes_of(action) {
            if let Some(pause) = &mut self.slots[slot(scope)] {
                pause.probed_by = Some(number);
                self.probes = number;
                way = Way::Probe(number);
            }
        }
        Ok(way)
    }

    /// A probe has ended: where it told nothing, the next call may be the probe.
    pub fn end_probe(&mut self, number: u64) {
        for pause in self.slots.iter_mut().flatten() {
            pause.probed_by.take_if(|probe| *probe == number);
        }
    }

    /// Begins a pause, or prolongs it. Answers what held the scope back before, and since when it is held back now.
    pub fn pause(&mut self, scope: Scope, wait: Duration, failure: &Failure) -> (Option<Pause>, Timestamp) {
        let now = Instant::now();
        let place = &mut self.slots[slot(scope)];
        // One that ran out long ago, without a call to tell, is another one.
        let before = place.as_ref().filter(|before| now <= before.until + before.wait + AT_ONCE);
        let since = before.map_or_else(Timestamp::now, |before| before.since);
        let pause = Pause { scope, until: now + wait, since, failure: failure.clone(), probed_by: None, set_at: now, wait };
        (place.replace(pause), since)
    }

    /// Takes up a pause that was remembered.
    pub fn restore(&mut self, scope: Scope, left: Duration, since: Timestamp, failure: Failure) {
        let now = Instant::now();
        self.slots[slot(scope)] = Some(Pause { scope, until: now + left, since, failure, probed_by: None, set_at: now, wait: left });
    }

    /// A call of this action, begun then, was judged by WeChat: what held it back is over, except the lack of room where
    /// there is none. Answers what is over. A pause that was begun while the call was under way stays, since that is the
    /// newer knowledge.
    pub fn resume(&mut self, action: Action, begun: Instant, room: bool) -> Vec<Pause> {
        self.malformed = None;
        self.failures = 0;
        self.budget.earn();
        let scopes = scopes_of(action).filter(|scope| room || *scope != Scope::Room);
        scopes.filter_map(|scope| self.slots[slot(scope)].take_if(|pause| pause.set_at <= begun && is_over(pause))).collect()
    }

    /// There may be room among the 100 accounts: one add may try. Answers whether any waits for it.
    pub fn made_room(&mut self) -> bool {
        self.room_made_at = Some(Instant::now());
        let full = self.slots[slot(Scope::Room)].as_mut();
        if let Some(pause) = full {
            pause.until = Instant::now();
            pause.probed_by = None;
            return true;
        }
        false
    }

    /// Everything is over. Answers what was held back.
    pub fn forget(&mut self) -> Vec<Pause> {
        self.slots.iter_mut().filter_map(Option::take).collect()
    }

    /// Whether room was made after that instant: then a refusal of a call that had begun before says nothing.
    pub fn room_made_since(&self, begun: Instant) -> bool {
        self.room_made_at.is_some_and(|made_at| made_at >= begun)
    }

    /// A call failed in a way that asks for another one. Answers the number of such failures in a row where there are
    /// too many: then the Official Account is only probed. Calls that were under way together fail together, and count
    /// as one.
    pub fn struggled(&mut self, way: Way) -> Option<u32> {
        let spent = self.budget.spend();
        let held_back = self.slots[slot(Scope::OfficialAccount)].as_ref().is_some_and(|pause| pause.until > Instant::now());
        if way.is_probe() || (spent && !held_back) {
            self.failures = self.failures.saturating_add(1);
            return Some(self.failures);
        }
        None
    }

    /// WeChat called a command's request malformed. Answers whether it is the second in a row, of another command:
    /// then it is not the command, and a backlog must not fail at the speed of the wire.
    pub fn malformed(&mut self, position: i64) -> bool {
        self.malformed.replace(position).is_some_and(|before| before != position)
    }
}

/// Whether a success ends this pause. One for lack of room is only loosened, so that adds come one at a time, until no
/// add was refused for as long as it was to last.
fn is_over(pause: &mut Pause) -> bool {
    if pause.scope == Scope::Room && pause.set_at.elapsed() < pause.wait {
        pause.until = Instant::now();
        pause.probed_by = None;
        return false;
    }
    true
}

fn scopes_of(action: Action) -> impl Iterator<Item = Scope> {
    let scopes: &[Scope] = match action {
        Action::Add => &[Scope::OfficialAccount, Scope::Adds, Scope::Room],
        Action::Delete => &[Scope::OfficialAccount, Scope::Deletes],
    };
    scopes.iter().copied()
}

fn slot(scope: Scope) -> usize {
    match scope {
        Scope::OfficialAccount => 0,
        Scope::Adds => 1,
        Scope::Deletes => 2,
        Scope::Room => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pauses() -> Pauses {
        Pauses::new(3)
    }

    fn failure() -> Failure {
        Failure::new(Reason::DayQuota, "used up")
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_holds_back_its_action_and_a_misconfiguration_everything() {
        let mut pauses = pauses();
        assert!(pauses.pause(Scope::Adds, MINUTE, &failure()).0.is_none());
        assert!(pauses.of(Action::Add).is_some());
        assert!(pauses.of(Action::Delete).is_none());
        pauses.pause(Scope::OfficialAccount, 2 * MINUTE, &failure());
        assert_eq!(pauses.of(Action::Delete).unwrap().scope, Scope::OfficialAccount);
        tokio::time::advance(2 * MINUTE).await;
        assert!(pauses.of(Action::Add).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_the_pause_of_its_own_action_and_of_the_whole() {
        let mut pauses = pauses();
        pauses.pause(Scope::Adds, MINUTE, &failure());
        pauses.pause(Scope::OfficialAccount, MINUTE, &failure());
        let ended = pauses.resume(Action::Delete, Instant::now(), true);
        assert_eq!(ended.iter().map(|pause| pause.scope).collect::<Vec<_>>(), [Scope::OfficialAccount]);
        assert!(pauses.of(Action::Delete).is_none());
        assert!(pauses.of(Action::Add).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_begun_before_the_pause_does_not_end_it() {
        let mut pauses = pauses();
        let begun = Instant::now();
        tokio::time::advance(MINUTE).await;
        pauses.pause(Scope::Adds, MINUTE, &failure());
        assert!(pauses.resume(Action::Add, begun, true).is_empty());
        assert!(pauses.of(Action::Add).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_one_call_goes_and_the_others_wait_for_how_it_ends() {
        let mut pauses = pauses();
        assert_eq!((pauses.enter(Action::Add).unwrap(), pauses.enter(Action::Add).unwrap()), (Way::Free, Way::Free));
        pauses.pause(Scope::OfficialAccount, MINUTE, &failure());
        assert!(pauses.enter(Action::Delete).is_err());
        tokio::time::advance(MINUTE).await;
        assert_eq!(pauses.enter(Action::Add).unwrap(), Way::Probe(1));
        assert!(pauses.enter(Action::Add).unwrap_err().is_probed());
        pauses.end_probe(1);
        assert_eq!(pauses.enter(Action::Add).unwrap(), Way::Probe(2));
        pauses.end_probe(1);
        assert!(pauses.enter(Action::Add).is_err(), "the end of a former probe is not that of this one");
        assert_eq!(pauses.resume(Action::Add, Instant::now(), true).len(), 1);
        assert_eq!((pauses.enter(Action::Delete).unwrap(), pauses.enter(Action::Delete).unwrap()), (Way::Free, Way::Free));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_prolonged_remembers_its_beginning() {
        let mut pauses = pauses();
        pauses.pause(Scope::Adds, MINUTE, &failure());
        let since = pauses.of(Action::Add).unwrap().since;
        assert_eq!(pauses.pause(Scope::Adds, 2 * MINUTE, &failure()).1, since);
        assert_eq!(pauses.of(Action::Add).unwrap().since, since);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_is_told_until_it_returns_and_anything_else_until_a_call_tells_otherwise() {
        let mut pauses = pauses();
        pauses.pause(Scope::Adds, MINUTE, &failure());
        pauses.pause(Scope::OfficialAccount, MINUTE, &Failure::new(Reason::Misconfigured, "wrong secret"));
        let told = |pauses: &Pauses| pauses.all().filter(|pause| pause.is_told()).map(|pause| pause.scope).collect::<Vec<_>>();
        assert_eq!(told(&pauses), [Scope::OfficialAccount, Scope::Adds]);
        tokio::time::advance(10 * MINUTE).await;
        assert_eq!(told(&pauses), [Scope::OfficialAccount]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_ran_out_long_ago_is_another_one() {
        let mut pauses = pauses();
        pauses.restore(Scope::Adds, MINUTE, Timestamp::UNIX_EPOCH, failure());
        tokio::time::advance(2 * MINUTE).await;
        pauses.pause(Scope::Adds, MINUTE, &failure());
        assert_eq!(pauses.of(Action::Add).unwrap().since, Timestamp::UNIX_EPOCH);
        tokio::time::advance(10 * MINUTE).await;
        pauses.pause(Scope::Adds, MINUTE, &failure());
        assert_ne!(pauses.of(Action::Add).unwrap().since, Timestamp::UNIX_EPOCH);
    }

    #[tokio::test(start_paused = true)]
    async fn adds_without_room_come_one_at_a_time_until_none_is_refused_any_more() {
        let mut pauses = pauses();
        let full = Failure::new(Reason::AccountLimitReached, "full");
        pauses.pause(Scope::Room, MINUTE, &full);
        assert!(pauses.enter(Action::Add).is_err() && pauses.enter(Action::Delete).is_ok());
        assert!(pauses.made_room());
        assert!(pauses.enter(Action::Add).unwrap().is_probe());
        assert!(pauses.enter(Action::Add).is_err());
        assert!(pauses.resume(Action::Add, Instant::now(), true).is_empty());
        assert!(pauses.enter(Action::Add).unwrap().is_probe(), "there may be more room");
        tokio::time::advance(MINUTE).await;
        assert!(pauses.resume(Action::Add, Instant::now(), false).is_empty(), "this one was refused");
        assert_eq!(pauses.resume(Action::Add, Instant::now(), true).len(), 1);
        assert_eq!(pauses.enter(Action::Add).unwrap(), Way::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_failures_in_a_row_are_told() {
        let mut pauses = pauses();
        assert_eq!((pauses.struggled(Way::Free), pauses.struggled(Way::Free)), (None, None));
        assert_eq!(pauses.struggled(Way::Free), Some(1));
        pauses.pause(Scope::OfficialAccount, MINUTE, &failure());
        assert_eq!(pauses.struggled(Way::Free), None, "it was under way together with the one before");
        assert_eq!(pauses.struggled(Way::Probe(1)), Some(2));
        pauses.resume(Action::Add, Instant::now(), true);
        assert_eq!(pauses.struggled(Way::Probe(1)), Some(1), "a probe that fails is believed at once");
    }

    #[test]
    fn two_malformed_requests_of_different_commands_in_a_row_are_not_the_commands_fault() {
        let mut pauses = pauses();
        assert!(!pauses.malformed(1));
        assert!(!pauses.malformed(1));
        assert!(pauses.malformed(2));
    }

    #[test]
    fn every_scope_has_a_place_of_its_own() {
        let places: std::collections::BTreeSet<usize> = Scope::ALL.iter().map(|scope| slot(*scope)).collect();
        assert_eq!(places.len(), Scope::ALL.len());
    }
}
