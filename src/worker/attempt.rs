//! One step of one command: wait if it must, call WeChat if it may, and see what that came to.
//!
//! What few commands come to is boxed: the task of each command in hand is as large as all that it may do without.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::claim::Asking;
use super::permit::NoPermit;
use super::settle::Fate;
use super::wait::{Hold, Waited};
use super::{Job, Worker};
use crate::accounts::{Credentials, NoToken, OfficialAccount, Sources, Way};
use crate::calls::{Permit, Place};
use crate::event::{History, Identity, conclude, now};
use crate::lanes::Turn;
use crate::ledger::{Begun, Claim, LedgerError, Position};
use crate::outcome::{Action, AttemptFailure, Class, Effect, Failure, Outcome, Reason, Scope};
use crate::wechat::{Reached, Token};

/// The answer to a step: the command's fate, or `None` where it goes on.
pub type Step = Result<Option<Fate>, LedgerError>;

/// How long a claim is held while calls are in flight in all places: for less than what is taken for hanging.
const PLACE_PATIENCE: Duration = Duration::from_millis(500);

/// What a call is made with.
struct Call {
    official_account: Arc<OfficialAccount>,
    token: Token,
    tried: Tried,
}

/// How an attempt was made.
#[derive(Clone, Copy)]
pub struct Tried {
    pub way: Way,
    /// When it was let through.
    pub begun_at: Instant,
    /// What was called; nothing where there was no token to call with.
    pub called: Option<Action>,
    /// WeChat itself was asked, so that the failure says something of it.
    pub asked_wechat: bool,
}

