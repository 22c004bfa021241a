//! Acceptance: an arrival gets its place, is recognised, or is decided at once.

use jiff::Timestamp;

use super::Sheet;
use crate::command::{Command, Content, Given, Refused};
use crate::event::{History, Identity, conclude};
use crate::ledger::order::State;
use crate::ledger::record::{AccountRecord, CommandRecord, Latest, Stored};
use crate::ledger::{Acceptance, Arrival, Arrived, LedgerError, Origin, Position, Ticket};
use crate::outcome::{Action, Failure, Outcome, Reason};

impl Sheet {
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
            let overtaken = self.is_overtaken(position)?;
            let command = self.change(position)?;
            command.seen_at = now;
            if let Some(kf_account) = command.kf_account.clone() {
                if overtaken {
                    self.give_way(position)?;
                }
                self.supersede(&kf_account)?;
            }
        }
        self.acceptance(position)
    }

    /// Whether its message was not seen for so long that the account's newest command went before it: to carry it out now
    /// would undo what that has done.
    fn is_overtaken(&self, position: Position) -> Result<bool, LedgerError> {
        let command = self.command(position)?;
        let account = command.kf_account.as_ref().and_then(|kf_account| self.accounts.get(kf_account));
        let Some(latest) = account.and_then(|account| account.latest).filter(|latest| latest.position > position) else { return Ok(false) };
        // All that is unfinished is here.
        let newest = self.commands.get(&latest.position).filter(|newest| newest.ended.is_none());
        Ok(!self.is_seen(command) && newest.is_none_or(|newest| newest.begun_at.is_some()))
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
        let position = self.free_positions.pop_front().ok_or(LedgerError::Unreadable("no place for a new command"))?;
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
