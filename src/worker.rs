//! The story: take deliveries, carry each command to its one outcome, and be done with it in one place.
//!
//! delivery → publisher allowed? → decode → accept in the ledger → lane of its account → claim → call with retry →
//! record → publish, confirmed → acknowledge. A delivery that is not acknowledged comes again: that is the outbox.

mod accept;
mod attempt;
mod claim;
mod failed;
mod permit;
mod settle;
mod verify;
mod wait;
mod watch;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::{OfficialAccounts, Taken};
use crate::authorisation::Rules;
use crate::broker::{Deliveries, Delivery, Session};
use crate::calls::Calls;
use crate::command::Command;
use crate::event::since;
use crate::lanes::{Lanes, Turn};
use crate::ledger::{Ledger, LedgerError, Position, Ticket};
use crate::metrics::Metrics;
use crate::outcome::Reason;
use crate::readiness::Readiness;
use crate::retry;
use crate::traces::{self, Traces};
use crate::wechat::WeChat;
use claim::Claimed;
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
    pub traces: Traces,
    pub accounts: Arc<OfficialAccounts>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// Commands by account: one at a time, lowest position first.
    pub lanes: Arc<Lanes<String, Position, Box<Job>>>,
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
    /// The right to call WeChat for its account, from the beginning of an attempt until its end is recorded.
    claim: Option<Claimed>,
    /// Failed attempts in this process, token fetches included.
    tries: u32,
    /// The token was refused in the attempt just before.
    token_refused: bool,
    /// Another command, or another worker, stood in its way when it was to begin.
    hindered: bool,
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
/// How long leaving the queues may take; a broker that does not answer must not hold up the shutdown.
const LEAVING_QUEUES: Duration = Duration::from_secs(2);
/// Deliveries accepted in one transaction at most.
const BATCH: usize = 256;

impl Worker {
    /// Takes deliveries until the session is lost or the worker shuts down.
    pub async fn serve(self: &Arc<Self>, session: &Session, mut deliveries: Deliveries) {
        loop {
            self.readiness.round();
            let taken = tokio::select! {
                taken = deliveries.next(BATCH) => taken,
                () = self.draining.cancelled() => return self.take_rest(session, deliveries).await,
                () = tokio::time::sleep(ROUND) => continue,
            };
            let Some(taken) = taken else { return };
            if let Err(error) = self.take(taken).await {
                self.ledger_failed(session, &error);
                return;
            }
        }
    }

    /// What has come by the time that the worker leaves is accepted as well: the next worker in line gets what follows, and
    /// must not be the first to accept. None of it is begun.
    async fn take_rest(self: &Arc<Self>, session: &Session, mut deliveries: Deliveries) {
        let rest = async {
            while let Some(taken) = deliveries.next(BATCH).await {
                if let Err(error) = self.take(taken).await {
                    self.ledger_failed(session, &error);
                }
            }
        };
        if tokio::time::timeout(LEAVING_QUEUES, async { tokio::join!(session.stop_consuming(), rest) }).await.is_err() {
            tracing::warn!("the broker was slow to take its consumers back; what it sent last comes back at the next start");
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

    /// Puts a job into the lane of its account; where nobody works on that lane, somebody starts.
    fn enqueue(self: &Arc<Self>, job: Box<Job>) {
        let key = job.command.account.as_str().to_owned();
        if let Some(turn) = self.lanes.push(&key, job.ticket.position, job) {
            let worker = Arc::clone(self);
            self.tasks.spawn(async move { worker.work_on(turn).await });
        }
    }

    /// Carries out the commands of one account, one after the other, until there are no more.
    async fn work_on(self: Arc<Self>, turn: Turn<String, Position, Box<Job>>) {
        while let Some(job) = turn.next() {
            let trace = job.delivery.span.context().cloned();
            let carried_on = pin!(self.carry_on(job, &turn));
            tokio::select! {
                () = traces::within(trace, carried_on) => {}
                () = self.aborted.cancelled() => return,
            }
        }
    }

    /// Brings one command a step further: to its end, or back into its lane since something older may have come.
    async fn carry_on(&self, mut job: Box<Job>, turn: &Turn<String, Position, Box<Job>>) {
        let position = job.ticket.position;
        let step = match AssertUnwindSafe(self.step(&mut job, turn)).catch_unwind().await {
            Ok(step) => step,
            Err(_) => Box::pin(self.after_panic(&mut job)).await,
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
        job.claim = None;
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

impl Job {
    /// How long it has been waiting for this reason.
    fn waited_for(&self, reason: Reason) -> Duration {
        self.trouble.filter(|(trouble, _)| *trouble == reason).map_or(Duration::ZERO, |(_, at)| since(at))
    }

    fn new(delivery: Delivery, command: Arc<Command>, ticket: Ticket, taken_at: Instant, in_hand: Option<Taken>) -> Self {
        Self {
            delivery,
            command,
            taken_at,
            hold: None,
            claim: None,
            hindered: false,
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
