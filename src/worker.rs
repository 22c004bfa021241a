//! The story: take deliveries, carry each command to its one outcome, and be done with it in one place.
//!
//! delivery → publisher allowed? → decode → accept in the ledger → lane of its account → claim → call with retry →
//! record → publish, confirmed → acknowledge. A delivery that is not acknowledged comes again: that is the outbox.

mod attempt;
mod failed;
mod permit;
mod settle;
mod verify;
mod wait;
mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::{OfficialAccount, OfficialAccounts, Taken};
use crate::authorisation::Rules;
use crate::broker::{Deliveries, Delivery, Session};
use crate::calls::Calls;
use crate::command::{Command, Decoded, decode};
use crate::event::{generation_of_dead_letter, now};
use crate::lanes::{Lanes, Turn};
use crate::ledger::{Acceptance, Arrival, Arrived, Ledger, LedgerError, Origin, Position, Ticket};
use crate::metrics::{Metrics, observe};
use crate::outcome::Reason;
use crate::readiness::Readiness;
use crate::retry;
use crate::wechat::WeChat;
use settle::Fate;
use wait::Hold;

/// How much the worker does at once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Calls in flight at WeChat at most.
    pub concurrency: usize,
    /// Those of one Official Account among them, while others wait.
    pub calls_share: usize,
    /// Commands of one Official Account in hand at most, once it is slow.
    pub window_share: usize,
    /// It is slow when its oldest command in hand has waited for so long.
    pub slow_after: Duration,
    /// How long shutting down waits for what is in flight.
    pub drain: Duration,
    /// How long one request to WeChat may take.
    pub request_timeout: Duration,
    /// Once in this time all accounts are compared with WeChat's list, and outcomes that rest on what WeChat says exists
    /// already are checked against it; nothing where that is off.
    pub drift_interval: Option<Duration>,
}

/// Everything that carrying out commands needs. It outlives the sessions with the broker.
pub struct Worker {
    pub settings: Settings,
    pub retry: retry::Settings,
    pub rules: Rules,
    pub ledger: Ledger,
    pub wechat: WeChat,
    pub accounts: Arc<OfficialAccounts>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// Commands by account: one at a time, lowest position first.
    pub lanes: Arc<Lanes<String, Position, Job>>,
    /// Who may call WeChat next.
    pub calls: Arc<Calls>,
    /// Everything that works on a delivery.
    pub tasks: TaskTracker,
    /// Cancelled when the worker shuts down: waits end, calls in flight do not.
    pub draining: CancellationToken,
    /// Cancelled when the drain time is over: everything ends.
    pub aborted: CancellationToken,
}

/// An unfinished command in hand, with the delivery that brought it.
pub struct Job {
    delivery: Delivery,
    command: Arc<Command>,
    ticket: Ticket,
    /// When the delivery was taken: it is held for `retry.max_in_process` at most.
    taken_at: Instant,
    /// What it waits for before its next attempt.
    hold: Option<Hold>,
    /// Failed attempts in this process, token fetches included.
    tries: u32,
    /// The token was refused in the attempt just before.
    token_refused: bool,
    /// What it waits for, and since when.
    trouble: Option<(Reason, Timestamp)>,
    /// Why the ledger says that it waits; nothing since its last attempt.
    recorded: Option<Reason>,
    /// Whether the account existed before the first attempt, where that was looked up.
    existed: Option<bool>,
    /// Counts it among those of its Official Account.
    in_hand: Option<Taken>,
}

/// How often the loop that takes commands comes round when there are none.
const ROUND: Duration = Duration::from_secs(1);
/// Deliveries accepted in one transaction at most.
const BATCH: usize = 256;

impl Worker {
    /// Takes deliveries until the session is lost or the worker shuts down.
    pub async fn serve(self: &Arc<Self>, session: &Session, mut deliveries: Deliveries) {
        loop {
            self.readiness.round();
            let taken = tokio::select! {
                taken = deliveries.next(BATCH) => taken,
                () = self.draining.cancelled() => None,
                () = tokio::time::sleep(ROUND) => continue,
            };
            let Some(taken) = taken else { return };
            if let Err(error) = self.take(taken).await {
                self.ledger_failed(session, &error);
                return;
            }
        }
    }

