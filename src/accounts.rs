//! What is known of each Official Account: whether it is paused, until when and why, and when room comes free.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::outcome::{Action, Failure};
use crate::retry::Scope;

/// All configured Official Accounts, by WeChat ID.
pub struct OfficialAccounts {
    accounts: HashMap<String, OfficialAccount>,
}

/// One Official Account.
#[derive(Default)]
pub struct OfficialAccount {
    state: Mutex<State>,
    /// Told when a delete has made room among the 100, and when a pause has ended.
    news: Notify,
}

#[derive(Default)]
struct State {
    paused: [Option<Pause>; 3],
    /// The command whose request WeChat called malformed last, if nothing else was answered since.
    malformed: Option<i64>,
}

/// Calls of some kind are not made for a while.
#[derive(Debug, Clone)]
pub struct Pause {
    pub until: Instant,
    /// What made them stop.
    pub failure: Failure,
}

impl OfficialAccounts {
    pub fn new(wechat_ids: impl IntoIterator<Item = String>) -> Self {
        Self { accounts: wechat_ids.into_iter().map(|wechat_id| (wechat_id, OfficialAccount::default())).collect() }
    }

    pub fn get(&self, wechat_id: &str) -> Option<&OfficialAccount> {
        self.accounts.get(wechat_id)
    }
}

impl OfficialAccount {
    /// The pause that holds this action back now.
    pub fn paused(&self, action: Action) -> Option<Pause> {
        self.locked().pause_of(action)
    }

    /// Lets a call through where nothing holds it back. After a pause only one call goes: the pause begins again for
    /// the others, until that one has ended it or the time of a probe is over.
    ///
    /// # Errors
    /// The pause that holds it back.
    pub fn enter(&self, action: Action, probe: Duration) -> Result<(), Pause> {
        let mut state = self.locked();
        if let Some(pause) = state.pause_of(action) {
            return Err(pause);
        }
        for scope in scopes_of(action) {
            if let Some(pause) = &mut state.paused[slot(scope)] {
                pause.until = Instant::now() + probe;
            }
        }
        Ok(())
    }

    /// Holds back what belongs to the scope. Answers whether it was not held back for that reason before.
    pub fn pause(&self, scope: Scope, wait: Duration, failure: &Failure) -> bool {
        let pause = Pause { until: Instant::now() + wait, failure: failure.clone() };
        let before = self.locked().paused[slot(scope)].replace(pause);
        before.is_none_or(|before| before.failure.reason != failure.reason)
    }

    /// WeChat answered this action as it should: nothing holds it back. Answers whether something did.
    pub fn resume(&self, action: Action) -> bool {
        let mut state = self.locked();
        state.malformed = None;
        let resumed = scopes_of(action).into_iter().filter_map(|scope| state.paused[slot(scope)].take()).count() > 0;
        if resumed {
            self.news.notify_waiters();
        }
        resumed
    }

    /// WeChat called a command's request malformed. Answers whether it is the second in a row, of another command:
    /// then it is not the command, and a backlog must not fail at the speed of the wire.
    pub fn malformed(&self, position: i64) -> bool {
        self.locked().malformed.replace(position).is_some_and(|before| before != position)
    }

    /// A delete has succeeded: adds that wait for room may try.
    pub fn made_room(&self) {
        self.news.notify_waiters();
    }

    /// Ends when room was made, or a pause has ended, after this was called.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The longest of the pauses that hold this action back now.
    fn pause_of(&self, action: Action) -> Option<Pause> {
        let now = Instant::now();
        let pauses = scopes_of(action).into_iter().filter_map(|scope| self.paused[slot(scope)].as_ref());
        pauses.filter(|pause| pause.until > now).max_by_key(|pause| pause.until).cloned()
    }
}

fn scopes_of(action: Action) -> [Scope; 2] {
    [Scope::OfficialAccount, Scope::Action(action)]
}

fn slot(scope: Scope) -> usize {
    match scope {
        Scope::OfficialAccount => 0,
        Scope::Action(Action::Add) => 1,
        Scope::Action(Action::Delete) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;

    fn failure() -> Failure {
        Failure::new(Reason::DayQuota, "used up")
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_holds_back_its_action_and_a_misconfiguration_everything() {
        let account = OfficialAccount::default();
        assert!(account.pause(Scope::Action(Action::Add), Duration::from_secs(60), &failure()));
        assert!(account.paused(Action::Add).is_some());
        assert!(account.paused(Action::Delete).is_none());
        account.pause(Scope::OfficialAccount, Duration::from_secs(90), &failure());
        assert!(account.paused(Action::Delete).is_some());
        tokio::time::advance(Duration::from_secs(90)).await;
        assert!(account.paused(Action::Add).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_the_pause_of_its_own_action_and_of_the_whole() {
        let account = OfficialAccount::default();
        account.pause(Scope::Action(Action::Add), Duration::from_secs(60), &failure());
        account.pause(Scope::OfficialAccount, Duration::from_secs(60), &failure());
        assert!(account.resume(Action::Delete));
        assert!(account.paused(Action::Delete).is_none());
        assert!(account.paused(Action::Add).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_one_call_goes_and_the_others_wait_for_how_it_ends() {
        let account = OfficialAccount::default();
        let second = Duration::from_secs(1);
        assert!(account.enter(Action::Add, second).is_ok() && account.enter(Action::Add, second).is_ok(), "without a pause all go");
        account.pause(Scope::OfficialAccount, 60 * second, &failure());
        assert!(account.enter(Action::Delete, second).is_err());
        tokio::time::advance(60 * second).await;
        assert!(account.enter(Action::Add, second).is_ok());
        assert!(account.enter(Action::Add, second).is_err());
        let mut news = std::pin::pin!(account.news());
        news.as_mut().enable();
        assert!(account.resume(Action::Add));
        news.await;
        assert!(account.enter(Action::Delete, second).is_ok() && account.enter(Action::Delete, second).is_ok());
    }

    #[test]
    fn two_malformed_requests_of_different_commands_in_a_row_are_not_the_commands_fault() {
        let account = OfficialAccount::default();
        assert!(!account.malformed(1));
        assert!(!account.malformed(1));
        assert!(account.malformed(2));
        account.resume(Action::Add);
        assert!(!account.malformed(3));
    }
}
