//! The one place where a delivery ends: everything that is owed for it is published and confirmed, then it is acknowledged.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Worker;
use crate::broker::{Delivery, PublishError};
use crate::command::{Command, Given, KfAccount, Message, TraceContext};
use crate::event::{Brief, Conclusion, History, Identity, conclude, dead_letter_id, now};
use crate::ledger::{Arrived, Finished, LedgerError, Position, Waiting};
use crate::metrics::observe;
use crate::outcome::{Action, Failure, Outcome, Reason, Status};

/// What becomes of a delivery.
pub enum Fate {
    /// Its command has an outcome in the ledger: it is published, a dead letter too where one is owed.
    Concluded(Finished),
    /// The same, where the ledger had the outcome before this delivery came.
    Repeated(Finished),
    /// It is answered, but nothing is remembered: its id belongs to another command.
    Answered(Box<Conclusion>),
    /// Its sender may not order it: a dead letter, and an answer to the sender alone.
    NotAuthorised(Failure, Option<Box<Conclusion>>),
    /// Nobody can be answered: a dead letter.
    DeadLettered(Failure),
    /// It waits for longer than a delivery is held: a copy goes through a deferred queue.
    PutOff(PutOff),
    /// It is not ours any more, or will not be for long: it is delivered again.
    GivenBack,
}

/// How a delivery is put off.
pub struct PutOff {
    pub command: Arc<Command>,
    pub position: Position,
    /// The deferred queue, by the delay as configured.
    pub delay: String,
    pub waiting: Waiting,
    /// It was put off for the same reason before.
    pub again: bool,
}

/// Why a delivery could not be settled. It comes again.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("an event could not be written: {0}")]
    Event(#[from] serde_json::Error),
}

impl Worker {
    /// Settles a delivery that needs no lane.
    pub(super) fn settle_soon(self: &Arc<Self>, delivery: Delivery, fate: Fate, taken_at: Instant) {
        let worker = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = worker.settle(delivery, fate, taken_at) => {}
                () = worker.aborted.cancelled() => {}
            }
        });
    }

    /// Publishes what is owed and acknowledges.
    pub(super) async fn settle(&self, delivery: Delivery, fate: Fate, taken_at: Instant) {
        if matches!(fate, Fate::GivenBack) || delivery.session().is_lost() {
            return;
        }
        let finished = matches!(fate, Fate::Concluded(_));
        match self.publish_owed(&delivery, fate).await {
            Ok(()) => {
                delivery.acknowledge();
                observe(&self.metrics.processing, taken_at.elapsed());
                if finished {
                    self.metrics.last_finished.set(Timestamp::now().as_second());
                }
            }
            Err(SettleError::Ledger(error)) => self.ledger_failed(delivery.session(), &error),
            Err(error) => delivery.session().give_up(error.to_string()),
        }
    }

    async fn publish_owed(&self, delivery: &Delivery, fate: Fate) -> Result<(), SettleError> {
        match fate {
            Fate::Concluded(finished) => self.publish_outcome(delivery, &finished, false).await,
            Fate::Repeated(finished) => self.publish_outcome(delivery, &finished, true).await,
            Fate::Answered(conclusion) => {
                delivery.publish(&conclusion.event()?).await?;
                let Conclusion { action, kf_account, status, reason, .. } = &*conclusion;
                self.metrics.finished(*action, kf_account.as_deref(), *status, *reason);
                tell_outcome(delivery, &conclusion, false);
                Ok(())
            }
            Fate::NotAuthorised(failure, answer) => {
                Box::pin(self.dead_letter(delivery, &random_id(), &failure)).await?;
                if let Some(conclusion) = answer
                    && delivery.reply(&conclusion.event()?).await?
                {
                    tell_outcome(delivery, &conclusion, false);
                }
                Ok(())
            }
            Fate::DeadLettered(failure) => Box::pin(self.dead_letter(delivery, &random_id(), &failure)).await,
            Fate::PutOff(how) => Box::pin(self.put_off(delivery, how)).await,
            Fate::GivenBack => Ok(()),
        }
    }

    async fn publish_outcome(&self, delivery: &Delivery, finished: &Finished, repeat: bool) -> Result<(), SettleError> {
        let conclusion = &finished.conclusion;
        if finished.dead_letter_owed {
            let generation = match conclusion.identity {
                Identity::Generation(generation) => generation,
                Identity::OtherContent(_) | Identity::NotAuthorised(_) => 0,
            };
            let failure = Failure::new(conclusion.reason.unwrap_or(Reason::WorkerBug), conclusion.detail.clone());
            let dead_id = dead_letter_id(&conclusion.command_id, generation);
            Box::pin(self.dead_letter(delivery, &dead_id, &failure)).await?;
            Box::pin(self.ledger.dead_lettered(finished.position)).await?;
        }
        delivery.publish(&conclusion.event()?).await?;
        tell_outcome(delivery, conclusion, repeat);
        Ok(())
    }

    async fn dead_letter(&self, delivery: &Delivery, dead_id: &str, failure: &Failure) -> Result<(), SettleError> {
        delivery.dead_letter(dead_id, &self.ledger.proof(dead_id), failure).await?;
        self.metrics.dead_letter(failure.reason);
        delivery.span.reason(failure.reason.as_str());
        tracing::warn!(dead.id = dead_id, reason = %failure.reason, "a copy went to the dead letters");
        Ok(())
    }

    /// The copy is confirmed, then the ledger is told, then the original is acknowledged. Where a newer command has
    /// superseded this one meanwhile, that is told at once, and the copy will find it told.
    async fn put_off(&self, delivery: &Delivery, how: PutOff) -> Result<(), SettleError> {
        let PutOff { command, position, delay, waiting, again } = how;
        let reason = waiting.reason;
        delivery.put_off(&delay, self.ledger.id()).await?;
        let recorded = self.ledger.wait(position, waiting).await?;
        self.see_to_lost_claim(&command, recorded.ending).await;
        self.metrics.put_off(reason);
        delivery.span.reason(reason.as_str());
        // A backlog comes round again and again: that is counted, and told the first time.
        if again {
            tracing::debug!(position = position.0, %reason, delay, "a command was put off again");
        } else {
            tracing::info!(position = position.0, %reason, delay, "a command was put off");
        }
        match recorded.finished {
            Some(finished) => self.publish_outcome(delivery, &finished, false).await,
            None => Ok(()),
        }
    }
}

