//! What the ledger decides: pure, on the records that a transaction has loaded, the same for every database.
//!
//! A database loads all that the requests of a transaction are about, and holds it; the requests are decided here, one
//! after the other; then what has changed is written and committed. So there is one judge, and a transaction costs two
//! round trips however many requests share it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::order::{State, Unfinished, superseded};
use super::record::{AccountRecord, CommandRecord, DeadLetter, Ended, Holder, Latest, Lease, Stored};
use super::{
    Acceptance, Arrival, Arrived, Begun, Claim, CleanUp, Ending, Epoch, Finished, LedgerError, MOST_DEATHS, Obstacle, Origin, Position,
    Recorded, Ticket, Waiting,
};
use crate::command::{Command, Content, Given, Refused};
use crate::event::{Conclusion, History, Identity, conclude};
use crate::outcome::{Action, Failure, Outcome, Reason};

/// What a sheet has to hold for some requests to be decided: these commands, these accounts and those of these commands,
/// and everything unfinished of all of them.
#[derive(Debug, Default)]
pub struct Keys {
    pub command_ids: BTreeSet<String>,
    pub kf_accounts: BTreeSet<String>,
    pub positions: BTreeSet<Position>,
    /// All accounts that this process has claimed.
    pub claimed: bool,
    /// So many commands may be new.
    pub arrivals: usize,
}

/// By whom, when and by which times decisions are made.
#[derive(Debug, Clone)]
pub struct Terms {
    /// This process.
    pub holder: Holder,
    /// The present, by the ledger's clock.
    pub now: Timestamp,
    /// How long a claim lasts.
    pub lease: Duration,
    /// An unfinished command whose message was not seen for this long holds nobody up.
    pub patience: Duration,
    /// There may be other processes with claims that hold. Where not, those of others are over.
    pub shared: bool,
    /// Places for new commands, in their order.
    pub free_positions: VecDeque<Position>,
}

/// The loaded records, and which of them have changed.
pub struct Sheet {
    terms: Terms,
    commands: HashMap<Position, CommandRecord>,
    by_id: HashMap<String, Position>,
    accounts: HashMap<String, AccountRecord>,
    unfinished: HashMap<String, BTreeSet<Position>>,
    changed_commands: BTreeSet<Position>,
    changed_accounts: BTreeSet<String>,
}

impl Sheet {
    pub fn new(terms: Terms, commands: impl IntoIterator<Item = CommandRecord>, accounts: impl IntoIterator<Item = AccountRecord>) -> Self {
        let mut sheet = Self {
            terms,
            commands: HashMap::new(),
            by_id: HashMap::new(),
            accounts: accounts.into_iter().map(|account| (account.kf_account.clone(), account)).collect(),
            unfinished: HashMap::new(),
            changed_commands: BTreeSet::new(),
            changed_accounts: BTreeSet::new(),
        };
        for command in commands {
            sheet.add(command);
        }
        sheet.end_lapsed_claims();
        sheet
    }

    /// The commands that have changed, oldest first.
    pub fn changed_commands(&self) -> impl Iterator<Item = &CommandRecord> {
        self.changed_commands.iter().filter_map(|position| self.commands.get(position))
    }

    /// The accounts that have changed, in the order of their names.
    pub fn changed_accounts(&self) -> impl Iterator<Item = &AccountRecord> {
        self.changed_accounts.iter().filter_map(|name| self.accounts.get(name))
    }

    /// Gives an arrival its place, or recognises it.
    pub fn accept(&mut self, arrival: &Arrival) -> Result<Acceptance, LedgerError> {
        let (given, content) = match &arrival.message {
            Arrived::Command(command) => (&command.given, command.content),
            Arrived::Refused(refused) => (&refused.given, refused.content),
        };
        let known = self.by_id.get(&given.command_id).and_then(|position| self.commands.get(position));
        match (known, arrival.origin, &arrival.message) {
            (Some(known), Origin::Producer, _) if known.content != content => Ok(Acceptance::Conflict),
            (Some(known), Origin::PutOff | Origin::Replay(_), _) if known.content != content => Ok(Acceptance::LedgerLost),
            (Some(known), Origin::Replay(generation), Arrived::Command(command)) if known.has_failed_in(generation) => {
                self.accept_replay(known.position, command)
            }
            (Some(known), _, _) => self.accept_again(known.position),
            (None, Origin::PutOff | Origin::Replay(_), _) => Ok(Acceptance::LedgerLost),
            (None, Origin::Producer, Arrived::Command(command)) => self.accept_new(command, arrival.received_at),
            (None, Origin::Producer, Arrived::Refused(refused)) => self.accept_refused(refused, arrival.received_at),
        }
    }