    /// Ends what is in flight, within the drain time.
    pub async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.settings.drain, self.tasks.wait()).await.is_err() {
            tracing::warn!(unfinished = self.tasks.len(), "the drain time is over; what is unfinished comes back at the next start");
            self.aborted.cancel();
            self.tasks.wait().await;
        }
        if let Err(error) = self.ledger.release().await {
            tracing::warn!(%error, "what was in flight could not be given back in the ledger");
        }
    }

    /// Sorts deliveries, accepts what can be accepted in one transaction, and sends each on its way.
    async fn take(self: &Arc<Self>, deliveries: Vec<Delivery>) -> Result<(), LedgerError> {
        let received_at = now();
        let taken_at = Instant::now();
        let mut arrived = Vec::with_capacity(deliveries.len());
        let mut arrivals = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            self.metrics.commands_received.inc();
            self.metrics.commands_redelivered.inc_by(delivery.redelivered.into());
            match self.sort(&delivery) {
                Sorted::Arrived(message, origin) => {
                    arrivals.push(Arrival { message: message.clone(), received_at, origin });
                    arrived.push((delivery, message));
                }
                Sorted::Ends(fate) => self.settle_soon(delivery, fate, taken_at),
            }
        }
        if arrivals.is_empty() {
            return Ok(());
        }
        let acceptances = self.ledger.accept(arrivals).await?;
        observe(&self.metrics.ledger_seconds, taken_at.elapsed());
        for ((delivery, message), acceptance) in arrived.into_iter().zip(acceptances) {
            match self.follow(message, acceptance, received_at) {
                Next::Lane(command, ticket) => self.take_in(delivery, command, ticket, taken_at),
                Next::Ends(fate) => self.settle_soon(delivery, fate, taken_at),
            }
        }
        Ok(())
    }

    /// Where an accepted message goes.
    fn follow(&self, message: Arrived, acceptance: Acceptance, received_at: Timestamp) -> Next {
        match (acceptance, message) {
            (Acceptance::Unfinished(ticket), Arrived::Command(command)) => Next::Lane(command, ticket),
            // Only commands wait: what is refused is finished as it is accepted.
            (Acceptance::Unfinished(_), Arrived::Refused(_)) => Next::Ends(Fate::GivenBack),
            (Acceptance::Decided(finished), _) => {
                self.metrics.finished(&finished.conclusion);
                Next::Ends(Fate::Concluded(finished))
            }
            (Acceptance::Repeat(finished), _) => {
                self.metrics.repeats.inc();
                Next::Ends(Fate::Concluded(finished))
            }
            (Acceptance::Conflict, message) => Next::Ends(settle::reused(&message, received_at)),
            (Acceptance::LedgerLost, _) => Next::Ends(settle::ledger_lost()),
        }
    }

    /// Who sent it comes first, then what it says. What the worker itself sent is authorised by its ledger entry.
    fn sort(&self, delivery: &Delivery) -> Sorted {
        let message = &delivery.message;
        let user = message.user_id.as_deref();
        let (put_off, replay_of) = (delivery.is_put_off_copy(), delivery.replay_of());
        let ours = put_off || replay_of.is_some();
        if !ours && let Err(failure) = self.rules.check_sender(user) {
            return Sorted::Ends(settle::not_authorised(message, None, failure));
        }
        let command = match decode(message) {
            Decoded::Command(command) => command,
            Decoded::Unreadable(failure) => return Sorted::Ends(Fate::DeadLettered(failure)),
            Decoded::Refused(_) if ours => return Sorted::Ends(settle::ledger_lost()),
            Decoded::Refused(refused) => {
                return match self.rules.check_order(user, refused.given.action, refused.given.kf_account.as_deref()) {
                    Ok(()) => Sorted::Arrived(Arrived::Refused(Arc::new(refused)), Origin::Producer),
                    Err(failure) => Sorted::Ends(settle::not_authorised(message, Some(&refused.given), failure)),
                };
            }
        };
        let origin = match replay_of.map(|dead_id| generation_of_dead_letter(dead_id, &command.given.command_id)) {
            Some(Some(generation)) => Origin::Replay(generation),
            Some(None) => return Sorted::Ends(settle::ledger_lost()),
            None if put_off => Origin::PutOff,
            None => match self.rules.check_order(user, Some(command.action), Some(command.account.as_str())) {
                Ok(()) => Origin::Producer,
                Err(failure) => return Sorted::Ends(settle::not_authorised(message, Some(&command.given), failure)),
            },
        };
        Sorted::Arrived(Arrived::Command(Arc::new(command)), origin)
    }

    /// Takes an accepted command in hand, unless its Official Account is slow and has its share of the window already:
    /// others must not wait for it.
    fn take_in(self: &Arc<Self>, delivery: Delivery, command: Arc<Command>, ticket: Ticket, taken_at: Instant) {
        let official_account = self.accounts.get(command.account.wechat_id());
        if official_account.as_ref().is_some_and(|official_account| self.has_its_share(official_account)) {
            // It may supersede what waits in its lane.
            self.lanes.touch(&command.account.as_str().to_owned());
            let fate = self.put_off_for_its_share(&ticket);
            return self.settle_soon(delivery, fate, taken_at);
        }
        let in_hand = official_account.map(|official_account| official_account.in_hand.take(taken_at));
        self.enqueue(Job::new(delivery, command, ticket, taken_at, in_hand));
    }

    /// Whether an Official Account is slow and has its share of the window. One whose calls hang need not be waited for
    /// to be known as slow, where there are others to wait for it.
    fn has_its_share(&self, official_account: &OfficialAccount) -> bool {
        let in_hand = &official_account.in_hand;
        in_hand.commands() >= self.settings.window_share
            && (in_hand.is_older_than(self.settings.slow_after) || (in_hand.hangs() && !self.accounts.is_only_one()))
    }

    /// Puts a job into the lane of its account; where nobody works on that lane, somebody starts.
    fn enqueue(self: &Arc<Self>, job: Job) {
        let key = job.command.account.as_str().to_owned();
        if let Some(turn) = self.lanes.push(&key, job.ticket.position, job) {
            let worker = Arc::clone(self);
            self.tasks.spawn(async move { worker.work_on(turn).await });
        }
    }

    /// Carries out the commands of one account, one after the other, until there are no more.
    async fn work_on(self: Arc<Self>, turn: Turn<String, Position, Job>) {
        while let Some(job) = turn.next() {
            tokio::select! {
                () = self.carry_on(job, &turn) => {}
                () = self.aborted.cancelled() => return,
            }
        }
    }

    /// Brings one command a step further: to its end, or back into its lane since something older may have come.
    async fn carry_on(&self, mut job: Job, turn: &Turn<String, Position, Job>) {
        let position = job.ticket.position;
        let step = match AssertUnwindSafe(self.step(&mut job, turn)).catch_unwind().await {
            Ok(step) => step,
            Err(_) => self.after_panic(&mut job).await,
        };
        match step {
            Ok(Some(fate)) => self.settle(job.delivery, fate, job.taken_at).await,
            Ok(None) => turn.put_back(position, job),
            Err(error) => self.ledger_failed(job.delivery.session(), &error),
        }
    }

    /// A bug of ours, met by one command, takes no other with it: the command is tried again after a while, and given
    /// up as poison when it goes on so.
    async fn after_panic(&self, job: &mut Job) -> Result<Option<Fate>, LedgerError> {
        tracing::error!(command.id = job.command.given.command_id, "carrying out a command has panicked");
        self.ledger.panicked(job.ticket.position).await?;
        job.hold = Some(Hold::Until(Instant::now() + self.retry.initial));
        Ok(None)
    }

    /// Nothing is carried out that can't be recorded: the session ends, and with it what it has delivered.
    fn ledger_failed(&self, session: &Session, error: &LedgerError) {
        self.readiness.ledger_trouble(Some(error.to_string()));
        if !session.is_lost() {
            tracing::error!(%error, "the ledger has failed; no commands are taken until it works again");
            session.give_up("the ledger has failed");
        }
    }
}

/// What sorting a delivery came to.
enum Sorted {
    Arrived(Arrived, Origin),
    Ends(Fate),
}

/// Where an accepted message goes.
enum Next {
    Lane(Arc<Command>, Ticket),
    Ends(Fate),
}

impl Job {
    fn new(delivery: Delivery, command: Arc<Command>, ticket: Ticket, taken_at: Instant, in_hand: Option<Taken>) -> Self {
        Self {
            delivery,
            command,
            taken_at,
            hold: None,
            tries: 0,
            token_refused: false,
            trouble: ticket.trouble,
            ticket,
            recorded: None,
            existed: None,
            in_hand,
        }
    }
}
