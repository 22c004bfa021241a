//! Waiting: here, where it is short and nobody else is kept waiting by it; through a deferred queue where not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::attempt::Step;
use super::settle::{Fate, PutOff};
use super::{Job, Worker};
use crate::accounts::{OfficialAccount, Pause};
use crate::command::Command;
use crate::event::since;
use crate::lanes::Turn;
use crate::ledger::{Position, Ticket, Waiting};
use crate::outcome::{Action, AttemptFailure, Class, Failure, Outcome, Reason, Scope};
use crate::retry;

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
pub enum Waited {
    Over,
    /// Something came into the lane: it may be older, or supersede what waits.
    LaneChanged,
    /// The delivery is no longer ours, or will not be for long.
    LetGo,
}

/// How often a command that waits for another worker looks in the ledger.
pub const LOOK: Duration = Duration::from_millis(500);

impl Worker {
    /// Waits as a job must, unless something else comes first.
    pub(super) async fn wait(&self, job: &Job, hold: Hold, turn: &Turn<String, Position, Box<Job>>) -> Waited {
        let until = match hold {
            Hold::Until(until) | Hold::News(until) => until,
            // Where the older command is in another worker's hands, only the ledger tells.
            Hold::Older(until) if self.ledger.is_shared() => until.min(Instant::now() + LOOK),
            Hold::Older(until) => until,
        };
        let news = async {
            let Some(official_account) = self.accounts.get(job.command.account.wechat_id()) else { return std::future::pending().await };
            loop {
                // Listened for before looking, so that nothing is missed in between.
                let news = official_account.news();
                let pause = official_account.paused(job.command.action);
                let over = match hold {
                    Hold::News(_) => pause.is_none(),
                    // Whoever waits for something else leaves when its Official Account is paused for long meanwhile.
                    Hold::Until(_) | Hold::Older(_) => pause.is_some_and(|pause| !self.stays(&official_account, &pause)),
                };
                if over {
                    return;
                }
                news.await;
            }
        };
        tokio::select! {
            () = self.let_go(job) => Waited::LetGo,
            () = turn.changed() => Waited::LaneChanged,
            () = tokio::time::sleep_until(until) => Waited::Over,
            () = news => Waited::Over,
        }
    }

    /// Whether the commands of a paused Official Account stay in hand: where it is about to be known how things are, where
    /// they can be woken, where the pause is short, all in all, or where WeChat only fails in passing and the window has
    /// room for everybody. Others leave at once, and so do those that fill the window, so that nobody waits for a
    /// stranger.
    fn stays(&self, official_account: &OfficialAccount, pause: &Pause) -> bool {
        let share = self.settings.window_share;
        let left = pause.until.saturating_duration_since(Instant::now());
        let short = pause.is_probed() || since(pause.since) + left <= self.settings.slow_after;
        let in_passing = pause.failure.reason.is_passing() && usize::try_from(self.metrics.held()).is_ok_and(|held| held < share);
        (short || in_passing || pause.scope == Scope::Room) && official_account.in_hand.commands() <= share
    }

    /// Where the Official Account is paused, the command waits without a call.
    pub(super) async fn paused(&self, job: &mut Job, official_account: &OfficialAccount, pause: Pause) -> Step {
        // Not before a probe under way has told whether the trouble is over.
        if !pause.is_probed() && self.is_too_old(job) {
            let failure = retry::exhausted(&self.retry, Some(pause.failure));
            return self.finish(job, Outcome::Failed(failure)).await;
        }
        let failed = AttemptFailure::new(Class::Retry, pause.failure.clone());
        self.wait_out(job, official_account, &pause, failed).await
    }

    /// It has been waiting for longer than a command may.
    pub(super) fn is_too_old(&self, job: &Job) -> bool {
        since(job.ticket.age_from) >= self.retry.max_age
    }

    /// Waits until a pause is over.
    pub(super) async fn wait_out(&self, job: &mut Job, official_account: &OfficialAccount, pause: &Pause, failed: AttemptFailure) -> Step {
        self.metrics.waits(failed.failure.reason);
        let now = Instant::now();
        let until = if pause.is_probed() { now + 2 * self.settings.request_timeout } else { pause.until.max(now) };
        let until = match self.room_awaited_until(job, pause) {
            Some(end) => until.min(end),
            None => until,
        };
        // What can be woken stays for as long as it may be held, anything else only where that is long enough.
        let wakes = pause.is_probed() || pause.scope == Scope::Room;
        let in_time = if wakes { now < self.held_until(job) } else { until <= self.held_until(job) };
        if self.stays(official_account, pause) && in_time {
            let step = self.record_wait(job, &failed).await?;
            job.hold = Some(Hold::News(until.min(self.held_until(job))));
            return Ok(step);
        }
        let left = until.saturating_duration_since(now);
        let wait = if pause.scope == Scope::Room { left } else { retry::while_paused(left, since(pause.since)) };
        Ok(Some(self.leave(job, wait, &failed)))
    }

    /// When an add has waited long enough for room: then it is tried a last time.
    fn room_awaited_until(&self, job: &Job, pause: &Pause) -> Option<Instant> {
        if pause.scope != Scope::Room {
            return None;
        }
        let waited = job.waited_for(pause.failure.reason);
        Some(Instant::now() + self.retry.capacity_wait.saturating_sub(waited))
    }

    /// Whether an add tries a last time although there is no room.
    pub(super) fn tries_a_last_time(&self, job: &Job, pause: &Pause) -> bool {
        self.room_awaited_until(job, pause).is_some_and(|end| end <= Instant::now())
    }

