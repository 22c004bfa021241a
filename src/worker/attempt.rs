//! One step of one command: wait if it must, call WeChat if it may, and see what that came to.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::settle::Fate;
use super::{Job, Worker};
use crate::accounts::{OfficialAccount, Pause};
use crate::event::{History, Identity, conclude, now};
use crate::lanes::Turn;
use crate::ledger::{Begun, Claim, LedgerError, Position, Waiting};
use crate::metrics::observe;
use crate::outcome::{Action, AttemptFailure, Class, Effect, Failure, Outcome, Reason, Status};
use crate::retry::{self, Attempted, Decision};
use crate::wechat::{Reached, Token};

/// What a job waits for.
#[derive(Debug, Clone, Copy)]
pub enum Hold {
    /// The time of its next attempt.
    Until(Instant),
    /// That time, or news of its Official Account: room was made, or it answers again.
    News(Instant),
    /// An older command of its account, which must come back first; it is put off at that time.
    Older(Instant),
}

/// How a wait ended.
enum Waited {
    Over,
    /// Something came into the lane: it may be older, or supersede what waits.
    LaneChanged,
    /// The delivery is no longer ours, or will not be for long.
    LetGo,
}

/// The answer to a step: the command's fate, or `None` where it goes on.
type Step = Result<Option<Fate>, LedgerError>;

impl Worker {
    /// Brings a command a step further.
    pub(super) async fn step(&self, job: &mut Job, turn: &Turn<String, Position, Job>) -> Step {
        if self.lets_go(job) {
            return Ok(Some(Fate::GivenBack));
        }
        let Some(hold) = job.hold else { return self.attempt(job).await };
        match self.wait(job, hold, turn).await {
            Waited::LetGo => Ok(Some(Fate::GivenBack)),
            Waited::Over => {
                job.hold = None;
                match hold {
                    Hold::Older(_) => self.hold_back(job, Duration::ZERO, older_first()).await,
                    Hold::Until(_) | Hold::News(_) => self.attempt(job).await,
                }
            }
            Waited::LaneChanged => {
                if matches!(hold, Hold::Older(_)) {
                    job.hold = None;
                }
                Ok(self.ledger.check(job.ticket.position).await?.map(Fate::Concluded))
            }
        }
    }

    /// The worker is shutting down, or the delivery belongs to a session that is over.
    fn lets_go(&self, job: &Job) -> bool {
        self.draining.is_cancelled() || job.delivery.session().is_lost()
    }

    async fn wait(&self, job: &Job, hold: Hold, turn: &Turn<String, Position, Job>) -> Waited {
        let (Hold::Until(until) | Hold::News(until) | Hold::Older(until)) = hold;
        let news = async {
            match self.accounts.get(job.command.account.wechat_id()).filter(|_| matches!(hold, Hold::News(_))) {
                Some(official_account) => official_account.news().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.draining.cancelled() => Waited::LetGo,
            () = job.delivery.session().lost() => Waited::LetGo,
            () = turn.changed() => Waited::LaneChanged,
            () = tokio::time::sleep_until(until) => Waited::Over,
            () = news => Waited::Over,
        }
    }

    /// Calls WeChat, if the Official Account is known and not paused, a token can be had, and no older command is
    /// unfinished. In this order, so that nothing is counted that was not begun.
    async fn attempt(&self, job: &mut Job) -> Step {
        let Some(official_account) = self.accounts.get(job.command.account.wechat_id()) else {
            return self.unknown_official_account(job).await;
        };
        if self.held_too_long(job) {
            let detail = "The commands before it took as long as a delivery may be held.";
            return self.hold_back(job, Duration::ZERO, Failure::new(Reason::HeldTooLong, detail)).await;
        }
        if let Some(pause) = official_account.paused(job.command.action) {
            return self.paused(job, pause).await;
        }
        let token = match self.wechat.token(&job.command.account).await {
            Some(Ok(token)) => token,
            Some(Err(failed)) => return self.failed(job, official_account, failed).await,
            None => return self.unknown_official_account(job).await,
        };
        let Some(_permit) = self.permit(job).await else { return Ok(Some(Fate::GivenBack)) };
        // While this one waited for its turn another may have found the Official Account blocked.
        if let Err(pause) = official_account.enter(job.command.action, self.retry.probe_interval) {
            return self.paused(job, pause).await;
        }
        let begun = match self.begin(job).await? {
            Claim::Begun(begun) => begun,
            Claim::Finished(finished) => {
                match finished.conclusion.status {
                    // The ledger itself has just decided.
                    Status::Superseded | Status::Failed => self.metrics.finished(&finished.conclusion),
                    // A second delivery of a command that the first one has carried out.
                    Status::Succeeded | Status::Rejected => self.metrics.repeats.inc(),
                }
                return Ok(Some(Fate::Concluded(finished)));
            }
            Claim::Behind => {
                job.hold = Some(Hold::Older(self.held_until(job)));
                return Ok(None);
            }
        };
        job.ticket.attempts = begun.attempts;
        job.ticket.suspect = false;
        job.trouble = begun.trouble;
        match self.call(job, &token).await {
            Ok(reached) => self.reached(job, official_account, begun, reached).await,
            Err(failed) => {
                if failed.class == Class::Token {
                    self.wechat.refuse(&job.command.account, &token).await;
                }
                self.failed(job, official_account, failed).await
            }
        }
    }

    async fn begin(&self, job: &Job) -> Result<Claim, LedgerError> {
        let asked_at = Instant::now();
        let claim = self.ledger.begin(job.ticket.position).await;
        observe(&self.metrics.ledger_seconds, asked_at.elapsed());
        claim
    }

    async fn call(&self, job: &Job, token: &Token) -> Result<Reached, AttemptFailure> {
        let _in_flight = self.metrics.attempt(job.command.action);
        #[cfg(debug_assertions)]
        fault_point(&job.command.given.command_id);
        self.wechat.call(token, &job.command).await
    }

    /// The right to call: one of many, or all of them for a command that was under way when the process died, so that
    /// it is known which one it was if that happens again.
    async fn permit(&self, job: &Job) -> Option<SemaphorePermit<'_>> {
        let permits = if job.ticket.suspect { self.settings.concurrency } else { 1 };
        tokio::select! {
            () = self.draining.cancelled() => None,
            () = job.delivery.session().lost() => None,
            // The semaphore is never closed.
            permit = self.calls.acquire_many(permits.try_into().unwrap_or(u32::MAX)) => permit.ok(),
        }
    }

