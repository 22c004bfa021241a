//! What is known of each Official Account: what holds it back and why, its token, its rate, and its part of the window.

mod pauses;
mod rate;
mod roster;
mod tokens;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

pub use pauses::{Pause, Way};
pub use rate::MaxRate;
pub use roster::{Roster, Snapshot};
pub use tokens::{NoToken, PlatformSettings, Sources, Ticket, TokenKind, TokenSource};

use crate::ledger::KeptPause;
use crate::metrics::Metrics;
use crate::outcome::{Action, Failure, Reason, Scope};
use pauses::{Pauses, is_kept};
use rate::Rate;

/// The Official Accounts that commands may name.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub official_accounts: Vec<OfficialAccountSettings>,
    /// The third-party platforms that act for some of them.
    pub platforms: Vec<PlatformSettings>,
}

/// One Official Account as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficialAccountSettings {
    /// Its own WeChat ID: what stands behind the `@` of its kf accounts.
    pub wechat_id: String,
    pub token: TokenKind,
    pub max_rate: Option<MaxRate>,
}

/// All configured Official Accounts.
pub struct OfficialAccounts {
    known: RwLock<Known>,
    /// Retries that each may make beyond its successes.
    budget: u32,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    accounts: HashMap<String, Arc<OfficialAccount>>,
    platforms: Vec<(PlatformSettings, Arc<TokenSource>)>,
}

/// What a change of the configuration came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
}

/// One Official Account.
pub struct OfficialAccount {
    /// As it was configured, its platform included.
    configured: (OfficialAccountSettings, Option<PlatformSettings>),
    pub tokens: TokenSource,
    /// The kf accounts that WeChat lists.
    pub roster: Roster,
    rate: Option<Rate>,
    pauses: Mutex<Pauses>,
    /// Told when a pause begins or ends, and when room was made among the 100.
    news: Notify,
    /// Its commands in hand, by when they were taken.
    window: Mutex<BTreeSet<(Instant, u64)>>,
    identity: Mutex<Identity>,
    metrics: Arc<Metrics>,
}

/// Whether the credentials belong to the Official Account of this WeChat ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Unchecked,
    /// WeChat's list shows nothing to the contrary.
    Believed,
    /// WeChat's list shows accounts of another one.
    Mistaken,
}

/// What the ledger is to remember of a pause.
#[derive(Debug, Clone)]
pub enum Memory {
    Keep(KeptPause),
    /// What was kept of this scope is no more.
    Forget(Scope),
}

/// A call that was let through. Dropped without a word on how it went, a probe leaves the next call to be the probe.
pub struct Entered {
    pub way: Way,
    action: Action,
    official_account: Arc<OfficialAccount>,
}

/// A command in hand, counted as long as this lives.
pub struct InWindow {
    official_account: Arc<OfficialAccount>,
    place: (Instant, u64),
}

impl OfficialAccounts {
    pub fn new(settings: &Settings, budget: u32, metrics: Arc<Metrics>) -> Self {
        let accounts = Self { known: RwLock::default(), budget, metrics };
        accounts.replace(settings);
        accounts
    }

