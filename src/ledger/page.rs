//! The ledger's statements: the tables of one SQLite file within one transaction, at one instant.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::FromSqlError;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::order::{State, Unfinished, superseded};
use super::rows::{Account, Known, Millis, Stored, UnfinishedRow, as_json, read_finished};
use super::{Acceptance, Arrival, Arrived, Begun, Claim, Finished, LedgerError, MOST_DEATHS, Origin, Position, Ticket, Waiting};
use crate::command::{Command, Content, Given, Refused};
use crate::event::{Conclusion, History, Identity, conclude};
use crate::outcome::{Action, Failure, Outcome, Reason};

/// Rows pruned in one transaction, so that nobody waits long behind it.
const PRUNE_ROWS: i64 = 500;

/// The tables within one transaction, at one instant.
pub struct Page<'a> {
    pub connection: &'a Connection,
    pub now: Timestamp,
    /// How long outcomes are kept.
    pub retention: Duration,
    /// An unfinished command whose message was not seen for this long holds nobody up.
    pub patience: Duration,
}

impl Page<'_> {
    /// Gives an arrival its place, or recognises it.
    pub fn accept(&self, arrival: &Arrival) -> Result<Acceptance, LedgerError> {
        let (given, content) = match &arrival.message {
            Arrived::Command(command) => (&command.given, command.content),
            Arrived::Refused(refused) => (&refused.given, refused.content),
        };
        match (self.known(&given.command_id)?, arrival.origin, &arrival.message) {
            (Some(known), Origin::Producer, _) if known.content != content => Ok(Acceptance::Conflict),
            (Some(known), Origin::PutOff | Origin::Replay(_), _) if known.content != content => Ok(Acceptance::LedgerLost),
            (Some(known), Origin::Replay(generation), Arrived::Command(command)) if known.has_failed_in(generation) => {
                self.accept_replay(&known, command)
            }
            (Some(known), _, _) => self.accept_again(&known),
            (None, Origin::PutOff | Origin::Replay(_), _) => Ok(Acceptance::LedgerLost),
            (None, Origin::Producer, Arrived::Command(command)) => self.accept_new(command, arrival.received_at),
            (None, Origin::Producer, Arrived::Refused(refused)) => self.accept_refused(refused, arrival.received_at),
        }
    }

    fn known(&self, command_id: &str) -> Result<Option<Known>, LedgerError> {
        let mut by_id =
            self.prepare("SELECT position, content, kf_account, state, generation, status FROM command WHERE command_id = ?1")?;
        let known = by_id.query_row([command_id], |row| {
            Ok(Known {
                position: Position(row.get(0)?),
                content: row.get(1)?,
                kf_account: row.get(2)?,
                state: row.get(3)?,
                generation: row.get(4)?,
                status: row.get(5)?,
            })
        });
        Ok(known.optional()?)
    }

    /// A repeat: it keeps its position, and its return may be what others waited to see.
    fn accept_again(&self, known: &Known) -> Result<Acceptance, LedgerError> {
        if known.state != Stored::Finished {
            self.execute("UPDATE command SET seen_at = ?2 WHERE position = ?1", params![known.position, Millis(self.now)])?;
            if let Some(kf_account) = &known.kf_account {
                self.supersede(kf_account)?;
            }
        }
        self.acceptance(known.position)
    }

    fn accept_new(&self, command: &Command, received_at: Timestamp) -> Result<Acceptance, LedgerError> {
        let account = self.account(command.account.as_str())?;
        if let Some(outcome) = account.as_ref().and_then(|account| decide_on_arrival(command, account)) {
            let new = New { given: &command.given, content: command.content, received_at, dead_letter: false };
            return self.insert_finished(&new, &outcome);
        }
        let position = self.insert(
            &New { given: &command.given, content: command.content, received_at, dead_letter: false },
            Stored::Unfinished(State::Accepted),
        )?;
        self.raise(command, position, account.as_ref(), received_at)?;
        self.supersede(command.account.as_str())?;
        self.acceptance(position)
    }

    /// The next generation of a failed command, in its first position: it has given way where a newer one was accepted.
    fn accept_replay(&self, known: &Known, command: &Command) -> Result<Acceptance, LedgerError> {
        self.execute(
            "UPDATE command SET state = 'accepted', generation = generation + 1, attempts_before = attempts, given = ?2, age_from = ?3,
               seen_at = ?3, suspect = 0, deaths = 0, trouble = NULL, trouble_since = NULL, errcode = NULL, errmsg = NULL,
               finished_at = NULL, status = NULL, reason = NULL, detail = NULL, data = NULL, dead_letter = NULL
             WHERE position = ?1",
            params![known.position, as_json(&command.given)?, Millis(self.now)],
        )?;
        let account = self.account(command.account.as_str())?;
        if account.is_some_and(|account| account.last_position > known.position) {
            self.give_way(known.position)?;
            return Ok(Acceptance::Decided(read_finished(self.connection, known.position)?));
        }
        self.acceptance(known.position)
    }

    fn accept_refused(&self, refused: &Refused, received_at: Timestamp) -> Result<Acceptance, LedgerError> {
        let new = New { given: &refused.given, content: refused.content, received_at, dead_letter: refused.dead_letter };
        self.insert_finished(&new, &Outcome::Rejected(refused.failure.clone()))
    }

    fn insert_finished(&self, new: &New<'_>, outcome: &Outcome) -> Result<Acceptance, LedgerError> {
        let position = self.insert(new, Stored::Finished)?;
        let history = History { attempts: 0, received_at: new.received_at, finished_at: self.now };
        let conclusion = conclude(new.given, Identity::Generation(0), outcome, history);
        self.write_outcome(position, &conclusion, new.dead_letter)?;
        Ok(Acceptance::Decided(read_finished(self.connection, position)?))
    }

    fn insert(&self, new: &New<'_>, state: Stored) -> Result<Position, LedgerError> {
        self.execute(
            "INSERT INTO command (command_id, content, action, kf_account, given, state, received_at, age_from, seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
            params![
                new.given.command_id,
                new.content,
                new.given.action,
                new.given.kf_account,
                as_json(new.given)?,
                state,
                Millis(new.received_at),
                Millis(self.now)
            ],
        )?;
        Ok(Position(self.connection.last_insert_rowid()))
    }

    fn account(&self, kf_account: &str) -> Result<Option<Account>, LedgerError> {
        let mut by_name = self.prepare("SELECT revision, last_delete_at, last_position FROM account WHERE kf_account = ?1")?;
        let account = by_name.query_row([kf_account], |row| {
            Ok(Account {
                revision: row.get(0)?,
                last_delete_at: row.get::<_, Option<Millis>>(1)?.map(|at| at.0),
                last_position: Position(row.get(2)?),
            })
        });
        Ok(account.optional()?)
    }

    /// Acceptance raises what is known of the account, for good.
    fn raise(&self, command: &Command, position: Position, before: Option<&Account>, received_at: Timestamp) -> Result<(), LedgerError> {
        // The producer's own time where it gave one: the message may have waited in the queue, its successor beside it.
        let sent_at = command.sent_at.and_then(|sent_at| sent_at.instant()).unwrap_or(received_at).min(received_at);
        let last_delete_at = match command.action {
            Action::Delete => before.and_then(|account| account.last_delete_at).max(Some(sent_at)),
            Action::Add => before.and_then(|account| account.last_delete_at),
        };
        let revision = command.given.revision.max(before.and_then(|account| account.revision));
        self.execute(
            "INSERT INTO account (kf_account, revision, last_action, last_action_at, last_delete_at, last_position)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (kf_account) DO UPDATE
             SET revision = ?2, last_action = ?3, last_action_at = ?4, last_delete_at = ?5, last_position = ?6",
            params![command.account.as_str(), revision, command.action, Millis(sent_at), last_delete_at.map(Millis), position],
        )?;
        Ok(())
    }

    /// Applies the rule of order to the unfinished commands of an account.
    fn supersede(&self, kf_account: &str) -> Result<(), LedgerError> {
        let mut of_account = self.prepare(
            "SELECT position, action, state FROM command
             WHERE kf_account = ?1 AND state <> 'finished' AND seen_at >= ?2 ORDER BY position",
        )?;
        let rows = of_account.query_map(params![kf_account, self.seen_since()], |row| {
            let state = match row.get(2)? {
                Stored::Unfinished(state) => state,
                Stored::Finished => return Err(FromSqlError::InvalidType.into()),
            };
            Ok(Unfinished { position: Position(row.get(0)?), action: row.get(1)?, state })
        })?;
        let unfinished = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        for position in superseded(&unfinished) {
            self.give_way(position)?;
        }
        Ok(())
    }

    /// Ends an unfinished command since a newer one goes first.
    fn give_way(&self, position: Position) -> Result<(), LedgerError> {
        let detail = "A newer command for this account was accepted before this one could be finished.";
        self.end(position, Outcome::Superseded, Reason::NewerCommand, detail)
    }

    /// Ends an unfinished command by the ledger's own judgement.
    fn end(&self, position: Position, outcome: fn(Failure) -> Outcome, reason: Reason, detail: &str) -> Result<(), LedgerError> {
        let row = self.unfinished(position)?;
        let outcome = outcome(Failure { reason, answer: row.answer, detail: detail.to_owned() });
        let history = History { attempts: row.attempts, received_at: row.received_at, finished_at: self.now };
        let conclusion = conclude(&row.given, Identity::Generation(row.generation), &outcome, history);
        self.write_outcome(position, &conclusion, matches!(outcome, Outcome::Failed(_)))
    }

    /// Commands whose message was not seen since then hold nobody up.
    fn seen_since(&self) -> Millis {
        Millis(self.now.checked_sub(self.patience).unwrap_or(Timestamp::MIN))
    }

    pub fn begin(&self, position: Position) -> Result<Claim, LedgerError> {
        if let Some(finished) = self.finished(position)? {
            return Ok(Claim::Finished(finished));
        }
        let row = self.unfinished(position)?;
        let kf_account = row.given.kf_account.as_deref().ok_or(LedgerError::Unreadable("an unfinished command without an account"))?;
        self.supersede(kf_account)?;
        if let Some(finished) = self.finished(position)? {
            return Ok(Claim::Finished(finished));
        }
        if self.is_behind(kf_account, position)? {
            return Ok(Claim::Behind);
        }
        if row.deaths >= MOST_DEATHS {
            let detail = "The worker died each time that it carried out this command alone. Look for the crash in its log and report it.";
            self.end(position, Outcome::Failed, Reason::Poison, detail)?;
            return Ok(Claim::Finished(read_finished(self.connection, position)?));
        }
        // A call that this very process began and never told the end of: its task was ended from outside.
        let forgotten = row.state == Stored::Unfinished(State::Running);
        if forgotten {
            self.remember_lost_add(position)?;
        }
        self.execute(
            "UPDATE command SET state = 'running', attempts = attempts + 1, begun_at = ?2, answer_lost = max(answer_lost, ?3) WHERE position = ?1",
            params![position, Millis(self.now), forgotten],
        )?;
        let mut lost_add = self.prepare("SELECT lost_add_at FROM account WHERE kf_account = ?1")?;
        let lost_add_at = lost_add.query_row([kf_account], |row| row.get::<_, Option<Millis>>(0)).optional()?.flatten();
        Ok(Claim::Begun(Begun {
            attempts: row.attempts + 1,
            answer_lost_before: row.answer_lost || forgotten,
            lost_add_at: lost_add_at.map(|at| at.0),
        }))
    }

    fn is_behind(&self, kf_account: &str, position: Position) -> Result<bool, LedgerError> {
        let mut older = self.prepare(
            "SELECT EXISTS (SELECT 1 FROM command WHERE kf_account = ?1 AND state <> 'finished' AND position < ?2 AND seen_at >= ?3)",
        )?;
        Ok(older.query_row(params![kf_account, position, self.seen_since()], |row| row.get(0))?)
    }

    pub fn wait(&self, position: Position, waiting: &Waiting) -> Result<Option<Finished>, LedgerError> {
        if let Some(finished) = self.finished(position)? {
            return Ok(Some(finished));
        }
        let row = self.unfinished(position)?;
        // Put off on arrival, for its Official Account's share, while a former delivery of it is carried out.
        if waiting.reason == Reason::WindowShare && row.state == Stored::Unfinished(State::Running) {
            return Ok(None);
        }
        if waiting.answer_lost {
            self.remember_lost_add(position)?;
        }
        let (trouble, since) = match row.trouble {
            Some((former, since)) if !waiting.reason.replaces(former) => (former, since),
            _ => (waiting.reason, self.now),
        };
        // Only an attempt that has ended clears the suspicion that it kills.
        self.execute(
            "UPDATE command SET suspect = CASE WHEN state = 'running' THEN 0 ELSE suspect END,
               deaths = CASE WHEN state = 'running' THEN 0 ELSE deaths END,
               state = 'waiting', answer_lost = max(answer_lost, ?2), trouble = ?3, trouble_since = ?4,
               errcode = coalesce(?5, errcode), errmsg = coalesce(?6, errmsg)
             WHERE position = ?1",
            params![
                position,
                waiting.answer_lost,
                trouble,
                Millis(since),
                waiting.answer.as_ref().map(|answer| answer.errcode),
                waiting.answer.as_ref().map(|answer| answer.errmsg.as_str()),
            ],
        )?;
        if let Some(kf_account) = row.given.kf_account.as_deref() {
            self.supersede(kf_account)?;
        }
        self.finished(position)
    }

    /// Carrying out a command has panicked: that counts like a death at which it was alone.
    pub fn panicked(&self, position: Position) -> Result<(), LedgerError> {
        self.remember_lost_add(position)?;
        self.execute(
            "UPDATE command SET state = 'waiting', answer_lost = 1, deaths = deaths + 1 WHERE position = ?1 AND state <> 'finished'",
            [position],
        )?;
        Ok(())
    }

    /// Gives back what is in flight at an orderly end: nobody has died.
    pub fn release(&self) -> Result<(), LedgerError> {
        self.remember_all_lost_adds()?;
        self.execute("UPDATE command SET state = 'waiting', answer_lost = 1 WHERE state <> 'finished' AND state = 'running'", [])?;
        Ok(())
    }

    /// Calls that were in flight when the last process died have an unknown outcome, and one of them may have killed it.
    pub fn take_over(&self) -> Result<(), LedgerError> {
        self.remember_all_lost_adds()?;
        self.execute(
            "UPDATE command SET state = 'abandoned', answer_lost = 1, suspect = 1,
               deaths = deaths + (SELECT count(*) = 1 FROM command WHERE state <> 'finished' AND state = 'running')
             WHERE state <> 'finished' AND state = 'running'",
            [],
        )?;
        Ok(())
    }

    fn remember_all_lost_adds(&self) -> Result<(), LedgerError> {
        self.execute(
            "UPDATE account SET lost_add_at = max(coalesce(lost_add_at, 0), lost.begun_at)
             FROM (SELECT kf_account, max(begun_at) AS begun_at FROM command
                   WHERE state <> 'finished' AND state = 'running' AND action = 'add' GROUP BY kf_account) AS lost
             WHERE account.kf_account = lost.kf_account",
            [],
        )?;
        Ok(())
    }

    /// An add whose answer was lost may still land, whatever is asked next.
    fn remember_lost_add(&self, position: Position) -> Result<(), LedgerError> {
        self.execute(
            "UPDATE account SET lost_add_at = max(coalesce(lost_add_at, 0), command.begun_at) FROM command
             WHERE command.position = ?1 AND command.action = 'add' AND command.begun_at IS NOT NULL
               AND account.kf_account = command.kf_account",
            [position],
        )?;
        Ok(())
    }

    pub fn finish(&self, position: Position, conclusion: &Conclusion, dead_letter: bool) -> Result<Finished, LedgerError> {
        self.write_outcome(position, conclusion, dead_letter)?;
        read_finished(self.connection, position)
    }

    /// Writes an outcome where there is none.
    fn write_outcome(&self, position: Position, conclusion: &Conclusion, dead_letter: bool) -> Result<(), LedgerError> {
        self.execute(
            "UPDATE command SET state = 'finished', finished_at = ?2, status = ?3, reason = ?4, detail = ?5, data = ?6,
               dead_letter = ?7, given = NULL
             WHERE position = ?1 AND data IS NULL",
            params![
                position,
                Millis(conclusion.finished_at),
                conclusion.status,
                conclusion.reason,
                conclusion.reason.map(|_| conclusion.detail.as_str()),
                conclusion.data,
                dead_letter.then_some("owed"),
            ],
        )?;
        Ok(())
    }

    pub fn dead_lettered(&self, position: Position) -> Result<(), LedgerError> {
        self.execute("UPDATE command SET dead_letter = 'confirmed' WHERE position = ?1", [position])?;
        Ok(())
    }

    /// Looks at the oldest rows only: outcomes are reached nearly in the order of acceptance, so no index is needed.
    pub fn prune(&self) -> Result<usize, LedgerError> {
        let before = Millis(self.now.checked_sub(self.retention).unwrap_or(Timestamp::MIN));
        let pruned = self.execute(
            "DELETE FROM command WHERE position IN (
               SELECT position FROM (SELECT position, state, finished_at FROM command ORDER BY position LIMIT ?2)
               WHERE state = 'finished' AND finished_at < ?1)",
            params![before, PRUNE_ROWS],
        )?;
        Ok(pruned)
    }

    pub fn probe(&self) -> Result<(), LedgerError> {
        self.execute("UPDATE identity SET ledger_id = ledger_id", [])?;
        Ok(())
    }

    fn acceptance(&self, position: Position) -> Result<Acceptance, LedgerError> {
        if let Some(finished) = self.finished(position)? {
            return Ok(Acceptance::Repeat(finished));
        }
        let row = self.unfinished(position)?;
        Ok(Acceptance::Unfinished(Ticket {
            position,
            generation: row.generation,
            attempts: row.attempts,
            attempts_before: row.attempts_before,
            suspect: row.suspect,
            trouble: row.trouble,
            received_at: row.received_at,
            age_from: row.age_from,
        }))
    }

    pub fn finished(&self, position: Position) -> Result<Option<Finished>, LedgerError> {
        let mut state = self.prepare("SELECT state FROM command WHERE position = ?1")?;
        match state.query_row([position], |row| row.get(0))? {
            Stored::Finished => Ok(Some(read_finished(self.connection, position)?)),
            Stored::Unfinished(_) => Ok(None),
        }
    }

    fn unfinished(&self, position: Position) -> Result<UnfinishedRow, LedgerError> {
        let mut by_position = self.prepare(
            "SELECT given, state, generation, attempts, answer_lost, trouble, trouble_since, errcode, errmsg, received_at, age_from,
               attempts_before, suspect, deaths
             FROM command WHERE position = ?1",
        )?;
        Ok(by_position.query_row([position], UnfinishedRow::read)?)
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, LedgerError> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    pub(super) fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, LedgerError> {
        Ok(self.prepare(sql)?.execute(parameters)?)
    }
}

/// What decides at once, before a command takes its turn: the account's revision, and deletes that came after it was sent.
fn decide_on_arrival(command: &Command, account: &Account) -> Option<Outcome> {
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

/// A message that becomes a row.
struct New<'a> {
    given: &'a Given,
    content: Content,
    received_at: Timestamp,
    dead_letter: bool,
}