    pub(super) async fn hold_back(&self, job: &mut Job, wait: Duration, failure: Failure) -> Step {
        self.hold_back_after(job, wait, AttemptFailure::new(Class::Retry, failure)).await
    }

    /// Holds a command back: here where the delivery may be held for so long, through a deferred queue where not.
    pub(super) async fn hold_back_after(&self, job: &mut Job, wait: Duration, failed: AttemptFailure) -> Step {
        let reason = failed.failure.reason;
        self.metrics.waits(reason);
        let until = Instant::now() + wait;
        let spent = matches!(reason, Reason::HeldTooLong | Reason::OlderCommandFirst);
        if spent || until > self.held_until(job) {
            return Ok(Some(self.leave(job, wait, &failed)));
        }
        let step = self.record_wait(job, &failed).await?;
        job.hold = Some(Hold::Until(until));
        Ok(step)
    }

    /// A command that is put off for about so long. A delete comes back soon, except where that is known to be in vain.
    fn leave(&self, job: &Job, wait: Duration, failed: &AttemptFailure) -> Fate {
        let in_vain = failed.failure.reason.lasts_long();
        let soon = job.command.action == Action::Delete && !in_vain;
        let waiting = waiting(job, failed, true);
        self.to_be_put_off(&job.command, &job.ticket, if soon { Duration::ZERO } else { wait }, waiting)
    }

    /// The fate of a command whose slow Official Account holds its share of the window already.
    pub(super) fn put_off_for_its_share(&self, command: &Arc<Command>, ticket: &Ticket) -> Fate {
        self.metrics.waits(Reason::WindowShare);
        self.to_be_put_off(
            command,
            ticket,
            Duration::ZERO,
            Waiting { reason: Reason::WindowShare, answer: None, answer_lost: false, claim: None, called: false },
        )
    }

    fn to_be_put_off(&self, command: &Arc<Command>, ticket: &Ticket, wait: Duration, waiting: Waiting) -> Fate {
        // There is at least one deferred queue: the configuration was checked.
        let Some(delay) = retry::defer_for(&self.retry, wait) else { return Fate::GivenBack };
        let again = ticket.trouble.is_some_and(|(trouble, _)| trouble == waiting.reason);
        Fate::PutOff(PutOff { command: Arc::clone(command), position: ticket.position, delay: delay.name.clone(), waiting, again })
    }

    /// Gives the claim back, with why. The command's fate is told where a newer one has superseded it.
    pub(super) async fn record_wait(&self, job: &mut Job, failed: &AttemptFailure) -> Step {
        self.record_wait_of(job, failed, true).await
    }

    /// The same, for an attempt that came to a call or one that did not.
    pub(super) async fn record_wait_of(&self, job: &mut Job, failed: &AttemptFailure, called: bool) -> Step {
        let reason = failed.failure.reason;
        // Woken in vain, it waits for what the ledger knows already; its lane tells when it was superseded.
        if job.recorded == Some(reason) && !failed.answer_lost && job.claim.is_none() {
            return Ok(None);
        }
        if job.trouble.is_none_or(|(trouble, _)| reason.replaces(trouble)) {
            job.trouble = Some((reason, Timestamp::now()));
        }
        let recorded = self.ledger.wait(job.ticket.position, waiting(job, failed, called)).await;
        job.recorded = Some(reason);
        self.after_recording(job, recorded).await
    }

    /// Waits for the Official Account's `max_rate` to allow a call. That is a wait like any other: a newer command may
    /// supersede what waits. Answers `None` where the call may go.
    pub(super) async fn wait_for_rate(
        &self,
        job: &mut Job,
        official_account: &OfficialAccount,
        turn: &Turn<String, Position, Box<Job>>,
    ) -> Option<Step> {
        if official_account.takes_rate() {
            return None;
        }
        let detail = "The calls of this Official Account are spread out by its `max_rate`.";
        let failed = AttemptFailure::new(Class::Retry, Failure::new(Reason::RateLimited, detail));
        if job.recorded != Some(Reason::RateLimited) {
            self.metrics.waits(Reason::RateLimited);
        }
        match self.record_wait(job, &failed).await {
            Ok(None) => {}
            superseded => return Some(superseded),
        }
        tokio::select! {
            () = official_account.rate_turn() => None,
            pause = self.paused_meanwhile(job, official_account) => Some(self.paused(job, official_account, pause).await),
            () = self.let_go(job) => Some(Ok(Some(Fate::GivenBack))),
            () = turn.changed() => Some(self.ledger.check(job.ticket.position).await.map(|superseded| superseded.map(Fate::Concluded))),
            () = tokio::time::sleep_until(self.held_until(job)) => Some(Ok(Some(self.leave(job, Duration::ZERO, &failed)))),
        }
    }

    /// Ends when the worker shuts down, or the delivery belongs to a session that is over.
    pub(super) async fn let_go(&self, job: &Job) {
        tokio::select! {
            () = self.draining.cancelled() => {}
            () = job.delivery.session().lost() => {}
        }
    }

    /// Until when its delivery may be held.
    pub(super) fn held_until(&self, job: &Job) -> Instant {
        job.taken_at + self.retry.max_in_process
    }

    /// It has spent its whole time behind others; what has begun to be tried is judged by its own waits.
    pub(super) fn held_too_long(&self, job: &Job) -> bool {
        job.tries == 0 && job.recorded.is_none() && Instant::now() > self.held_until(job)
    }
}

fn waiting(job: &Job, failed: &AttemptFailure, called: bool) -> Waiting {
    Waiting {
        reason: failed.failure.reason,
        answer: failed.failure.answer.clone(),
        answer_lost: failed.answer_lost,
        claim: job.claim.map(|claim| claim.epoch),
        called,
    }
}