    /// A repeat: it keeps its position, and its return may be what others waited to see.
    fn accept_again(&mut self, position: Position) -> Result<Acceptance, LedgerError> {
        let now = self.terms.now;
        if self.command(position)?.ended.is_none() {
            let command = self.change(position)?;
            command.seen_at = now;
            if let Some(kf_account) = command.kf_account.clone() {
                self.supersede(&kf_account)?;
            }
        }
        self.acceptance(position)
    }

    fn accept_new(&mut self, command: &Command, received_at: Timestamp) -> Result<Acceptance, LedgerError> {
        let kf_account = command.account.as_str();
        let new = New { given: &command.given, content: command.content, received_at, dead_letter: false };
        if let Some(outcome) = self.accounts.get(kf_account).and_then(|account| decide_on_arrival(command, account)) {
            return self.insert_finished(&new, &outcome);
        }
        let position = self.insert(&new)?;
        self.raise(command, position, received_at);
        self.supersede(kf_account)?;
        self.acceptance(position)
    }

    /// The next generation of a failed command, in its first position: it has given way where a newer one was accepted.
    fn accept_replay(&mut self, position: Position, command: &Command) -> Result<Acceptance, LedgerError> {
        let now = self.terms.now;
        let given = as_json(&command.given)?;
        let failed = self.change(position)?;
        *failed = CommandRecord {
            state: Stored::Unfinished(State::Accepted),
            generation: failed.generation + 1,
            attempts_before: failed.attempts,
            given: Some(given),
            age_from: now,
            seen_at: now,
            suspect: false,
            deaths: 0,
            trouble: None,
            answer: None,
            ended: None,
            ..failed.clone()
        };
        let kf_account = command.account.as_str();
        self.unfinished.entry(kf_account.to_owned()).or_default().insert(position);
        let latest = self.accounts.get(kf_account).and_then(|account| account.latest);
        if latest.is_some_and(|latest| latest.position > position) {
            self.give_way(position)?;
            return Ok(Acceptance::Decided(self.outcome(position)?));
        }
        self.acceptance(position)
    }

    fn accept_refused(&mut self, refused: &Refused, received_at: Timestamp) -> Result<Acceptance, LedgerError> {
        let new = New { given: &refused.given, content: refused.content, received_at, dead_letter: refused.dead_letter };
        self.insert_finished(&new, &Outcome::Rejected(refused.failure.clone()))
    }

    fn insert_finished(&mut self, new: &New<'_>, outcome: &Outcome) -> Result<Acceptance, LedgerError> {
        let position = self.insert(new)?;
        let history = History { attempts: 0, received_at: new.received_at, finished_at: self.terms.now };
        let conclusion = conclude(new.given, Identity::Generation(0), outcome, history);
        self.write_outcome(position, &conclusion, new.dead_letter)?;
        Ok(Acceptance::Decided(self.outcome(position)?))
    }

    fn insert(&mut self, new: &New<'_>) -> Result<Position, LedgerError> {
        let position = self.terms.free_positions.pop_front().ok_or(LedgerError::Unreadable("no place for a new command"))?;
        self.add(CommandRecord {
            position,
            command_id: new.given.command_id.clone(),
            content: new.content,
            action: new.given.action,
            kf_account: new.given.kf_account.clone(),
            given: Some(as_json(new.given)?),
            state: Stored::Unfinished(State::Accepted),
            generation: 0,
            attempts: 0,
            attempts_before: 0,
            begun_at: None,
            answer_lost: false,
            suspect: false,
            deaths: 0,
            trouble: None,
            answer: None,
            received_at: new.received_at,
            age_from: new.received_at,
            seen_at: self.terms.now,
            ended: None,
        });
        self.changed_commands.insert(position);
        Ok(position)
    }

