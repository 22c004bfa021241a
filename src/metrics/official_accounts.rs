//! The series of each Official Account: only of those that are configured, since anybody can invent others.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use super::{DRIFT, ENDS, FETCHES, Metrics};
use crate::outcome::{Reason, Status};

/// Whose series there are. What a call still under way learns of one that is configured no more goes nowhere.
#[derive(Default)]
pub struct Known(RwLock<HashSet<String>>);

impl Known {
    /// Writes about one, while it is known.
    fn about(&self, name: &str, write: impl FnOnce()) {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            write();
        }
    }

    /// Answers whether it was not known before; its series are made while nobody writes.
    fn add(&self, name: &str, make: impl FnOnce()) {
        if self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            make();
        }
    }

    /// Its series are removed while nobody writes.
    fn remove(&self, name: &str, remove: impl FnOnce()) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.remove(name);
        remove();
    }
}

impl Metrics {
    /// Makes the series of an Official Account appear. What is not known yet is no number.
    pub fn knows_official_account(&self, official_account: &str) {
        self.known.add(official_account, || {
            self.make_token_fetches(official_account);
            for status in ENDS {
                self.official_account_results.with_label_values(&[official_account, status.as_str()]);
            }
            self.official_account_commands_held.with_label_values(&[official_account]);
            self.token_expiry.with_label_values(&[official_account]);
            self.official_account_kf_accounts.with_label_values(&[official_account]).set(f64::NAN);
            for kind in DRIFT {
                self.official_account_drift.with_label_values(&[official_account, kind]).set(f64::NAN);
            }
        });
    }

    /// Removes the series of an Official Account that is configured no more.
    pub fn forgets_official_account(&self, official_account: &str) {
        self.known.remove(official_account, || {
            self.remove_token_fetches(official_account);
            // What was never there need not be removed.
            for status in ENDS {
                let _ = self.official_account_results.remove_label_values(&[official_account, status.as_str()]);
            }
            for reason in Reason::PAUSING {
                let _ = self.official_account_paused.remove_label_values(&[official_account, reason.as_str()]);
            }
            for kind in DRIFT {
                let _ = self.official_account_drift.remove_label_values(&[official_account, kind]);
            }
            let _ = self.official_account_kf_accounts.remove_label_values(&[official_account]);
            for gauge in [&self.official_account_commands_held, &self.token_expiry] {
                let _ = gauge.remove_label_values(&[official_account]);
            }
        });
    }

    /// Makes the series of a third-party platform's token source appear.
    pub fn knows_platform(&self, source: &str) {
        self.known.add(source, || self.make_token_fetches(source));
    }

    /// Removes the series of a platform that is configured no more.
    pub fn forgets_platform(&self, source: &str) {
        self.known.remove(source, || self.remove_token_fetches(source));
    }

    fn make_token_fetches(&self, source: &str) {
        for result in FETCHES {
            self.token_fetches.with_label_values(&[source, result]);
        }
    }

    fn remove_token_fetches(&self, source: &str) {
        for result in FETCHES {
            let _ = self.token_fetches.remove_label_values(&[source, result]);
        }
    }

    /// A command of an Official Account has reached its outcome.
    pub(super) fn official_account_finished(&self, official_account: &str, status: Status) {
        if ENDS.contains(&status) {
            self.known.about(official_account, || {
                self.official_account_results.with_label_values(&[official_account, status.as_str()]).inc();
            });
        }
    }

    /// A token was fetched, or could not be.
    pub fn token_fetched(&self, source: &str, well: bool) {
        self.known.about(source, || {
            self.token_fetches.with_label_values(&[source, if well { "ok" } else { "failed" }]).inc();
        });
    }

    /// Shows how many Official Accounts there are, and how many of them are paused for each reason.
    pub fn official_accounts(&self, configured: usize, paused: impl Fn(Reason) -> usize) {
        self.official_accounts.set(gauge(configured));
        for reason in Reason::PAUSING {
            self.official_accounts_paused.with_label_values(&[reason.as_str()]).set(gauge(paused(*reason)));
        }
    }

    /// Shows how many commands of an Official Account are held.
    pub fn official_account_commands_held(&self, official_account: &str, held: usize) {
        self.known.about(official_account, || {
            self.official_account_commands_held.with_label_values(&[official_account]).set(gauge(held));
        });
    }

    /// Shows when the token that is held for an Official Account ends, in seconds since 1970; 0 where none is held.
    pub fn token_expiry(&self, official_account: &str, ends_at: i64) {
        self.known.about(official_account, || self.token_expiry.with_label_values(&[official_account]).set(ends_at));
    }

    /// Whether an Official Account is paused for a reason.
    pub fn paused(&self, official_account: &str, reason: Reason, yes: bool) {
        self.known.about(official_account, || {
            self.official_account_paused.with_label_values(&[official_account, reason.as_str()]).set(yes.into());
        });
    }

    /// WeChat listed so many kf accounts.
    pub fn kf_accounts(&self, official_account: &str, used: usize) {
        self.known.about(official_account, || {
            self.official_account_kf_accounts.with_label_values(&[official_account]).set(small(used));
        });
    }

    /// So many kf accounts are missing, unexpected, and differently named.
    pub fn drift(&self, official_account: &str, counts: [usize; 3]) {
        self.known.about(official_account, || {
            for (kind, count) in DRIFT.into_iter().zip(counts) {
                self.official_account_drift.with_label_values(&[official_account, kind]).set(small(count));
            }
        });
    }
}

fn gauge(count: usize) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// A number of kf accounts; an Official Account holds 100.
fn small(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
