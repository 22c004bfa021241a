//! What a ledger should make of an arrival.

use super::*;

impl Model {
    pub(super) fn accept(&mut self, sent: Sent, origin: Origin, now: i64) -> Accepted {
        let Some(known) = self.by_id(sent.id) else {
            return if origin == Origin::Producer { self.accept_new(sent, now) } else { Accepted::Lost };
        };
        let place = known.place;
        if !known.sent.says_the_same(&sent) {
            return if origin == Origin::Producer { Accepted::Conflict } else { Accepted::Lost };
        }
        let overtaken = self.accounts[sent.account].latest.is_some_and(|(_, latest)| latest > place);
        let failed = known.outcome.is_some_and(|outcome| outcome.status == Status::Failed);
        if matches!(origin, Origin::Replay(generation) if generation == known.generation) && failed {
            let command = self.change(place);
            *command = Command {
                stand: Stand::Accepted,
                generation: command.generation + 1,
                attempts_before: command.attempts,
                suspect: false,
                deaths: 0,
                trouble: None,
                seen: true,
                outcome: None,
                ..command.clone()
            };
            if overtaken {
                self.end(place, Status::Superseded, Some(Reason::NewerCommand), None);
                return Accepted::Decided(self.commands[&place].outcome.unwrap());
            }
        } else if known.outcome.is_none() {
            // Nobody waited for what was not seen for so long; once the newest has begun it is too late for it.
            let newest = self.accounts[sent.account].latest.and_then(|(_, latest)| self.commands.get(&latest));
            let gone = newest.is_none_or(|newest| newest.begun || newest.outcome.is_some());
            if overtaken && !known.seen && gone {
                self.end(place, Status::Superseded, Some(Reason::NewerCommand), None);
            }
            self.change(place).seen = true;
            self.order(sent.account);
        }
        self.accepted(place)
    }

    fn accepted(&self, place: usize) -> Accepted {
        let command = &self.commands[&place];
        let Command { generation, attempts, attempts_before, suspect, trouble, .. } = *command;
        match command.outcome {
            Some(outcome) => Accepted::Repeat(outcome),
            None => Accepted::Unfinished { place, generation, attempts, attempts_before, suspect, trouble },
        }
    }

    fn accept_new(&mut self, sent: Sent, now: i64) -> Accepted {
        let place = self.place;
        self.place += 1;
        self.commands.insert(
            place,
            Command {
                place,
                sent,
                received: now,
                stand: Stand::Accepted,
                generation: 0,
                attempts: 0,
                attempts_before: 0,
                begun: false,
                lost: false,
                suspect: false,
                deaths: 0,
                trouble: None,
                seen: true,
                outcome: None,
            },
        );
        let account = &mut self.accounts[sent.account];
        let add = sent.action == Action::Add;
        let decided = match (sent.refused, sent.revision, account.revision) {
            (Some(reason), ..) => Some((Status::Rejected, reason)),
            (_, Some(revision), Some(latest)) if revision <= latest => Some((Status::Superseded, Reason::StaleRevision)),
            (_, None, Some(_)) if add => Some((Status::Rejected, Reason::RevisionRequired)),
            _ if add && sent.at.zip(account.last_delete).is_some_and(|(sent, delete)| sent < delete) => {
                Some((Status::Superseded, Reason::SentBeforeDelete))
            }
            _ => None,
        };
        if let Some((status, reason)) = decided {
            self.end(place, status, Some(reason), None);
            return Accepted::Decided(self.commands[&place].outcome.unwrap());
        }
        account.latest = Some((sent.action, place));
        account.revision = account.revision.max(sent.revision);
        if !add {
            account.last_delete = account.last_delete.max(Some(sent.at.map_or(now, |at| at.min(now))));
        }
        self.order(sent.account);
        self.accepted(place)
    }
}