/// One line for each outcome that was published: ids and words, nobody's name. What a refused command calls its account may
/// be any text, and is told only where it is an account.
fn tell_outcome(delivery: &Delivery, conclusion: &Conclusion, repeat: bool) {
    let Conclusion { command_id, kf_account, status, .. } = conclusion;
    let action = conclusion.action.map(Action::as_str);
    let reason = conclusion.reason.map(Reason::as_str);
    if tracing::enabled!(tracing::Level::INFO) {
        let Brief { attempts, effect } = conclusion.told_briefly();
        let kf_account = kf_account.as_deref().filter(|text| KfAccount::is_one(text));
        let trace_id = delivery.span.context().map(TraceContext::trace_id);
        tracing::info!(command.id = command_id, kf_account, action, %status, effect, reason, attempts, repeat, trace_id, "outcome");
    }
    delivery.span.outcome(status.as_str(), reason, *status == Status::Failed);
}

/// What the producer gave.
pub fn given(message: &Arrived) -> &Given {
    match message {
        Arrived::Command(command) => &command.given,
        Arrived::Refused(refused) => &refused.given,
    }
}

/// The answer to an id that was used before with other content: an event of its own, the first outcome stands.
pub fn reused(message: &Arrived, received_at: Timestamp) -> Fate {
    let content = match message {
        Arrived::Command(command) => command.content,
        Arrived::Refused(refused) => refused.content,
    };
    let detail = "This command id was used before with other content; the first command stands. Send this one under an id of its own.";
    let outcome = Outcome::Rejected(Failure::new(Reason::CommandIdReused, detail));
    Fate::Answered(Box::new(answer(given(message), Identity::OtherContent(content), &outcome, received_at)))
}

/// A sender without the right to order this is answered at its `reply_to` alone, where it named itself at all.
pub fn not_authorised(message: &Message, read: Option<&Given>, failure: Failure) -> Fate {
    let outcome = Outcome::Rejected(failure.clone());
    let given = read.cloned().or_else(|| message.id_beside().map(Given::only_id));
    let answer = given.map(|given| Box::new(answer(&given, Identity::NotAuthorised(message.fingerprint()), &outcome, now())));
    Fate::NotAuthorised(failure, answer)
}

/// A put-off copy, or a replay, that this ledger does not know: nobody can tell what came after it.
pub fn ledger_lost() -> Fate {
    let detail = "This worker's ledger does not know the command (any more), so it is not known what came after it. See what the account should be, then send a new command.";
    Fate::DeadLettered(Failure::new(Reason::LedgerLost, detail))
}

fn answer(given: &Given, identity: Identity, outcome: &Outcome, received_at: Timestamp) -> Conclusion {
    conclude(given, identity, outcome, History { attempts: 0, received_at, finished_at: now() })
}

/// The id of a dead letter that belongs to no known command.
fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
