//! From deliveries to lanes: sorted, accepted in the ledger, and taken in hand or put off.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::settle::{self, Fate};
use super::{Job, Worker};
use crate::accounts::OfficialAccount;
use crate::broker::Delivery;
use crate::command::{Command, Decoded, Given, KfAccount, decode};
use crate::event::{generation_of_dead_letter, now, since};
use crate::ledger::{Acceptance, Arrival, Arrived, LedgerError, Origin, Ticket};
use crate::outcome::Action;

/// What sorting a delivery came to.
enum Sorted {
    Arrived(Arrived, Origin),
    Ends(Fate),
}

/// From whom a message comes, as far as can be told before it is read.
enum Sender<'a> {
    Producer,
    /// A worker of this ledger: what it put off, or a dead letter of its own, put back. The ledger answers for these.
    Ours(Option<&'a str>),
    /// It says that it is such a copy, and this ledger knows nothing of it.
    Stranger,
}

/// Where an accepted message goes.
enum Next {
    Lane(Arc<Command>, Ticket),
    Ends(Fate),
}

impl Worker {
    /// Sorts deliveries, accepts what can be accepted in one transaction, and sends each on its way.
    pub(super) async fn take(self: &Arc<Self>, deliveries: Vec<Delivery>) -> Result<(), LedgerError> {
        let received_at = now();
        let taken_at = Instant::now();
        let mut arrived = Vec::with_capacity(deliveries.len());
        let mut arrivals = Vec::with_capacity(deliveries.len());
        for mut delivery in deliveries {
            self.metrics.commands_received.inc();
            self.metrics.commands_redelivered.inc_by(delivery.redelivered.into());
            if let Some(sent_at) = first_sent_at(&delivery) {
                self.metrics.waited_in_queue(since(sent_at));
            }
            match self.sort(&mut delivery) {
                Sorted::Arrived(message, origin) => {
                    let Given { command_id, kf_account, action, .. } = settle::given(&message);
                    let kf_account = kf_account.as_deref().filter(|text| KfAccount::is_one(text));
                    delivery.span.command(command_id, kf_account, action.map(Action::as_str));
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
            (Acceptance::Decided(finished), _) => Next::Ends(Fate::Concluded(finished)),
            (Acceptance::Repeat(finished), _) => {
                self.metrics.repeats.inc();
                Next::Ends(Fate::Repeated(finished))
            }
            (Acceptance::Conflict, message) => Next::Ends(settle::reused(&message, received_at)),
            (Acceptance::LedgerLost, _) => Next::Ends(settle::ledger_lost()),
        }
    }

    /// Who sent it comes first, then what it says.
    fn sort(&self, delivery: &mut Delivery) -> Sorted {
        let ours = match self.sender(delivery) {
            Sender::Stranger => return Sorted::Ends(settle::ledger_lost()),
            Sender::Ours(replay_of) => Some(replay_of.map(str::to_owned)),
            Sender::Producer => None,
        };
        if ours.is_none()
            && let Err(failure) = self.rules.check_sender(delivery.message.user_id.as_deref())
        {
            return Sorted::Ends(settle::not_authorised(&delivery.message, None, failure));
        }
        // A stranger's trace is not gone on with, as it may stand in the body.
        delivery.begin(&self.traces);
        let message = &delivery.message;
        let user = message.user_id.as_deref();
        let command = match decode(message) {
            Decoded::Command(command) => command,
            Decoded::Unreadable(failure) => return Sorted::Ends(Fate::DeadLettered(failure)),
            Decoded::Refused(_) if ours.is_some() => return Sorted::Ends(settle::ledger_lost()),
            Decoded::Refused(refused) => {
                return match self.rules.check_order(user, refused.given.action, refused.given.kf_account.as_deref()) {
                    Ok(()) => Sorted::Arrived(Arrived::Refused(Arc::new(refused)), Origin::Producer),
                    Err(failure) => Sorted::Ends(settle::not_authorised(message, Some(&refused.given), failure)),
                };
            }
        };
        let origin = match ours {
            Some(Some(dead_id)) => match generation_of_dead_letter(&dead_id, &command.given.command_id) {
                Some(generation) => Origin::Replay(generation),
                None => return Sorted::Ends(settle::ledger_lost()),
            },
            Some(None) => Origin::PutOff,
            None => match self.rules.check_order(user, Some(command.action), Some(command.account.as_str())) {
                Ok(()) => Origin::Producer,
                Err(failure) => return Sorted::Ends(settle::not_authorised(message, Some(&command.given), failure)),
            },
        };
        Sorted::Arrived(Arrived::Command(Arc::new(command)), origin)
    }

    /// From whom a message comes. Anybody can set a header: it counts where it holds what only this ledger's workers know.
    fn sender<'a>(&self, delivery: &'a Delivery) -> Sender<'a> {
        match (delivery.replay_of(), delivery.put_off_by()) {
            (Some((dead_id, proof)), _) if proof == self.ledger.proof(dead_id) => Sender::Ours(Some(dead_id)),
            (None, Some(ledger_id)) if ledger_id == self.ledger.id() => Sender::Ours(None),
            (None, None) => Sender::Producer,
            _ => Sender::Stranger,
        }
    }

    /// Takes an accepted command in hand, unless its Official Account is slow and has its share of the window already:
    /// others must not wait for it.
    fn take_in(self: &Arc<Self>, delivery: Delivery, command: Arc<Command>, ticket: Ticket, taken_at: Instant) {
        let official_account = self.accounts.get(command.account.wechat_id());
        if official_account.as_ref().is_some_and(|official_account| self.has_its_share(official_account)) {
            // It may supersede what waits in its lane.
            self.lanes.touch(&command.account.as_str().to_owned());
            let fate = self.put_off_for_its_share(&command, &ticket);
            return self.settle_soon(delivery, fate, taken_at);
        }
        let in_hand = official_account.map(|official_account| official_account.in_hand.take(taken_at));
        self.enqueue(Box::new(Job::new(delivery, command, ticket, taken_at, in_hand)));
    }

    /// Whether an Official Account is slow and has its share of the window. One whose calls hang need not be waited for
    /// to be known as slow, where there are others to wait for it.
    fn has_its_share(&self, official_account: &OfficialAccount) -> bool {
        let in_hand = &official_account.in_hand;
        in_hand.commands() >= self.settings.window_share
            && (in_hand.is_older_than(self.settings.slow_after) || (in_hand.hangs() && !self.accounts.is_only_one()))
    }
}

/// When its producer sent what is taken for the first time, where the message says so.
fn first_sent_at(delivery: &Delivery) -> Option<Timestamp> {
    let comes_again = delivery.redelivered || delivery.put_off_by().is_some() || delivery.replay_of().is_some();
    let seconds = delivery.message.timestamp.filter(|_| !comes_again)?;
    Timestamp::from_second(seconds.try_into().ok()?).ok()
}
