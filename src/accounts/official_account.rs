//! One Official Account: what holds it back, its token and its rate, its part of the window, and what WeChat lists of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::OfficialAccountSettings;
use super::in_hand::InHand;
use super::pauses::{Pause, Pauses, Way};
use super::rate::Rate;
use super::roster::{Roster, Snapshot};
use super::tokens::{PlatformSettings, TokenSource};
use crate::ledger::KeptPause;
use crate::metrics::Metrics;
use crate::outcome::{Action, AttemptFailure, Class, Failure, Reason, Scope};

/// One Official Account.
pub struct OfficialAccount {
    /// As it was configured, its platform included.
    configured: (OfficialAccountSettings, Option<PlatformSettings>),
    pub tokens: Arc<TokenSource>,
    /// The kf accounts that WeChat lists.
    pub roster: Roster,
    rate: Option<Rate>,
    pauses: Mutex<Pauses>,
    /// Told when a pause begins or ends, and when room was made among the 100.
    news: Notify,
    /// Its commands in hand and its calls in flight.
    pub in_hand: Arc<InHand>,
    credentials: Mutex<Credentials>,
    /// How many kf accounts WeChat listed last.
    listed: Mutex<Option<usize>>,
    /// It is configured no more, or otherwise.
    forgotten: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Whether the credentials belong to the Official Account of this WeChat ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
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
    official_account: Arc<OfficialAccount>,
}

