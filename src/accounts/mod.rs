//! What is known of each Official Account: what holds it back and why, its token, its rate, and its part of the window.

mod in_hand;
mod kept_token;
mod official_account;
mod pauses;
mod rate;
mod roster;
mod token_state;
mod tokens;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

pub use in_hand::Taken;
pub use official_account::{Credentials, Entered, Memory, OfficialAccount};
pub use pauses::{Pause, Way};
pub use rate::MaxRate;
pub use roster::{Roster, Snapshot};
pub use tokens::{NONE_KEPT, NoToken, NotLent, PlatformSettings, Sources, Ticket, TokenKind, TokenSource};

use crate::ledger::KeptPause;
use crate::metrics::Metrics;
use crate::outcome::{Reason, Scope};

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    /// Pauses that were remembered over restarts and are no more, by WeChat ID.
    pub forgotten: Vec<(String, Scope)>,
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

    /// Whether there is no other that could wait for one.
    pub fn is_only_one(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).accounts.len() == 1
    }

    /// All of them, by WeChat ID.
    pub fn all(&self) -> Vec<Arc<OfficialAccount>> {
        let mut all: Vec<_> = self.known.read().unwrap_or_else(PoisonError::into_inner).accounts.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.wechat_id().cmp(b.wechat_id()));
        all
    }

    /// Shows in the metrics what is known of them at this moment.
    pub fn show(&self) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut paused: Vec<Vec<Reason>> = Vec::new();
        for (wechat_id, official_account) in &known.accounts {
            self.metrics.official_account_commands_held(wechat_id, official_account.in_hand.commands());
            // Where a token is being fetched, what was shown last stands until it is there.
            if let Some(ends_at) = official_account.tokens.ends_at() {
                self.metrics.token_expiry(wechat_id, ends_at.map_or(0, Timestamp::as_second));
            }
            paused.push(official_account.show_pauses());
        }
        let of_reason = |reason| paused.iter().filter(|reasons| reasons.contains(&reason)).count();
        self.metrics.official_accounts(known.accounts.len(), of_reason);
    }

    /// Takes up another configuration. What has not changed keeps all that is known of it; calls under way end as they
    /// would have.
    pub fn replace(&self, settings: &Settings) -> Replaced {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *known);
        for platform in &settings.platforms {
            let same = before.platforms.iter().find(|(known, _)| known == platform).map(|(_, source)| Arc::clone(source));
            let source = same.unwrap_or_else(|| Arc::new(TokenSource::platform(platform.clone())));
            self.metrics.knows_platform(&source.name);
            known.platforms.push((platform.clone(), source));
        }
        let mut replaced = Replaced::default();
        for account in &settings.official_accounts {
            let (platform, platform_tokens) = known.platform_of(account).unzip();
            let old = before.accounts.get(&account.wechat_id);
            let same = old.filter(|old| old.is_configured_as(account, platform.as_ref()));
            replaced.added += usize::from(old.is_none());
            replaced.changed += usize::from(old.is_some() && same.is_none());
            let official_account = same.cloned().or_else(|| {
                // The configuration was checked: each platform that is named is there.
                let tokens = match old.and_then(|old| old.tokens_for(account, platform.as_ref())) {
                    Some(tokens) => tokens,
                    None => Arc::new(TokenSource::new(&account.wechat_id, account.token.clone(), platform_tokens)?),
                };
                self.metrics.knows_official_account(&account.wechat_id);
                let configured = (account.clone(), platform);
                Some(Arc::new(OfficialAccount::new(configured, tokens, self.budget, Arc::clone(&self.metrics))))
            });
            known.accounts.extend(official_account.map(|new| (account.wechat_id.clone(), new)));
        }
        for (_, source) in &before.platforms {
            if !known.platforms.iter().any(|(_, still)| still.name == source.name) {
                self.metrics.forgets_platform(&source.name);
            }
        }
        for (wechat_id, old) in &before.accounts {
            if !known.accounts.get(wechat_id).is_some_and(|new| Arc::ptr_eq(new, old)) {
                replaced.forgotten.extend(old.forget().into_iter().map(|scope| (wechat_id.clone(), scope)));
            }
            if !known.accounts.contains_key(wechat_id) {
                replaced.removed += 1;
                self.metrics.forgets_official_account(wechat_id);
            }
        }
        replaced
    }

    /// Takes up the pauses that were in force when the last process ended.
    pub fn restore(&self, kept: Vec<KeptPause>) {
        for pause in kept {
            let left = Duration::try_from(pause.until.duration_since(Timestamp::now())).unwrap_or_default();
            if let Some(official_account) = self.get(&pause.wechat_id) {
                let (reason, pause_s) = (pause.failure.reason, left.as_secs());
                tracing::warn!(official_account = pause.wechat_id, %reason, pause_s, "the Official Account is still paused");
                official_account.restore(pause, left);
            }
        }
    }
}

impl Known {
    fn platform_of(&self, account: &OfficialAccountSettings) -> Option<(PlatformSettings, Arc<TokenSource>)> {
        let TokenKind::Authorizer { platform, .. } = &account.token else { return None };
        self.platforms.iter().find(|(settings, _)| settings.app.app_id == *platform).cloned()
    }
}
