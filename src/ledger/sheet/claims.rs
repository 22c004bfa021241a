//! Claims: who may call WeChat for an account, until when, and what becomes of calls whose end nobody tells.

use std::time::Duration;

use jiff::Timestamp;

use super::{Sheet, Terms};
use crate::ledger::order::State;
use crate::ledger::record::{AccountRecord, CommandRecord, Lease, Stored};
use crate::ledger::{Begun, Claim, CleanUp, Epoch, LedgerError, MOST_DEATHS, Obstacle, Position};
use crate::outcome::{Action, Outcome, Reason};

impl Sheet {
    /// Claims a command's account for one call to WeChat, and counts the call.
    pub fn begin(&mut self, position: Position, alone: bool) -> Result<Claim, LedgerError> {
        if let Some(obstacle) = self.obstacle(position)? {
            return Ok(Claim::Not(obstacle));
        }
        let kf_account = self.account_of(position)?;
        let command = self.command(position)?;
        let forgotten = command.state == Stored::Unfinished(State::Running);
        if command.suspect && !alone {
            return Ok(Claim::Not(Obstacle::Suspected));
        }
        if command.deaths >= MOST_DEATHS {
            let detail = "The worker died each time that it carried out this command alone. Look for the crash in its log and report it.";
            self.end(position, Outcome::Failed, Reason::Poison, detail)?;
            return Ok(Claim::Not(Obstacle::Finished(self.outcome(position)?)));
        }
        // A call that this very process began and never told the end of: its task was ended from outside.
        if forgotten {
            self.remember_lost_add(position)?;
        }
        let (epoch, lost_add_at) = self.claim(&kf_account);
        let now = self.terms.now;
        let command = self.change(position)?;
        let answer_lost_before = command.answer_lost || forgotten;
        command.state = Stored::Unfinished(State::Running);
        command.attempts += 1;
        command.begun_at = Some(now);
        command.answer_lost = answer_lost_before;
        let lost_add_ago = lost_add_at.map(|at| now.duration_since(at).try_into().unwrap_or_default());
        Ok(Claim::Begun(Begun { attempts: command.attempts, epoch, answer_lost_before, lost_add_ago }))
    }

    /// What stands in the way of a command's beginning, where something does.
    pub fn obstacle(&mut self, position: Position) -> Result<Option<Obstacle>, LedgerError> {
        let kf_account = self.account_of(position)?;
        self.supersede(&kf_account)?;
        if let Some(finished) = self.finished(position)? {
            return Ok(Some(Obstacle::Finished(finished)));
        }
        if let Some(left) = self.claimed_by_another(&kf_account) {
            return Ok(Some(Obstacle::Held(left)));
        }
        let behind = self.unfinished_of(&kf_account).any(|other| other.position < position);
        Ok(behind.then_some(Obstacle::Behind))
    }

    /// How long somebody else still has the right to call for an account.
    pub(super) fn claimed_by_another(&self, kf_account: &str) -> Option<Duration> {
        let lease = self.accounts.get(kf_account)?.lease.as_ref()?;
        let left = Duration::try_from(lease.until.duration_since(self.terms.now)).unwrap_or_default();
        (lease.holder != self.terms.holder).then_some(left)
    }

    /// The next claim on an account is ours.
    fn claim(&mut self, kf_account: &str) -> (Epoch, Option<Timestamp>) {
        let until = self.terms.now.checked_add(self.terms.lease).unwrap_or(Timestamp::MAX);
        let holder = self.terms.holder.clone();
        let account = self.change_claim(kf_account);
        account.epoch = account.epoch.next();
        account.lease = Some(Lease { holder, until });
        (account.epoch, account.lost_add_at)
    }

    /// Whether this claim is no longer the account's latest, so that somebody else may have called since.
    pub(super) fn is_lost(&self, kf_account: &str, claim: Epoch) -> bool {
        self.accounts.get(kf_account).is_none_or(|account| account.epoch != claim)
    }

    /// Gives the right to call back.
    pub(super) fn give_back(&mut self, kf_account: &str) {
        self.change_claim(kf_account).lease = None;
    }