    /// The wanted state holds.
    async fn reached(&self, job: &mut Job, official_account: &OfficialAccount, begun: Begun, reached: Reached) -> Step {
        self.resume(job, official_account);
        let effect = match (reached, job.command.action) {
            (Reached::Done, Action::Add) => Effect::Created,
            (Reached::Done, Action::Delete) => Effect::Deleted,
            (Reached::Already, Action::Delete) if let Some(wait) = self.add_may_land(begun) => {
                let detail = "WeChat says that the account does not exist, but an add whose answer was lost may still land.";
                return self.hold_back(job, wait, Failure::new(Reason::AddMayLand, detail)).await;
            }
            (Reached::Already, _) if begun.answer_lost_before => Effect::Unknown,
            (Reached::Already, _) => Effect::None,
        };
        if effect == Effect::Deleted {
            official_account.made_room();
        }
        self.finish(job, Outcome::Succeeded(effect)).await
    }

    fn resume(&self, job: &Job, official_account: &OfficialAccount) {
        if official_account.resume(job.command.action) {
            tracing::info!(official_account = job.command.account.wechat_id(), "the Official Account answers again");
        }
    }

    /// How long an add of the account whose answer was lost may still land.
    fn add_may_land(&self, begun: Begun) -> Option<Duration> {
        let age: Duration = Timestamp::now().duration_since(begun.lost_add_at?).try_into().unwrap_or_default();
        let left = (2 * self.settings.request_timeout).saturating_sub(age);
        (!left.is_zero()).then_some(left)
    }

    /// The attempt, or the fetch of the token before it, has failed.
    async fn failed(&self, job: &mut Job, official_account: &OfficialAccount, failed: AttemptFailure) -> Step {
        job.tries = job.tries.saturating_add(1);
        let (reason, errcode) = (failed.failure.reason, failed.failure.answer.as_ref().map(|answer| answer.errcode));
        tracing::debug!(command.id = job.command.given.command_id, %reason, errcode, attempts = job.ticket.attempts, "an attempt has failed");
        let now = now();
        let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
        let attempted = Attempted {
            action: job.command.action,
            attempts: job.ticket.attempts.saturating_sub(job.ticket.attempts_before),
            tries: job.tries,
            age: since(job.ticket.age_from),
            same_trouble_for: job.trouble.filter(|(trouble, _)| *trouble == reason).map_or(Duration::ZERO, |(_, at)| since(at)),
            token_refused_before: job.token_refused,
            now,
        };
        if matches!(failed.class, Class::Permanent | Class::Capacity) {
            // WeChat has judged the command itself, so nothing holds back its Official Account.
            self.resume(job, official_account);
        }
        let decision = retry::decide(&self.retry, attempted, &failed);
        job.token_refused = decision == Decision::AtOnce;
        match decision {
            Decision::AtOnce => self.record_wait(job, &failed).await,
            Decision::After(wait) => {
                let step = self.hold_back_after(job, wait, failed).await?;
                if reason == Reason::AccountLimitReached {
                    job.listen_for_news();
                }
                Ok(step)
            }
            Decision::Pause(scope, wait) => {
                if official_account.pause(scope, wait, &failed.failure) {
                    let (wechat_id, detail) = (job.command.account.wechat_id(), &failed.failure.detail);
                    tracing::warn!(official_account = wechat_id, %reason, errcode, detail, pause_s = wait.as_secs(), "the Official Account is paused");
                }
                self.hold_back_after(job, wait, failed).await
            }
            Decision::GiveUp(failure) => {
                if failed.class == Class::Bug && official_account.malformed(job.ticket.position.0) {
                    official_account.pause(retry::Scope::OfficialAccount, self.retry.probe_interval, &failure);
                    tracing::error!(official_account = job.command.account.wechat_id(), errcode, "WeChat calls our requests malformed");
                }
                self.finish(job, Outcome::Failed(failure)).await
            }
        }
    }