impl Worker {
    /// Brings a command a step further.
    pub(super) async fn step(&self, job: &mut Job, turn: &Turn<String, Position, Box<Job>>) -> Step {
        if self.draining.is_cancelled() || job.delivery.session().is_lost() {
            return Ok(Some(Fate::GivenBack));
        }
        let Some(hold) = job.hold else { return self.attempt(job, turn).await };
        match self.wait(job, hold, turn).await {
            Waited::LetGo => Ok(Some(Fate::GivenBack)),
            Waited::Over => {
                job.hold = None;
                match hold {
                    Hold::Older(until) if until <= Instant::now() => Box::pin(self.hold_back(job, Duration::ZERO, older_first())).await,
                    Hold::Older(_) | Hold::Until(_) | Hold::News(_) => self.attempt(job, turn).await,
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

    /// Calls WeChat, if the Official Account is known and not paused, it is this command's turn among all, and a token
    /// can be had. In this order, so that nothing is asked of WeChat in vain.
    async fn attempt(&self, job: &mut Job, turn: &Turn<String, Position, Box<Job>>) -> Step {
        let Some(official_account) = self.accounts.get(job.command.account.wechat_id()) else {
            return Box::pin(self.unknown_official_account(job)).await;
        };
        // Lining up for a call would keep others from theirs while another worker has the account.
        if job.hindered
            && let Some(obstacle) = self.ledger.obstacle(job.ticket.position).await?
            && !self.held_too_long(job)
        {
            return Ok(self.hindered(job, obstacle));
        }
        job.hindered = false;
        if self.held_too_long(job) {
            let detail = "The commands before it took as long as a delivery may be held.";
            return Box::pin(self.hold_back(job, Duration::ZERO, Failure::new(Reason::HeldTooLong, detail))).await;
        }
        let pause = official_account.paused(job.command.action);
        let last_time = pause.as_ref().is_some_and(|pause| self.tries_a_last_time(job, pause));
        if let Some(pause) = pause.filter(|_| !last_time) {
            return Box::pin(self.paused(job, &official_account, pause)).await;
        }
        if let Some(step) = Box::pin(self.wait_for_rate(job, &official_account, turn)).await {
            return step;
        }
        let permit = match self.permit(job, &official_account, turn, last_time).await {
            Ok(permit) => permit,
            Err(NoPermit::Paused(pause)) => return Box::pin(self.paused(job, &official_account, *pause)).await,
            Err(NoPermit::HeldTooLong) => {
                let detail = "Its turn to call WeChat did not come for as long as a delivery may be held.";
                return Box::pin(self.hold_back(job, Duration::ZERO, Failure::new(Reason::HeldTooLong, detail))).await;
            }
            Err(NoPermit::CrowdsOut) => return Ok(Some(self.put_off_for_its_share(&job.command, &job.ticket))),
            Err(NoPermit::Superseded(finished)) => return Ok(Some(Fate::Concluded(finished))),
            Err(NoPermit::Ledger(error)) => return Err(error),
            Err(NoPermit::LetGo) => return Ok(Some(Fate::GivenBack)),
        };
        // While this one waited for its turn another may have found the Official Account blocked.
        let entered = match official_account.enter(job.command.action) {
            Ok(entered) => Some(entered),
            Err(pause) if last_time && pause.scope == Scope::Room => None,
            Err(pause) => return Box::pin(self.paused(job, &official_account, *pause)).await,
        };
        let way = entered.as_ref().map(|entered| entered.way);
        self.attempt_with(job, official_account, way, permit).await
    }

    /// The same, once it may be done: in no way where it is done in spite of a pause.
    async fn attempt_with(&self, job: &mut Job, official_account: Arc<OfficialAccount>, way: Option<Way>, permit: Permit) -> Step {
        let tried = Tried { way: way.unwrap_or(Way::Free), begun_at: Instant::now(), called: None, asked_wechat: true };
        let _in_flight = official_account.in_hand.call();
        let sources = Sources { wechat: &self.wechat, ledger: &self.ledger, metrics: &self.metrics };
        let token = match official_account.tokens.get(sources).await {
            Ok(token) => token,
            Err(NoToken::Failed { failed, asked_wechat }) => {
                let tried = Tried { asked_wechat, ..tried };
                return Box::pin(self.failed(job, &official_account, tried, *failed)).await;
            }
            Err(NoToken::Ledger(error)) => return Err(error),
        };
        let tried = Tried { called: Some(job.command.action), ..tried };
        let call = Call { official_account, token, tried };
        if call.official_account.credentials() == Credentials::Mistaken
            && let Some(failed) = Box::pin(self.identify(&call.official_account, &call.token)).await
        {
            return Box::pin(self.call_failed(job, &call, failed)).await;
        }
        self.look_before(job, &call.official_account, &call.token).await;
        let asking = Asking::now();
        let begun = match self.begin(job).await? {
            Claim::Begun(begun) => begun,
            Claim::Not(obstacle) => return Ok(self.hindered(job, obstacle)),
        };
        let claim = asking.claimed(begun.epoch, self.ledger.lease());
        job.claim = Some(claim);
        job.ticket.attempts = begun.attempts;
        job.ticket.suspect = false;
        job.recorded = None;
        let place = match permit.place().now_or_never() {
            Some(place) => Some(place),
            None => Box::pin(self.place(job, &call.official_account, way, &permit)).await,
        };
        let Some(place) = place.filter(|_| claim.outlasts(self.settings.request_timeout)) else {
            return Box::pin(self.not_called(job)).await;
        };
        let answered = self.call(job, &call.token).await;
        drop(place);
        match answered {
            Ok(reached) => {
                self.calls.answered();
                if reached == Reached::Done {
                    // Nothing more is asked of WeChat: somebody else may call while this is recorded.
                    drop(permit);
                }
                self.reached(job, &call, begun, reached).await
            }
            Err(failed) => {
                if failed.answer_lost {
                    self.note(job, &call.official_account, None);
                }
                Box::pin(self.call_failed(job, &call, failed)).await
            }
        }
    }

    /// Waits for a place among the calls in flight. There is none where the call is not to be made any more, or where those
    /// before it take long: others may need the account.
    async fn place(&self, job: &Job, official_account: &OfficialAccount, way: Option<Way>, permit: &Permit) -> Option<Place> {
        let place = tokio::select! {
            place = permit.place() => place,
            () = self.let_go(job) => return None,
            () = tokio::time::sleep(PLACE_PATIENCE) => return None,
        };
        let is_paused = way == Some(Way::Free) && official_account.paused(job.command.action).is_some();
        (!is_paused).then_some(place)
    }

    async fn begin(&self, job: &Job) -> Result<Claim, LedgerError> {
        self.ledger.begin(job.ticket.position, job.ticket.suspect).await
    }

    async fn call(&self, job: &Job, token: &Token) -> Result<Reached, AttemptFailure> {
        let _in_flight = self.metrics.attempt(job.command.action);
        #[cfg(debug_assertions)]
        fault_point(&job.command.given.command_id);
        self.wechat.call(token, &job.command).await
    }

    /// The wanted state holds.
    async fn reached(&self, job: &mut Job, call: &Call, begun: Begun, reached: Reached) -> Step {
        let official_account = &call.official_account;
        self.resume(job, call, true).await?;
        match (reached, job.command.action) {
            (Reached::Already, Action::Delete) if let Some(wait) = self.add_may_land(job, begun) => {
                let detail = "WeChat says that the account does not exist, but an add whose answer was lost may still land.";
                Box::pin(self.hold_back(job, wait, Failure::new(Reason::AddMayLand, detail))).await
            }
            (Reached::Already, action) => {
                if action == Action::Delete
                    && let Some(failed) = Box::pin(self.identify(official_account, &call.token)).await
                {
                    return Box::pin(self.call_failed(job, call, failed)).await;
                }
                self.note(job, official_account, Some(action == Action::Add));
                Box::pin(self.already(job, official_account, begun, &call.token)).await
            }
            (Reached::Done, Action::Add) => {
                self.note(job, official_account, Some(true));
                self.finish(job, Outcome::Succeeded(Effect::Created.into())).await
            }
            (Reached::Done, Action::Delete) => {
                self.note(job, official_account, Some(false));
                official_account.made_room();
                self.finish(job, Outcome::Succeeded(Effect::Deleted.into())).await
            }
        }
    }

    /// Whatever held back calls of this kind is over.
    async fn resume(&self, job: &Job, call: &Call, room: bool) -> Result<(), LedgerError> {
        for scope in call.official_account.resume(job.command.action, call.tried.begun_at, room) {
            self.ledger.forget_pause(call.official_account.wechat_id().to_owned(), scope).await?;
        }
        Ok(())
    }

    /// A call with a token has failed.
    async fn call_failed(&self, job: &mut Job, call: &Call, failed: AttemptFailure) -> Step {
        if failed.class == Class::Token {
            call.official_account.tokens.refuse(&call.token).await;
        }
        if matches!(failed.class, Class::Permanent | Class::Capacity) {
            // WeChat has judged the command itself, so nothing holds back its Official Account, but the lack of room.
            self.resume(job, call, failed.class != Class::Capacity).await?;
        }
        Box::pin(self.failed(job, &call.official_account, call.tried, failed)).await
    }

    async fn unknown_official_account(&self, job: &mut Job) -> Step {
        let detail = format!(
            "The Official Account `{}` is not in the configuration. Add an [[official_account]] for it, send the worker SIGHUP and replay the command.",
            job.command.account.wechat_id()
        );
        self.finish(job, Outcome::Failed(Failure::new(Reason::UnknownOfficialAccount, detail))).await
    }

    /// Writes the outcome; who comes second is told the first.
    pub(super) async fn finish(&self, job: &mut Job, outcome: Outcome) -> Step {
        let history = History { attempts: job.ticket.attempts, received_at: job.ticket.received_at, finished_at: now() };
        let conclusion = conclude(&job.command.given, Identity::Generation(job.ticket.generation), &outcome, history);
        let dead_letter = matches!(outcome, Outcome::Failed(_));
        let claim = job.claim.map(|claim| claim.epoch);
        let recorded = self.ledger.finish(job.ticket.position, claim, conclusion, dead_letter).await;
        self.after_recording(job, recorded).await
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

fn older_first() -> Failure {
    Failure::new(Reason::OlderCommandFirst, "An older command of this account is unfinished and has not come back yet.")
}
