//! What a failed attempt leads to: a wait, a pause of the Official Account, or the end of the command.

use std::time::Duration;

use jiff::Timestamp;

use super::attempt::{Step, Tried};
use super::{Job, Worker};
use crate::accounts::{Memory, OfficialAccount};
use crate::event::since;
use crate::ledger::LedgerError;
use crate::outcome::{AttemptFailure, Class, Failure, Outcome, Reason, Scope};
use crate::retry::{self, Attempted, Decision};

impl Worker {
    /// The attempt, or the fetch of the token before it, has failed.
    pub(super) async fn failed(&self, job: &mut Job, official_account: &OfficialAccount, tried: Tried, failed: AttemptFailure) -> Step {
        job.tries = job.tries.saturating_add(1);
        let (reason, (errcode, errmsg)) = (failed.failure.reason, failed.failure.answered());
        let attempts = job.ticket.attempts;
        tracing::debug!(command.id = job.command.given.command_id, %reason, errcode, errmsg, attempts, "an attempt has failed");
        match (tried.asked_wechat, failed.class) {
            (true, Class::Retry) => self.calls.failed(),
            (true, _) => self.calls.answered(),
            (false, _) => {}
        }
        if failed.class == Class::Retry
            && let Some(failures) = official_account.struggled(tried.way)
        {
            let wait = retry::before_probing(&self.retry, failures);
            self.pause(official_account, Scope::OfficialAccount, wait, &failed.failure).await?;
        }
        let decision = retry::decide(&self.retry, self.attempted(job, tried, reason), &failed);
        job.token_refused = decision == Decision::AtOnce;
        if !matches!(decision, Decision::GiveUp(_)) {
            self.metrics.retried(reason);
        }
        match decision {
            Decision::AtOnce => self.record_wait(job, &failed).await,
            Decision::After(wait) => self.hold_back_after(job, wait, failed).await,
            Decision::Pause(Scope::Room, _) if official_account.room_made_since(tried.begun_at) => {
                self.hold_back_after(job, Duration::ZERO, failed).await
            }
            Decision::Pause(scope, wait) => {
                self.pause(official_account, scope, wait, &failed.failure).await?;
                match official_account.paused(job.command.action) {
                    Some(pause) => self.wait_out(job, official_account, &pause, failed).await,
                    None => self.hold_back_after(job, wait, failed).await,
                }
            }
            Decision::GiveUp(failure) => {
                // What may still land is remembered before the command ends.
                if failed.answer_lost {
                    let superseded = self.record_wait(job, &failed).await?;
                    // Where the claim was lost, it is another worker's to end.
                    if superseded.is_some() || job.hold.is_some() {
                        return Ok(superseded);
                    }
                }
                if failed.class == Class::Bug && official_account.malformed(job.ticket.position.0) {
                    self.pause(official_account, Scope::OfficialAccount, self.retry.probe_interval, &failure).await?;
                }
                tracing::warn!(command.id = job.command.given.command_id, %reason, errcode, errmsg, "a command has failed for good");
                self.finish(job, Outcome::Failed(failure)).await
            }
        }
    }

    /// What is known of a command whose attempt has failed.
    fn attempted(&self, job: &Job, tried: Tried, reason: Reason) -> Attempted {
        Attempted {
            called: tried.called,
            attempts: job.ticket.attempts.saturating_sub(job.ticket.attempts_before),
            tries: job.tries,
            age: since(job.ticket.age_from),
            same_trouble_for: job.waited_for(reason),
            token_refused_before: job.token_refused,
            probing: tried.way.is_probe(),
            now: Timestamp::now(),
        }
    }

    /// Holds back what belongs to the scope, and remembers it where forgetting would cost calls.
    async fn pause(&self, official_account: &OfficialAccount, scope: Scope, wait: Duration, failure: &Failure) -> Result<(), LedgerError> {
        match official_account.pause(scope, wait, failure) {
            Some(Memory::Keep(pause)) => self.ledger.keep_pause(pause).await,
            Some(Memory::Forget(scope)) => self.ledger.forget_pause(official_account.wechat_id().to_owned(), scope).await,
            None => Ok(()),
        }
    }
}