    /// Where the Official Account is paused, the command waits without a call.
    async fn paused(&self, job: &mut Job, pause: Pause) -> Step {
        let age = Timestamp::now().duration_since(job.ticket.age_from);
        if age >= SignedDuration::try_from(self.retry.max_age).unwrap_or(SignedDuration::MAX) {
            let failure = retry::exhausted(&self.retry, Some(pause.failure));
            return self.finish(job, Outcome::Failed(failure)).await;
        }
        let step = self.hold_back(job, pause.until - Instant::now(), pause.failure).await?;
        job.listen_for_news();
        Ok(step)
    }

    async fn hold_back(&self, job: &mut Job, wait: Duration, failure: Failure) -> Step {
        self.hold_back_after(job, wait, AttemptFailure { class: Class::Retry, failure, answer_lost: false }).await
    }

    /// Holds a command back: here where the wait is short, through a deferred queue where it is not.
    async fn hold_back_after(&self, job: &mut Job, wait: Duration, failed: AttemptFailure) -> Step {
        let reason = failed.failure.reason;
        self.metrics.waits(reason);
        let until = Instant::now() + wait;
        let spent = matches!(reason, Reason::HeldTooLong | Reason::OlderCommandFirst);
        if spent || until > self.held_until(job) {
            // A delete comes back soon, except where that is known to be in vain.
            let in_vain = matches!(reason, Reason::DayQuota | Reason::AwaitingAdministrator);
            let soon = job.command.action == Action::Delete && !in_vain;
            if let Some(defer) = retry::defer_for(&self.retry, if soon { Duration::ZERO } else { wait }) {
                return Ok(Some(Fate::PutOff { position: job.ticket.position, delay: defer.name.clone(), waiting: waiting(&failed) }));
            }
        }
        let step = self.record_wait(job, &failed).await?;
        job.hold = Some(Hold::Until(until));
        Ok(step)
    }

    /// Gives the claim back, with why. The command's fate is told where a newer one has superseded it.
    async fn record_wait(&self, job: &mut Job, failed: &AttemptFailure) -> Step {
        let reason = failed.failure.reason;
        if job.trouble.is_none_or(|(trouble, _)| trouble != reason) {
            job.trouble = Some((reason, Timestamp::now()));
        }
        let superseded = self.ledger.wait(job.ticket.position, waiting(failed)).await?;
        Ok(superseded.map(|finished| {
            self.metrics.finished(&finished.conclusion);
            Fate::Concluded(finished)
        }))
    }

    async fn unknown_official_account(&self, job: &Job) -> Step {
        let detail = format!(
            "The Official Account `{}` is not in the configuration. Add an [[official_account]] for it and replay the command.",
            job.command.account.wechat_id()
        );
        self.finish(job, Outcome::Failed(Failure::new(Reason::UnknownOfficialAccount, detail))).await
    }

    /// Writes the outcome; who comes second is told the first.
    async fn finish(&self, job: &Job, outcome: Outcome) -> Step {
        let history = History { attempts: job.ticket.attempts, received_at: job.ticket.received_at, finished_at: now() };
        let conclusion = conclude(&job.command.given, Identity::Generation(job.ticket.generation), &outcome, history);
        let dead_letter = matches!(outcome, Outcome::Failed(_));
        let asked_at = Instant::now();
        let finished = self.ledger.finish(job.ticket.position, conclusion, dead_letter).await?;
        observe(&self.metrics.ledger_seconds, asked_at.elapsed());
        self.metrics.finished(&finished.conclusion);
        Ok(Some(Fate::Concluded(finished)))
    }

    fn held_until(&self, job: &Job) -> Instant {
        job.taken_at + self.retry.max_in_process
    }

    /// It has spent its whole time behind others; what has begun to be tried is judged by its own waits.
    fn held_too_long(&self, job: &Job) -> bool {
        job.tries == 0 && job.trouble.is_none() && Instant::now() > self.held_until(job)
    }
}

impl Job {
    /// Its wait also ends when something is heard of its Official Account.
    fn listen_for_news(&mut self) {
        if let Some(Hold::Until(until)) = self.hold {
            self.hold = Some(Hold::News(until));
        }
    }
}

/// Where a test lets carrying out one command panic. No release build has it.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "the panic is what is asked for")]
fn fault_point(command_id: &str) {
    if std::env::var("KF_FAULT_PANIC").is_ok_and(|asked| asked == command_id) {
        panic!("a test has asked for this panic");
    }
}

fn waiting(failed: &AttemptFailure) -> Waiting {
    Waiting { reason: failed.failure.reason, answer: failed.failure.answer.clone(), answer_lost: failed.answer_lost }
}

fn older_first() -> Failure {
    Failure::new(Reason::OlderCommandFirst, "An older command of this account is unfinished and has not come back yet.")
}