    /// Acceptance raises what is known of the account, for good.
    fn raise(&mut self, command: &Command, position: Position, received_at: Timestamp) {
        // The producer's own time where it gave one: the message may have waited in the queue, its successor beside it.
        let sent_at = command.sent_at.and_then(|sent_at| sent_at.instant()).unwrap_or(received_at);
        // Within what every database can hold.
        let sent_at = sent_at.clamp(Timestamp::UNIX_EPOCH, received_at.max(Timestamp::UNIX_EPOCH));
        let account = self.change_account(command.account.as_str());
        account.latest = Some(Latest { action: command.action, at: sent_at, position });
        account.revision = account.revision.max(command.given.revision);
        if command.action == Action::Delete {
            account.last_delete_at = account.last_delete_at.max(Some(sent_at));
        }
    }

    /// Applies the rule of order to the unfinished commands of an account.
    fn supersede(&mut self, kf_account: &str) -> Result<(), LedgerError> {
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

    /// The unfinished commands of an account whose messages are still about, oldest first.
    fn unfinished_of(&self, kf_account: &str) -> impl Iterator<Item = &CommandRecord> {
        let seen_since = self.terms.now.checked_sub(self.terms.patience).unwrap_or(Timestamp::MIN);
        let positions = self.unfinished.get(kf_account).into_iter().flatten();
        positions.filter_map(|position| self.commands.get(position)).filter(move |command| command.seen_at >= seen_since)
    }

    /// Ends an unfinished command since a newer one goes first.
    fn give_way(&mut self, position: Position) -> Result<(), LedgerError> {
        let detail = "A newer command for this account was accepted before this one could be finished.";
        self.end(position, Outcome::Superseded, Reason::NewerCommand, detail)
    }

    /// Ends an unfinished command by the ledger's own judgement.
    fn end(&mut self, position: Position, outcome: fn(Failure) -> Outcome, reason: Reason, detail: &str) -> Result<(), LedgerError> {
        let command = self.command(position)?;
        let outcome = outcome(Failure { reason, answer: command.answer.clone(), detail: detail.to_owned() });
        let history = History { attempts: command.attempts, received_at: command.received_at, finished_at: self.terms.now };
        let conclusion = conclude(&command.given()?, Identity::Generation(command.generation), &outcome, history);
        self.write_outcome(position, &conclusion, matches!(outcome, Outcome::Failed(_)))
    }

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
    fn claimed_by_another(&self, kf_account: &str) -> Option<Duration> {
        let lease = self.accounts.get(kf_account)?.lease.as_ref()?;
        let left = Duration::try_from(lease.until.duration_since(self.terms.now)).unwrap_or_default();
        (lease.holder != self.terms.holder).then_some(left)
    }

    /// The next claim on an account is ours.
    fn claim(&mut self, kf_account: &str) -> (Epoch, Option<Timestamp>) {
        let until = self.terms.now.checked_add(self.terms.lease).unwrap_or(Timestamp::MAX);
        let holder = self.terms.holder.clone();
        let account = self.change_account(kf_account);
        account.epoch = account.epoch.next();
        account.lease = Some(Lease { holder, until });
        (account.epoch, account.lost_add_at)
    }

    /// Whether this claim is no longer the account's latest, so that somebody else may have called since.
    fn is_lost(&self, kf_account: &str, claim: Epoch) -> bool {
        self.accounts.get(kf_account).is_none_or(|account| account.epoch != claim)
    }

    /// Gives the right to call back.
    fn give_back(&mut self, kf_account: &str) {
        self.change_account(kf_account).lease = None;
    }

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
    fn end_lapsed_claims(&mut self) {
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
            let account = self.change_account(&kf_account);
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
    fn interrupt(&mut self, position: Position, state: State) -> Result<(), LedgerError> {
        self.remember_lost_add(position)?;
        let command = self.change(position)?;
        command.state = Stored::Unfinished(state);
        command.answer_lost = true;
        Ok(())
    }

    /// An add whose answer was lost may still land, whatever is asked next.
    fn remember_lost_add(&mut self, position: Position) -> Result<(), LedgerError> {
        let command = self.command(position)?;
        if let (Some(Action::Add), Some(begun_at), Some(kf_account)) = (command.action, command.begun_at, command.kf_account.clone()) {
            let account = self.change_account(&kf_account);
            account.lost_add_at = account.lost_add_at.max(Some(begun_at));
        }
        Ok(())
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
    fn write_outcome(&mut self, position: Position, conclusion: &Conclusion, dead_letter: bool) -> Result<(), LedgerError> {
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
        Ok(())
    }

    /// The dead letter that is owed for a command is in its queue.
    pub fn dead_lettered(&mut self, position: Position) -> Result<(), LedgerError> {
        if let Some(ended) = &mut self.change(position)?.ended {
            ended.dead_letter = Some(DeadLetter::Confirmed);
        }
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

    /// The outcome of a command, where it has one.
    pub fn finished(&self, position: Position) -> Result<Option<Finished>, LedgerError> {
        Ok(self.command(position)?.finished())
    }

    fn acceptance(&self, position: Position) -> Result<Acceptance, LedgerError> {
        let command = self.command(position)?;
        Ok(match command.finished() {
            Some(finished) => Acceptance::Repeat(finished),
            None => Acceptance::Unfinished(Ticket {
                position,
                generation: command.generation,
                attempts: command.attempts,
                attempts_before: command.attempts_before,
                suspect: command.suspect,
                trouble: command.trouble,
                received_at: command.received_at,
                age_from: command.age_from,
            }),
        })
    }

    fn outcome(&self, position: Position) -> Result<Finished, LedgerError> {
        self.finished(position)?.ok_or(LedgerError::Unreadable("a finished command without its outcome"))
    }

    fn add(&mut self, command: CommandRecord) {
        self.by_id.insert(command.command_id.clone(), command.position);
        if let (None, Some(kf_account)) = (&command.ended, &command.kf_account) {
            self.unfinished.entry(kf_account.clone()).or_default().insert(command.position);
        }
        self.commands.insert(command.position, command);
    }

    fn command(&self, position: Position) -> Result<&CommandRecord, LedgerError> {
        self.commands.get(&position).ok_or(LedgerError::Unreadable("no command where one should be"))
    }

    fn change(&mut self, position: Position) -> Result<&mut CommandRecord, LedgerError> {
        self.changed_commands.insert(position);
        self.commands.get_mut(&position).ok_or(LedgerError::Unreadable("no command where one should be"))
    }

    fn account_of(&self, position: Position) -> Result<String, LedgerError> {
        self.command(position)?.kf_account.clone().ok_or(LedgerError::Unreadable("a command to be carried out without an account"))
    }

    fn change_account(&mut self, kf_account: &str) -> &mut AccountRecord {
        self.changed_accounts.insert(kf_account.to_owned());
        self.accounts.entry(kf_account.to_owned()).or_insert_with(|| AccountRecord::unknown(kf_account))
    }
}

/// What decides at once, before a command takes its turn: the account's revision, and deletes that came after it was sent.
fn decide_on_arrival(command: &Command, account: &AccountRecord) -> Option<Outcome> {
    match (command.given.revision, account.revision) {
        (Some(revision), Some(latest)) if revision <= latest => {
            let detail = format!("Its revision {revision} is not above the account's latest, {latest}.");
            return Some(Outcome::Superseded(Failure::new(Reason::StaleRevision, detail)));
        }
        (None, Some(_)) if command.action == Action::Add => {
            let detail = "This account's commands carry revisions, so an `add` needs one. Send it under a new id with a revision.";
            return Some(Outcome::Rejected(Failure::new(Reason::RevisionRequired, detail)));
        }
        _ => {}
    }
    let deleted_at = account.last_delete_at?;
    let sent_at = command.sent_at?;
    (command.action == Action::Add && sent_at.is_before(deleted_at)).then(|| {
        let detail = "It was sent before the account's last delete. If the account shall exist, send a new add.";
        Outcome::Superseded(Failure::new(Reason::SentBeforeDelete, detail))
    })
}

fn as_json(given: &Given) -> Result<String, LedgerError> {
    serde_json::to_string(given).map_err(|_| LedgerError::Unreadable("a command that can't be written as JSON"))
}

/// A message that becomes a record.
struct New<'a> {
    given: &'a Given,
    content: Content,
    received_at: Timestamp,
    dead_letter: bool,
}

impl Keys {
    /// For a decision about one command.
    pub fn position(position: Position) -> Self {
        Self { positions: BTreeSet::from([position]), ..Self::default() }
    }

    /// For a decision about one account.
    pub fn account(kf_account: &str) -> Self {
        Self { kf_accounts: BTreeSet::from([kf_account.to_owned()]), ..Self::default() }
    }

    /// All that either needs.
    pub fn join(&mut self, other: &Self) {
        self.command_ids.extend(other.command_ids.iter().cloned());
        self.kf_accounts.extend(other.kf_accounts.iter().cloned());
        self.positions.extend(other.positions.iter().copied());
        self.claimed |= other.claimed;
        self.arrivals += other.arrivals;
    }
}