    pub fn get(&self, wechat_id: &str) -> Option<Arc<OfficialAccount>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).accounts.get(wechat_id).cloned()
    }

    /// All of them, by WeChat ID.
    pub fn all(&self) -> Vec<Arc<OfficialAccount>> {
        let mut all: Vec<_> = self.known.read().unwrap_or_else(PoisonError::into_inner).accounts.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.wechat_id().cmp(b.wechat_id()));
        all
    }

    /// Takes up another configuration. What has not changed keeps all that is known of it; commands in hand go on.
    pub fn replace(&self, settings: &Settings) -> Replaced {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *known);
        for platform in &settings.platforms {
            let same = before.platforms.iter().find(|(known, _)| known == platform).map(|(_, source)| Arc::clone(source));
            let source = same.unwrap_or_else(|| Arc::new(TokenSource::platform(platform.clone())));
            known.platforms.push((platform.clone(), source));
        }
        let mut replaced = Replaced { added: 0, changed: 0, removed: 0 };
        for account in &settings.official_accounts {
            let platform = known.platform_of(account);
            let old = before.accounts.get(&account.wechat_id);
            let same = old.filter(|old| old.configured == (account.clone(), platform.clone()));
            replaced.added += usize::from(old.is_none());
            replaced.changed += usize::from(old.is_some() && same.is_none());
            let official_account = same.cloned().or_else(|| self.make(&known, account, platform));
            known.accounts.extend(official_account.map(|new| (account.wechat_id.clone(), new)));
        }
        for (wechat_id, old) in &before.accounts {
            if !known.accounts.get(wechat_id).is_some_and(|new| Arc::ptr_eq(new, old)) {
                old.forget();
            }
            if !known.accounts.contains_key(wechat_id) {
                replaced.removed += 1;
                self.metrics.forgets_official_account(wechat_id);
            }
        }
        replaced
    }

    fn make(&self, known: &Known, account: &OfficialAccountSettings, platform: Option<PlatformSettings>) -> Option<Arc<OfficialAccount>> {
        let sources: Vec<_> = known.platforms.iter().map(|(platform, source)| (platform.app.app_id.clone(), Arc::clone(source))).collect();
        // The configuration was checked: each platform that is named is there.
        let tokens = TokenSource::new(&account.wechat_id, account.token.clone(), &sources)?;
        self.metrics.knows_official_account(&account.wechat_id);
        Some(Arc::new(OfficialAccount {
            configured: (account.clone(), platform),
            tokens,
            roster: Roster::default(),
            rate: account.max_rate.map(Rate::new),
            pauses: Mutex::new(Pauses::new(self.budget)),
            news: Notify::new(),
            window: Mutex::default(),
            identity: Mutex::new(Identity::Unchecked),
            metrics: Arc::clone(&self.metrics),
        }))
    }

    /// Takes up the pauses that were in force when the last process ended.
    pub fn restore(&self, kept: Vec<KeptPause>) {
        for pause in kept {
            let left = Duration::try_from(pause.until.duration_since(Timestamp::now())).unwrap_or_default();
            if let Some(official_account) = self.get(&pause.wechat_id) {
                let (reason, pause_s) = (pause.failure.reason, left.as_secs());
                tracing::warn!(official_account = pause.wechat_id, %reason, pause_s, "the Official Account is still paused");
                self.metrics.paused(&pause.wechat_id, reason, true);
                official_account.pauses().restore(pause.scope, left, pause.since, pause.failure);
            }
        }
    }
}

impl Known {
    fn platform_of(&self, account: &OfficialAccountSettings) -> Option<PlatformSettings> {
        let TokenKind::Authorizer { platform, .. } = &account.token else { return None };
        self.platforms.iter().map(|(settings, _)| settings).find(|settings| settings.app.app_id == *platform).cloned()
    }
}

impl OfficialAccount {
    pub fn wechat_id(&self) -> &str {
        &self.configured.0.wechat_id
    }

    /// Everything that is paused.
    pub fn all_pauses(&self) -> Vec<Pause> {
        self.pauses().all().cloned().collect()
    }

    /// The pause that holds this action back now.
    pub fn paused(&self, action: Action) -> Option<Pause> {
        self.pauses().of(action).cloned()
    }

    /// Lets a call through where nothing holds it back. After a pause one call goes, and the others wait for what
    /// comes of it.
    ///
    /// # Errors
    /// The pause that holds it back.
    pub fn enter(self: &Arc<Self>, action: Action) -> Result<Entered, Box<Pause>> {
        let way = self.pauses().enter(action)?;
        Ok(Entered { way, action, official_account: Arc::clone(self) })
    }

    /// Holds back what belongs to the scope. Answers what has to be remembered over a restart, or no more.
    pub fn pause(&self, scope: Scope, wait: Duration, failure: &Failure) -> Option<Memory> {
        let before = self.pauses().pause(scope, wait, failure);
        let since = before.as_ref().map_or_else(Timestamp::now, |pause| pause.since);
        let held_back = before.as_ref().is_some_and(|pause| pause.until > Instant::now());
        let before = before.map(|pause| pause.failure.reason);
        if before != Some(failure.reason) {
            self.tell_pause(before, wait, failure);
        }
        // Prolonged by one failing call after the other, it is no news.
        if !held_back {
            self.news.notify_waiters();
        }
        if is_kept(failure.reason) {
            let until = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
            return Some(Memory::Keep(KeptPause { wechat_id: self.wechat_id().to_owned(), scope, since, until, failure: failure.clone() }));
        }
        before.filter(|before| is_kept(*before)).map(|_| Memory::Forget(scope))
    }

