//! Reading back: what WeChat lists says whether the credentials are the right ones, and what a success amounts to.

use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Step;
use super::{Job, Worker};
use crate::accounts::{Credentials, OfficialAccount, Snapshot};
use crate::ledger::Begun;
use crate::outcome::{Action, AttemptFailure, Class, Effect, Failure, Outcome, Reason, Success};
use crate::retry;
use crate::wechat::Token;

/// A list of this age still tells whether an account existed before a command.
const FRESH: Duration = Duration::from_secs(300);

/// After so many lists that failed in passing, WeChat's word is taken without one.
const MOST_LISTS: u32 = 5;

impl Worker {
    /// Finds out whether the credentials belong to the Official Account, where that is not known: with swapped
    /// credentials, every delete would look as if the account was gone already. Answers the failure where they do not,
    /// or where it could not be found out now. A list that is empty or not permitted says nothing, and is not asked
    /// for again. One that goes on failing, or whose quota is used up, is not waited for, since then no delete would end.
    pub(super) async fn identify(&self, official_account: &OfficialAccount, token: &Token) -> Option<AttemptFailure> {
        let since = match official_account.credentials() {
            Credentials::Believed => return None,
            // Accounts don't change hands.
            Credentials::Unchecked => recently(),
            Credentials::Mistaken => Instant::now(),
        };
        let listed = official_account.roster.asked_since(since, self.wechat.list(token)).await;
        let mistaken = official_account.credentials() == Credentials::Mistaken;
        match listed {
            Ok(snapshot) if official_account.learn(&snapshot) == Credentials::Mistaken => {
                Some(official_account.mismatch(snapshot.stranger(official_account.wechat_id())))
            }
            Ok(_) => None,
            Err(failed) => match failed.class {
                Class::Token | Class::TokenUnchanged { .. } => Some(failed),
                Class::Retry if mistaken || official_account.roster.failures() < MOST_LISTS => Some(failed),
                // What was found out stands until a list says otherwise.
                _ if mistaken => Some(official_account.mismatch(None)),
                Class::Account { .. } | Class::Permanent | Class::Bug | Class::Unknown | Class::Capacity => {
                    official_account.believe(Credentials::Believed);
                    None
                }
                // This once; the next command asks again.
                Class::Retry | Class::Minute | Class::Day => {
                    let (wechat_id, reason) = (official_account.wechat_id(), failed.failure.reason);
                    tracing::warn!(official_account = wechat_id, %reason, "whose credentials these are can't be found out now");
                    None
                }
            },
        }
    }

    /// Notes what a call has done to its account, for as long as anybody looks before he calls.
    pub(super) fn note(&self, job: &Job, official_account: &OfficialAccount, exists: Option<bool>) {
        if self.settings.drift_interval.is_some() {
            official_account.roster.note(job.command.account.as_str(), exists);
        }
    }

    /// Notes whether the account exists before the first call of a command, so that its effect is known even where the
    /// answer is lost.
    pub(super) async fn look_before(&self, job: &mut Job, official_account: &OfficialAccount, token: &Token) {
        let first = job.ticket.attempts == job.ticket.attempts_before;
        if self.settings.drift_interval.is_none() || !first || job.existed.is_some() {
            return;
        }
        if let Some(snapshot) = Box::pin(self.list_since(official_account, token, recently())).await {
            job.existed = official_account.roster.exists_by(&snapshot, job.command.account.as_str());
        }
    }

    /// What it amounts to that the wanted state holds already, as WeChat says.
    pub(super) async fn already(&self, job: &mut Job, official_account: &OfficialAccount, begun: Begun, token: &Token) -> Step {
        let unverified = if begun.answer_lost_before { Effect::Unknown } else { Effect::None };
        let snapshot = match self.settings.drift_interval {
            Some(_) => self.list_since(official_account, token, Instant::now()).await,
            None => None,
        };
        let Some(snapshot) = snapshot else { return self.finish(job, Outcome::Succeeded(unverified.into())).await };
        let kf_account = job.command.account.as_str();
        if job.command.action == Action::Delete && snapshot.has(kf_account) == Some(true) {
            let detail = "WeChat says that the account does not exist, and its list still shows it.";
            let failure = Failure::new(Reason::ListDisagrees, detail);
            if self.is_too_old(job) {
                return self.finish(job, Outcome::Failed(retry::exhausted(&self.retry, Some(failure)))).await;
            }
            return self.hold_back(job, self.retry.max_interval, failure).await;
        }
        let effect = match (begun.answer_lost_before, job.existed, job.command.action) {
            (false, _, _) | (true, Some(true), Action::Add) | (true, Some(false), Action::Delete) => Effect::None,
            (true, Some(false), Action::Add) => Effect::Created,
            (true, Some(true), Action::Delete) => Effect::Deleted,
            (true, None, _) => Effect::Unknown,
        };
        let listed = snapshot.nickname(kf_account).filter(|_| job.command.action == Action::Add);
        let nickname_differs = listed.is_some_and(|listed| job.command.given.nickname.as_deref() != Some(listed));
        self.finish(job, Outcome::Succeeded(Success { effect, nickname_differs })).await
    }

    /// The list, where WeChat gives it; what can't be checked is taken as it is.
    pub(super) async fn list_since(
        &self,
        official_account: &OfficialAccount,
        token: &Token,
        since: Instant,
    ) -> Option<std::sync::Arc<Snapshot>> {
        match official_account.roster.asked_since(since, self.wechat.list(token)).await {
            Ok(snapshot) => {
                official_account.learn(&snapshot);
                Some(snapshot)
            }
            Err(failed) => {
                let (wechat_id, reason) = (official_account.wechat_id(), failed.failure.reason);
                tracing::debug!(official_account = wechat_id, %reason, "the kf accounts could not be listed");
                if failed.class == Class::Token {
                    official_account.tokens.refuse(token).await;
                }
                None
            }
        }
    }
}

/// What was listed since then still tells.
fn recently() -> Instant {
    Instant::now().checked_sub(FRESH).unwrap_or_else(Instant::now)
}