    /// What is in flight at an orderly end is given up: nobody has died. Its claim is left to run out, since the request may
    /// still be on its way.
    pub fn release(&mut self) -> Result<(), LedgerError> {
        let ours = |account: &AccountRecord| account.lease.as_ref().is_some_and(|lease| lease.holder == self.terms.holder);
        let claimed: Vec<String> =
            self.accounts.values().filter(|account| ours(account)).map(|account| account.kf_account.clone()).collect();
        for kf_account in claimed {
            for position in self.running(&kf_account) {
                self.interrupt(position, State::Waiting)?;
            }
        }
        Ok(())
    }

    /// Where the claim of another has run out, or its process is gone, its calls have unknown outcomes, and one of them
    /// may have killed it. Should it wake up, its claim is not the latest any more.
    pub(super) fn end_lapsed_claims(&mut self) {
        let Terms { holder, now, shared, .. } = &self.terms;
        let lapsed = |lease: &Lease| lease.holder != *holder && (!shared || lease.until <= *now);
        let lapsed: Vec<String> = self
            .accounts
            .values()
            .filter(|account| account.lease.as_ref().is_some_and(lapsed))
            .map(|account| account.kf_account.clone())
            .collect();
        for kf_account in lapsed {
            for position in self.running(&kf_account) {
                // It is there, since it was just looked up.
                let _ = self.interrupt(position, State::Abandoned);
                let _ = self.change(position).map(CommandRecord::fell_with_its_worker);
            }
            let account = self.change_claim(&kf_account);
            account.epoch = account.epoch.next();
            account.lease = None;
        }
    }

    fn running(&self, kf_account: &str) -> Vec<Position> {
        let positions = self.unfinished.get(kf_account).into_iter().flatten();
        let running =
            |position: &&Position| self.commands.get(position).is_some_and(|command| command.state == Stored::Unfinished(State::Running));
        positions.filter(running).copied().collect()
    }

    /// A call whose end will not be told: it may have landed.
    pub(super) fn interrupt(&mut self, position: Position, state: State) -> Result<(), LedgerError> {
        self.remember_lost_add(position)?;
        let command = self.change(position)?;
        command.state = Stored::Unfinished(state);
        command.answer_lost = true;
        Ok(())
    }

    /// An add whose answer was lost may still land, whatever is asked next.
    pub(super) fn remember_lost_add(&mut self, position: Position) -> Result<(), LedgerError> {
        let command = self.command(position)?;
        if let (Some(Action::Add), Some(begun_at), Some(kf_account)) = (command.action, command.begun_at, command.kf_account.clone()) {
            let account = self.change_account(&kf_account);
            account.lost_add_at = account.lost_add_at.max(Some(begun_at));
        }
        Ok(())
    }

    /// Carrying out a command has panicked: that counts like the death of its worker.
    pub fn panicked(&mut self, position: Position) -> Result<(), LedgerError> {
        let kf_account = self.account_of(position)?;
        if self.command(position)?.ended.is_some() || self.claimed_by_another(&kf_account).is_some() {
            return Ok(());
        }
        if self.command(position)?.state == Stored::Unfinished(State::Running) {
            self.interrupt(position, State::Waiting)?;
            self.give_back(&kf_account);
        }
        let command = self.change(position)?;
        command.state = Stored::Unfinished(State::Waiting);
        command.fell_with_its_worker();
        Ok(())
    }

    /// Claims an account to delete it once more, where its latest command still wants it gone.
    pub fn begin_clean_up(&mut self, kf_account: &str) -> CleanUp {
        let Some(latest) = self.accounts.get(kf_account).and_then(|account| account.latest) else { return CleanUp::NotWanted };
        if latest.action == Action::Add {
            return CleanUp::NotWanted;
        }
        if let Some(left) = self.claimed_by_another(kf_account) {
            return CleanUp::Held(left);
        }
        // A delete that is still to be called sees to it.
        let to_come = self.unfinished.get(kf_account).is_some_and(|unfinished| unfinished.contains(&latest.position));
        if to_come { CleanUp::NotWanted } else { CleanUp::Begun(self.claim(kf_account).0) }
    }

    /// Gives the claim of a clean-up back.
    pub fn end_clean_up(&mut self, kf_account: &str, claim: Epoch) {
        if !self.is_lost(kf_account, claim) {
            self.give_back(kf_account);
        }
    }
}
