//! What WeChat lists as an Official Account's kf accounts: asked for at most once a second, shared by all who wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::outcome::{AttemptFailure, Class};
use crate::wechat::Listed;

/// Between two lists, and after one that failed in passing.
const SPACING: Duration = Duration::from_secs(1);
/// After WeChat refused to list, since it will do so again.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// Beyond so many changes, old ones are forgotten: no list of that age is looked at.
const MANY: usize = 1_000;
const LONG_AGO: Duration = Duration::from_secs(600);

/// The list that was asked for last.
#[derive(Default)]
pub struct Roster {
    latest: PlainMutex<Option<Arc<Snapshot>>>,
    /// Whoever asks holds it, the others wait for it and share what comes. Nobody is asked before that instant where the
    /// last one was refused; this is what it was told.
    asking: Mutex<Option<(Instant, AttemptFailure)>>,
    /// Lists that failed in a row.
    failures: AtomicU32,
    /// What our own calls have changed, and when; `None` where that is not known.
    changes: PlainMutex<HashMap<String, (Instant, Option<bool>)>>,
}

/// A list, as it was at some instant between asking and the answer.
#[derive(Debug)]
pub struct Snapshot {
    asked_at: Instant,
    /// Nicknames by kf account.
    nicknames: BTreeMap<String, String>,
    /// How many accounts were listed.
    pub used: usize,
    /// Every listed account has a name, so that one that is not there does not exist.
    complete: bool,
}

impl Roster {
    /// A list that was asked for at that instant or later.
    ///
    /// # Errors
    /// Why WeChat gave none.
    pub async fn asked_since(
        &self,
        since: Instant,
        ask: impl Future<Output = Result<Vec<Listed>, AttemptFailure>>,
    ) -> Result<Arc<Snapshot>, AttemptFailure> {
        if let Some(snapshot) = self.latest().filter(|latest| latest.asked_at >= since) {
            return Ok(snapshot);
        }
        let mut rest = self.asking.lock().await;
        if let Some(snapshot) = self.latest() {
            if snapshot.asked_at >= since {
                return Ok(snapshot);
            }
            tokio::time::sleep_until(snapshot.asked_at + SPACING).await;
        }
        let asked_at = Instant::now();
        if let Some((_, failed)) = rest.as_ref().filter(|(until, _)| asked_at < *until) {
            return Err(failed.clone());
        }
        match ask.await {
            Ok(listed) => {
                self.failures.store(0, Ordering::Relaxed);
                let snapshot = Arc::new(Snapshot::new(asked_at, listed));
                *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&snapshot));
                self.changes.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (at, _)| *at >= asked_at);
                Ok(snapshot)
            }
            Err(failed) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let pause = match failed.class {
                    // Another token may do at once.
                    Class::Token => Duration::ZERO,
                    Class::Retry => SPACING,
                    _ => REFUSED_REST,
                };
                *rest = Some((Instant::now() + pause, failed.clone()));
                Err(failed)
            }
        }
    }

    /// How many lists have failed since one came.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an account exists by a list and what our own calls have changed since; `None` where that is not known.
    pub fn exists_by(&self, snapshot: &Snapshot, kf_account: &str) -> Option<bool> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match changes.get(kf_account).filter(|(at, _)| *at >= snapshot.asked_at) {
            Some((_, exists)) => *exists,
            None => snapshot.has(kf_account),
        }
    }

    /// A call of ours has left an account existing or not, or nobody knows how.
    pub fn note(&self, kf_account: &str, exists: Option<bool>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if changes.len() >= MANY {
            changes.retain(|_, (at, _)| now < *at + LONG_AGO);
        }
        changes.insert(kf_account.to_owned(), (now, exists));
    }
}

impl Snapshot {
    fn new(asked_at: Instant, listed: Vec<Listed>) -> Self {
        let used = listed.len();
        let complete = listed.iter().all(|listed| !listed.kf_account.is_empty());
        let named = listed.into_iter().filter(|listed| !listed.kf_account.is_empty());
        Self { asked_at, nicknames: named.map(|listed| (listed.kf_account, listed.nickname)).collect(), used, complete }
    }

