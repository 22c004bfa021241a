//! What is recorded of a command: that it waits, that it gave way, and its one outcome.

use super::Sheet;
use crate::event::{Conclusion, History, Identity, conclude};
use crate::ledger::order::{State, Unfinished, superseded};
use crate::ledger::record::{AccountRecord, DeadLetter, Ended, Stored};
use crate::ledger::{Ending, Epoch, Finished, LedgerError, Position, Recorded, Waiting};
use crate::outcome::{Action, Failure, Outcome, Reason};

impl Sheet {
    /// Records that a command waits, and why. Where it was called for, the claim is given back.
    pub fn wait(&mut self, position: Position, waiting: &Waiting) -> Result<Recorded, LedgerError> {
        let kf_account = self.account_of(position)?;
        let running = self.command(position)?.state == Stored::Unfinished(State::Running);
        if running && waiting.claim.is_none() {
            // Another worker calls, or this one does: put off on arrival, for its Official Account's share.
            if waiting.reason == Reason::WindowShare || self.claimed_by_another(&kf_account).is_some() {
                return Ok(Recorded { finished: None, ending: Ending::Ours });
            }
            // A call of this very process whose end could not be recorded.
            self.interrupt(position, State::Waiting)?;
            self.give_back(&kf_account);
        }
        let recorded = self.recorded(position, &kf_account, waiting.claim)?;
        if recorded.ending != Ending::Ours || recorded.finished.is_some() {
            return Ok(recorded);
        }
        if waiting.answer_lost {
            self.remember_lost_add(position)?;
        }
        let now = self.terms.now;
        let command = self.change(position)?;
        // Only an attempt that has ended clears the suspicion that it kills.
        if running {
            command.suspect = false;
            command.deaths = 0;
        }
        if !waiting.called && waiting.claim.is_some() {
            command.attempts = command.attempts.saturating_sub(1);
        }
        command.state = Stored::Unfinished(State::Waiting);
        command.answer_lost |= waiting.answer_lost;
        if command.trouble.is_none_or(|(former, _)| waiting.reason.replaces(former)) {
            command.trouble = Some((waiting.reason, now));
        }
        if let Some(answer) = &waiting.answer {
            command.answer = Some(answer.clone());
        }
        if waiting.claim.is_some() {
            self.give_back(&kf_account);
        }
        self.supersede(&kf_account)?;
        Ok(Recorded { finished: self.finished(position)?, ..recorded })
    }

    /// Writes an outcome where there is none and the claim that it was reached with still stands.
    pub fn finish(
        &mut self,
        position: Position,
        claim: Option<Epoch>,
        conclusion: &Conclusion,
        dead_letter: bool,
    ) -> Result<Recorded, LedgerError> {
        let kf_account = self.account_of(position)?;
        let recorded = self.recorded(position, &kf_account, claim)?;
        if recorded.ending != Ending::Ours || recorded.finished.is_some() {
            return Ok(recorded);
        }
        self.write_outcome(position, conclusion, dead_letter)?;
        if claim.is_some() {
            self.give_back(&kf_account);
        }
        Ok(Recorded { finished: self.finished(position)?, ..recorded })
    }

    /// Where a command stands for whoever has something to record about it.
    fn recorded(&self, position: Position, kf_account: &str, claim: Option<Epoch>) -> Result<Recorded, LedgerError> {
        let command = self.command(position)?;
        let running = command.state == Stored::Unfinished(State::Running);
        let ending = match claim {
            Some(claim) if self.is_lost(kf_account, claim) => {
                let may_be_back =
                    command.action == Some(Action::Add) && self.accounts.get(kf_account).is_some_and(AccountRecord::is_to_be_deleted);
                Ending::ClaimLost { may_be_back }
            }
            None if running && self.claimed_by_another(kf_account).is_some() => Ending::ClaimLost { may_be_back: false },
            _ => Ending::Ours,
        };
        Ok(Recorded { finished: command.finished(), ending })
    }

    /// Writes an outcome where there is none.
    pub(super) fn write_outcome(&mut self, position: Position, conclusion: &Conclusion, dead_letter: bool) -> Result<(), LedgerError> {
        let command = self.change(position)?;
        if command.ended.is_some() {
            return Ok(());
        }
        command.state = Stored::Finished;
        command.given = None;
        command.ended = Some(Ended {
            finished_at: conclusion.finished_at,
            status: conclusion.status,
            reason: conclusion.reason,
            detail: conclusion.detail.clone(),
            data: conclusion.data.clone(),
            dead_letter: dead_letter.then_some(DeadLetter::Owed),
        });
        if let Some(unfinished) = command.kf_account.clone().and_then(|kf_account| self.unfinished.get_mut(&kf_account)) {
            unfinished.remove(&position);
        }
        self.ended.push(position);
        Ok(())
    }

    /// The dead letter that is owed for a command is in its queue.
    pub fn dead_lettered(&mut self, position: Position) -> Result<(), LedgerError> {
        if let Some(ended) = &mut self.change(position)?.ended {
            ended.dead_letter = Some(DeadLetter::Confirmed);
        }
        Ok(())
    }

    /// Applies the rule of order to the unfinished commands of an account.
    pub(super) fn supersede(&mut self, kf_account: &str) -> Result<(), LedgerError> {
        let unfinished: Vec<Unfinished> = self
            .unfinished_of(kf_account)
            .filter_map(|command| match (command.state, command.action) {
                (Stored::Unfinished(state), Some(action)) => Some(Unfinished { position: command.position, action, state }),
                _ => None,
            })
            .collect();
        for position in superseded(&unfinished) {
            self.give_way(position)?;
        }
        Ok(())
    }

    /// Ends an unfinished command since a newer one goes first.
    pub(super) fn give_way(&mut self, position: Position) -> Result<(), LedgerError> {
        let detail = "A newer command for this account was accepted before this one could be finished.";
        self.end(position, Outcome::Superseded, Reason::NewerCommand, detail)
    }

    /// Ends an unfinished command by the ledger's own judgement.
    pub(super) fn end(
        &mut self,
        position: Position,
        outcome: fn(Failure) -> Outcome,
        reason: Reason,
        detail: &str,
    ) -> Result<(), LedgerError> {
        let command = self.command(position)?;
        let outcome = outcome(Failure { reason, answer: command.answer.clone(), detail: detail.to_owned() });
        let history = History { attempts: command.attempts, received_at: command.received_at, finished_at: self.terms.now };
        let conclusion = conclude(&command.given()?, Identity::Generation(command.generation), &outcome, history);
        self.write_outcome(position, &conclusion, matches!(outcome, Outcome::Failed(_)))
    }

    /// The outcome of a command, where it has one.
    pub fn finished(&self, position: Position) -> Result<Option<Finished>, LedgerError> {
        Ok(self.command(position)?.finished())
    }

    pub(super) fn outcome(&self, position: Position) -> Result<Finished, LedgerError> {
        self.finished(position)?.ok_or(LedgerError::Unreadable("a finished command without its outcome"))
    }
}