impl OfficialAccount {
    /// As it is configured, its platform included.
    pub(super) fn new(
        configured: (OfficialAccountSettings, Option<PlatformSettings>),
        tokens: Arc<TokenSource>,
        budget: u32,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            rate: configured.0.max_rate.map(Rate::new),
            configured,
            tokens,
            roster: Roster::default(),
            pauses: Mutex::new(Pauses::new(budget)),
            news: Notify::new(),
            in_hand: Arc::default(),
            credentials: Mutex::new(Credentials::Unchecked),
            listed: Mutex::new(None),
            forgotten: AtomicBool::new(false),
            metrics,
        }
    }

    pub(super) fn is_configured_as(&self, account: &OfficialAccountSettings, platform: Option<&PlatformSettings>) -> bool {
        self.configured.0 == *account && self.configured.1.as_ref() == platform
    }

    /// Its source of tokens, where another configuration asks for the same: two sources of one token would get in each
    /// other's way.
    pub(super) fn tokens_for(&self, account: &OfficialAccountSettings, platform: Option<&PlatformSettings>) -> Option<Arc<TokenSource>> {
        (self.configured.0.token == account.token && self.configured.1.as_ref() == platform).then(|| Arc::clone(&self.tokens))
    }

    /// Takes up a pause that was in force when the last process ended.
    pub(super) fn restore(&self, pause: KeptPause, left: Duration) {
        let reason = pause.failure.reason;
        self.pauses().restore(pause.scope, left, pause.since, pause.failure);
        self.show(reason);
    }

    pub fn wechat_id(&self) -> &str {
        &self.configured.0.wechat_id
    }

    /// Every pause that operators are told of.
    pub fn all_pauses(&self) -> Vec<Pause> {
        self.pauses().all().filter(|pause| pause.is_told()).cloned().collect()
    }

    /// Shows its pauses, and answers their reasons.
    pub(super) fn show_pauses(&self) -> Vec<Reason> {
        // Held throughout, so that a pause that begins meanwhile is not shown as over.
        let pauses = self.pauses();
        let told: Vec<Reason> = pauses.all().filter(|pause| pause.is_told()).map(|pause| pause.failure.reason).collect();
        for pause in pauses.all() {
            let reason = pause.failure.reason;
            self.metrics.paused(self.wechat_id(), reason, told.contains(&reason));
        }
        told
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
        Ok(Entered { way, official_account: Arc::clone(self) })
    }

    /// Holds back what belongs to the scope. Answers what has to be remembered over a restart, or no more.
    pub fn pause(&self, scope: Scope, wait: Duration, failure: &Failure) -> Option<Memory> {
        if self.forgotten.load(Ordering::Relaxed) {
            return None;
        }
        let (before, since) = self.pauses().pause(scope, wait, failure);
        let held_back = before.as_ref().is_some_and(|pause| pause.until > Instant::now());
        let before = before.map(|pause| pause.failure.reason);
        if before != Some(failure.reason) {
            self.tell_pause(before, wait, failure);
        }
        // Prolonged by one failing call after the other, it is no news.
        if !held_back {
            self.news.notify_waiters();
        }
        if failure.reason.lasts_long() {
            let until = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
            return Some(Memory::Keep(KeptPause { wechat_id: self.wechat_id().to_owned(), scope, since, until, failure: failure.clone() }));
        }
        before.filter(|before| before.lasts_long()).map(|_| Memory::Forget(scope))
    }

    fn tell_pause(&self, before: Option<Reason>, wait: Duration, failure: &Failure) {
        if let Some(before) = before {
            self.show(before);
        }
        self.show(failure.reason);
        self.metrics.pause_begins(failure.reason);
        let Failure { reason, detail, .. } = failure;
        let (errcode, errmsg) = failure.answered();
        let pause_s = wait.as_secs();
        tracing::warn!(official_account = self.wechat_id(), %reason, errcode, errmsg, detail, pause_s, "the Official Account is paused");
    }

    /// A call, let through then, was judged by WeChat: what held it back is over, except the lack of room where there is
    /// none. Answers the scopes whose pauses were remembered over restarts.
    pub fn resume(&self, action: Action, begun: Instant, room: bool) -> Vec<Scope> {
        let (ended, held_back) = {
            let mut pauses = self.pauses();
            let held_back = pauses.all().next().is_some();
            (pauses.resume(action, begun, room), held_back)
        };
        for pause in &ended {
            let reason = pause.failure.reason;
            self.show(reason);
            tracing::info!(official_account = self.wechat_id(), %reason, "the Official Account answers again");
        }
        if held_back {
            self.news.notify_waiters();
        }
        ended.into_iter().filter(|pause| pause.failure.reason.lasts_long()).map(|pause| pause.scope).collect()
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

    /// Whether room was made after that instant.
    pub fn room_made_since(&self, begun: Instant) -> bool {
        self.pauses().room_made_since(begun)
    }

    /// Ends when a pause has begun or ended, or room was made, after this was called.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Whether a call may go at once as far as `max_rate` is concerned; it is counted then.
    pub fn takes_rate(&self) -> bool {
        self.rate.as_ref().is_none_or(Rate::try_turn)
    }

    /// Waits for a call's turn at `max_rate`, and counts it.
    pub async fn rate_turn(&self) {
        if let Some(rate) = &self.rate {
            rate.turn().await;
        }
    }

    pub fn credentials(&self) -> Credentials {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what WeChat's list said of the credentials, and how many kf accounts there are.
    pub fn learn(&self, snapshot: &Snapshot) -> Credentials {
        self.metrics.kf_accounts(self.wechat_id(), snapshot.used);
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.used);
        let credentials = match snapshot.stranger(self.wechat_id()) {
            Some(_) => Credentials::Mistaken,
            None => Credentials::Believed,
        };
        self.believe(credentials);
        credentials
    }

    /// How many kf accounts WeChat listed last, where it was asked.
    pub fn listed(&self) -> Option<usize> {
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The failure of credentials that belong to another one, by an account of it that WeChat lists.
    pub fn mismatch(&self, stranger: Option<&str>) -> AttemptFailure {
        let ours = self.wechat_id();
        let theirs =
            stranger.and_then(|stranger| stranger.rsplit_once('@')).map_or_else(String::new, |(_, theirs)| format!(" (`{theirs}`)"));
        let detail = format!(
            "The credentials of `{ours}` belong to another Official Account{theirs}, by the accounts that WeChat lists. Correct `wechat_id`, or the credentials."
        );
        AttemptFailure::new(Class::ACCOUNT, Failure::new(Reason::WechatIdMismatch, detail))
    }

    /// Believes this of the credentials from now on.
    pub fn believe(&self, credentials: Credentials) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// It is configured no more, or otherwise: what its last calls learn is of no use. Answers the scopes whose pauses
    /// were remembered over restarts.
    pub(super) fn forget(&self) -> Vec<Scope> {
        self.forgotten.store(true, Ordering::Relaxed);
        let ended = self.pauses().forget();
        for pause in &ended {
            self.show(pause.failure.reason);
        }
        self.news.notify_waiters();
        ended.into_iter().filter(|pause| pause.failure.reason.lasts_long()).map(|pause| pause.scope).collect()
    }

    /// Shows whether anything is paused for a reason.
    fn show(&self, reason: Reason) {
        let pauses = self.pauses();
        let paused = pauses.all().any(|pause| pause.is_told() && pause.failure.reason == reason);
        self.metrics.paused(self.wechat_id(), reason, paused);
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Way::Probe(number) = self.way {
            self.official_account.pauses().end_probe(number);
            self.official_account.news.notify_waiters();
        }
    }
}