    fn tell_pause(&self, before: Option<Reason>, wait: Duration, failure: &Failure) {
        if let Some(before) = before {
            self.metrics.paused(self.wechat_id(), before, false);
        }
        self.metrics.paused(self.wechat_id(), failure.reason, true);
        let Failure { reason, answer, detail } = failure;
        let (errcode, errmsg) = (answer.as_ref().map(|answer| answer.errcode), answer.as_ref().map(|answer| answer.errmsg.as_str()));
        let pause_s = wait.as_secs();
        tracing::warn!(official_account = self.wechat_id(), %reason, errcode, errmsg, detail, pause_s, "the Official Account is paused");
    }

    /// A call, let through then, went as it should: what held it back is over. Answers the scopes whose pauses were
    /// remembered over restarts.
    pub fn resume(&self, action: Action, begun: Instant) -> Vec<Scope> {
        let (ended, held_back) = {
            let mut pauses = self.pauses();
            let held_back = pauses.all().next().is_some();
            (pauses.resume(action, begun), held_back)
        };
        for pause in &ended {
            let reason = pause.failure.reason;
            self.metrics.paused(self.wechat_id(), reason, false);
            tracing::info!(official_account = self.wechat_id(), %reason, "the Official Account answers again");
        }
        if held_back {
            self.news.notify_waiters();
        }
        ended.into_iter().filter(|pause| is_kept(pause.failure.reason)).map(|pause| pause.scope).collect()
    }

    /// A call failed in a way that asks for another one. Answers the number of such failures in a row where there are
    /// too many.
    pub fn struggled(&self, way: Way) -> Option<u32> {
        self.pauses().struggled(way)
    }

    /// WeChat called a command's request malformed. Answers whether it is the second in a row, of another command.
    pub fn malformed(&self, position: i64) -> bool {
        self.pauses().malformed(position)
    }

    /// A delete has succeeded: adds that wait for room may try.
    pub fn made_room(&self) {
        if self.pauses().made_room() {
            self.news.notify_waiters();
        }
    }

    /// Ends when a pause has begun or ended, or room was made, after this was called.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Whether a call may go at once as far as `max_rate` is concerned; it is counted then.
    pub fn has_rate(&self) -> bool {
        self.rate.as_ref().is_none_or(Rate::is_free)
    }

    /// Waits for a call's turn at `max_rate`, and counts it.
    pub async fn rate_turn(&self) {
        if let Some(rate) = &self.rate {
            rate.turn().await;
        }
    }

    /// Counts a command in hand.
    pub fn take_in(self: &Arc<Self>, taken_at: Instant) -> InWindow {
        // Only tells apart what was taken at the same instant.
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let place = (taken_at, NUMBERS.fetch_add(1, Ordering::Relaxed));
        self.window().insert(place);
        InWindow { official_account: Arc::clone(self), place }
    }

    /// Whether it holds so many commands, and the oldest of them for so long.
    pub fn is_slow(&self, many: usize, long: Duration) -> bool {
        let window = self.window();
        window.len() >= many && window.first().is_some_and(|(taken_at, _)| taken_at.elapsed() >= long)
    }

    pub fn identity(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what WeChat's list said of the credentials, and how many kf accounts there are.
    pub fn learn(&self, snapshot: &Snapshot) -> Identity {
        self.metrics.kf_accounts(self.wechat_id(), snapshot.used);
        let identity = match snapshot.stranger(self.wechat_id()) {
            Some(_) => Identity::Mistaken,
            None => Identity::Believed,
        };
        self.identify(identity);
        identity
    }

    pub fn identify(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// It is configured no more, or otherwise.
    fn forget(&self) {
        for pause in self.all_pauses() {
            self.metrics.paused(self.wechat_id(), pause.failure.reason, false);
        }
        self.news.notify_waiters();
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.way == Way::Probe {
            self.official_account.pauses().abandon_probe(self.action);
            self.official_account.news.notify_waiters();
        }
    }
}

impl Drop for InWindow {
    fn drop(&mut self) {
        self.official_account.window().remove(&self.place);
    }
}