    /// The nickname under which an account is listed.
    pub fn nickname(&self, kf_account: &str) -> Option<&str> {
        self.nicknames.get(kf_account).map(String::as_str)
    }

    /// Whether an account exists; `None` where the list doesn't tell, since it has entries without a name.
    pub fn has(&self, kf_account: &str) -> Option<bool> {
        let listed = self.nicknames.contains_key(kf_account);
        (listed || self.complete).then_some(listed)
    }

    /// All accounts with their nicknames.
    pub fn accounts(&self) -> &BTreeMap<String, String> {
        &self.nicknames
    }

    /// The first account that belongs to another Official Account than this one, where there is any.
    pub fn stranger(&self, wechat_id: &str) -> Option<&str> {
        let suffix = |name: &str| name.rsplit_once('@').map(|(_, suffix)| suffix.to_owned());
        self.nicknames.keys().find(|name| suffix(name).is_some_and(|suffix| suffix != wechat_id)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Failure, Reason};

    fn listed(kf_account: &str) -> Listed {
        Listed { kf_account: kf_account.to_owned(), nickname: "nick".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn one_list_serves_all_who_asked_before_it_and_lists_keep_their_distance() {
        let roster = Roster::default();
        let began = Instant::now();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let ask = || async {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(vec![listed("a@test")])
        };
        let (first, second) = tokio::join!(roster.asked_since(began, ask()), roster.asked_since(began, ask()));
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
        roster.asked_since(Instant::now(), ask()).await.unwrap();
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert!(began.elapsed() >= SPACING);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_list_is_not_asked_for_a_minute_and_a_new_token_at_once() {
        let roster = Roster::default();
        let refused = |class| AttemptFailure::new(class, Failure::new(Reason::Misconfigured, "no"));
        let none = roster.asked_since(Instant::now(), async { Err(refused(Class::Token)) }).await;
        assert!(none.is_err());
        let none = roster.asked_since(Instant::now(), async { Err(refused(Class::Account { probe: SPACING })) }).await;
        assert!(none.is_err());
        assert!(roster.asked_since(Instant::now(), async { Ok(vec![]) }).await.is_err());
        tokio::time::advance(REFUSED_REST).await;
        assert!(roster.asked_since(Instant::now(), async { Ok(vec![]) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_with_nameless_entries_does_not_tell_that_somebody_is_missing() {
        let whole = Snapshot::new(Instant::now(), vec![listed("a@test")]);
        assert_eq!((whole.has("a@test"), whole.has("b@test")), (Some(true), Some(false)));
        let torn = Snapshot::new(Instant::now(), vec![listed("a@test"), listed("")]);
        assert_eq!((torn.has("a@test"), torn.has("b@test"), torn.used), (Some(true), None, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_our_own_calls_changed_goes_before_an_older_list() {
        let roster = Roster::default();
        let snapshot = roster.asked_since(Instant::now(), async { Ok(vec![listed("a@test")]) }).await.unwrap();
        roster.note("a@test", Some(false));
        roster.note("b@test", None);
        let exists = |account| roster.exists_by(&snapshot, account);
        assert_eq!((exists("a@test"), exists("b@test"), exists("c@test")), (Some(false), None, Some(false)));
        tokio::time::advance(SPACING).await;
        let newer = roster.asked_since(Instant::now(), async { Ok(vec![listed("a@test")]) }).await.unwrap();
        assert_eq!(roster.exists_by(&newer, "a@test"), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_of_another_official_account_is_found() {
        let snapshot = Snapshot::new(Instant::now(), vec![listed("a@test"), listed("b@other")]);
        assert_eq!(snapshot.stranger("test"), Some("b@other"));
        assert_eq!(Snapshot::new(Instant::now(), vec![listed("a@test")]).stranger("test"), None);
    }
}
