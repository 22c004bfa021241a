//! Claims: whether one still outlasts a call, and what is owed once it is lost.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::attempt::Step;
use super::settle::Fate;
use super::wait::{Hold, LOOK};
use super::{Job, Worker};
use crate::accounts::Sources;
use crate::command::{Command, Given};
use crate::ledger::{Begun, CleanUp, Ending, Epoch, LedgerError, Obstacle, Recorded};
use crate::outcome::{Action, AttemptFailure, Class, Failure, Reason, Status};
use crate::retry;

/// The right to call WeChat for a command's account.
#[derive(Debug, Clone, Copy)]
pub struct Claimed {
    pub epoch: Epoch,
    /// It lasts until then, on the clock that goes on while the machine sleeps.
    until: Duration,
    /// When it was answered.
    pub begun_at: Instant,
}

/// The time since the machine was started, sleep included; no program is left out of it by being stopped.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// When a claim is asked for. It lasts from no earlier than that.
pub struct Asking(Duration);

impl Asking {
    /// From now on.
    pub fn now() -> Self {
        Self(since_boot())
    }

    /// The claim, once it was given.
    pub fn claimed(self, epoch: Epoch, lease: Duration) -> Claimed {
        Claimed { epoch, until: self.0 + lease, begun_at: Instant::now() }
    }
}

impl Claimed {
    /// Whether it lasts for as long as a call may take.
    pub fn outlasts(&self, call: Duration) -> bool {
        since_boot() + call <= self.until
    }
}

impl Worker {
    /// What becomes of a command that something stands in the way of: its outcome where it has one, else `None`, and it
    /// waits.
    pub(super) fn hindered(&self, job: &mut Job, obstacle: Obstacle) -> Option<Fate> {
        job.hindered = true;
        job.hold = Some(match obstacle {
            Obstacle::Finished(finished) => {
                return Some(match finished.conclusion.status {
                    // The ledger itself has decided.
                    Status::Superseded | Status::Failed => Fate::Concluded(finished),
                    // Another delivery of the command has carried it out.
                    Status::Succeeded | Status::Rejected => {
                        self.metrics.repeats.inc();
                        Fate::Repeated(finished)
                    }
                });
            }
            Obstacle::Behind => Hold::Older(self.held_until(job)),
            // It may be given back before it runs out.
            Obstacle::Held(left) => Hold::Until(Instant::now() + left.min(LOOK)),
            Obstacle::Suspected => {
                job.ticket.suspect = true;
                Hold::Until(Instant::now())
            }
        });
        None
    }

    /// The worker was stopped between the claim and the call, or the calls before it took long: nothing was called, and the
    /// command is begun anew.
    pub(super) async fn not_called(&self, job: &mut Job) -> Step {
        let detail =
            "The claim on the account was given back before WeChat was called: the worker was stopped, or the calls before it took long.";
        let failed = AttemptFailure::new(Class::Retry, Failure::new(Reason::ClaimRanOut, detail));
        self.metrics.waits(Reason::ClaimRanOut);
        let step = self.record_wait_of(job, &failed, false).await?;
        job.ticket.attempts = job.ticket.attempts.saturating_sub(1);
        job.hold.get_or_insert(Hold::Until(Instant::now()));
        Ok(step)
    }

    /// What is left to do for a command, once something was recorded of it: the outcome that it has, or `None` where it
    /// goes on. Where another worker has taken its account since, nothing was recorded.
    pub(super) async fn after_recording(&self, job: &mut Job, recorded: Result<Recorded, LedgerError>) -> Step {
        let claim = job.claim.take();
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => {
                // Whether it was lost can't be found out now; if it was, this is the last chance to see to it.
                if job.command.action == Action::Add && claim.is_some_and(|claim| !claim.outlasts(Duration::ZERO)) {
                    Box::pin(self.clean_up(&job.command)).await;
                }
                return Err(error);
            }
        };
        self.see_to_lost_claim(&job.command, recorded.ending).await;
        if recorded.ending != Ending::Ours && recorded.finished.is_none() {
            job.hold = Some(Hold::Until(Instant::now() + self.retry.initial));
        }
        Ok(recorded.finished.map(|finished| match recorded.ending {
            Ending::Ours => Fate::Concluded(finished),
            Ending::ClaimLost { .. } => {
                self.metrics.repeats.inc();
                Fate::Repeated(finished)
            }
        }))
    }

    /// Where the claim of a call was lost, nothing was recorded of it, and what it did may have to be undone.
    pub(super) async fn see_to_lost_claim(&self, command: &Command, ending: Ending) {
        let Ending::ClaimLost { may_be_back } = ending else { return };
        tracing::warn!(
            command.id = command.given.command_id,
            "another worker has taken the command's account; nothing is recorded of what this one has done for it"
        );
        self.metrics.claims_lost.inc();
        if may_be_back {
            Box::pin(self.clean_up(command)).await;
        }
    }

    /// Deletes an account once more: an add whose claim was lost may have landed after the delete that followed it. Goes
    /// on for as long as a delivery may be held.
    async fn clean_up(&self, command: &Command) {
        let kf_account = command.account.as_str();
        let end = Instant::now() + self.retry.max_in_process;
        let mut failures = 0;
        while Instant::now() < end && !self.draining.is_cancelled() {
            let wait = match self.delete_once_more(command).await {
                Some(CleanUp::NotWanted) => return,
                Some(CleanUp::Begun(_)) => {
                    tracing::info!(kf_account, "the account was deleted once more, since an add may have landed late");
                    return;
                }
                Some(CleanUp::Held(left)) => left.min(LOOK),
                None => retry::before_reconnecting(failures),
            };
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.draining.cancelled() => {}
            }
        }
        tracing::error!(
            kf_account,
            "an add may have landed after the account's delete and could not be undone; see that the account is gone"
        );
    }

    /// One try: what the ledger said to it, or `None` where it failed. It lines up for no call, since it is rare and
    /// urgent; like any other it is made under a claim that outlasts it, with a token that was there before.
    async fn delete_once_more(&self, command: &Command) -> Option<CleanUp> {
        let official_account = self.accounts.get(command.account.wechat_id())?;
        let sources = Sources { wechat: &self.wechat, ledger: &self.ledger, metrics: &self.metrics };
        let token = official_account.tokens.get(sources).await.ok()?;
        let kf_account = command.account.as_str();
        let asking = Asking::now();
        let clean_up = self.ledger.begin_clean_up(kf_account.to_owned()).await.ok()?;
        let CleanUp::Begun(epoch) = clean_up else { return Some(clean_up) };
        let claim = asking.claimed(epoch, self.ledger.lease());
        let given = Given { nickname: None, ..command.given.clone() };
        let delete = Command { action: Action::Delete, given, ..command.clone() };
        let deleted = claim.outlasts(self.settings.request_timeout) && {
            let _in_flight = self.metrics.attempt(Action::Delete);
            self.wechat.call(&token, &delete).await.is_ok()
        };
        if let Err(error) = self.ledger.end_clean_up(kf_account.to_owned(), epoch).await {
            tracing::debug!(%error, "a claim could not be given back; it runs out by itself");
        }
        deleted.then_some(clean_up)
    }

    /// How long an add of the account whose answer was lost may still land.
    pub(super) fn add_may_land(&self, job: &Job, begun: Begun) -> Option<Duration> {
        let since_begun = job.claim.map_or(Duration::ZERO, |claim| claim.begun_at.elapsed());
        let left = (2 * self.settings.request_timeout).saturating_sub(begun.lost_add_ago? + since_begun);
        (!left.is_zero()).then_some(left)
    }
}
