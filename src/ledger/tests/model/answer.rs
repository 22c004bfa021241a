//! What a ledger should answer.

mod acceptance;

use super::*;

/// A question with all names looked up.
#[derive(Debug, Clone)]
pub enum Question {
    Accept(Vec<(Sent, Origin)>, i64),
    Begin { place: usize, alone: bool },
    Wait { place: usize, claim: Option<u64>, reason: Reason, lost: bool, called: bool },
    Finish { place: usize, claim: Option<u64>, status: Status, reason: Option<Reason> },
    Check(usize),
    Obstacle(usize),
    Panicked(usize),
    DeadLettered(usize),
    CleanUp(usize),
    EndCleanUp(usize, u64),
}

/// An answer, whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Accepted(Vec<Accepted>),
    Begun { attempts: u32, lost: bool, lost_add: bool },
    Claimed,
    Not(Option<Why>),
    Recorded { ending: Ending, outcome: Option<Ended> },
    Outcome(Option<Ended>),
    Done,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    Unfinished { place: usize, generation: u32, attempts: u32, attempts_before: u32, suspect: bool, trouble: Option<Reason> },
    Decided(Ended),
    Repeat(Ended),
    Conflict,
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    Behind,
    Held,
    Suspected,
    NotWanted,
    Finished(Ended),
}

impl Model {
    /// The answer to a worker's question.
    pub fn ask(&mut self, worker: usize, question: &Question) -> Told {
        let place = match question {
            Question::Accept(arrivals, now) => {
                arrivals.iter().filter(|(sent, _)| sent.refused.is_none()).for_each(|(sent, _)| self.look(worker, sent.account));
                return Told::Accepted(arrivals.iter().map(|(sent, origin)| self.accept(*sent, *origin, *now)).collect());
            }
            Question::CleanUp(account) => return self.clean_up(worker, *account),
            Question::EndCleanUp(account, claim) => {
                self.look(worker, *account);
                self.give_back(*account, Some(*claim));
                return Told::Done;
            }
            Question::Begin { place, .. } | Question::Wait { place, .. } | Question::Finish { place, .. } => *place,
            Question::Check(place) | Question::Obstacle(place) | Question::Panicked(place) | Question::DeadLettered(place) => *place,
        };
        let Some(command) = self.commands.get(&place) else { return Told::Unknown };
        self.look(worker, command.sent.account);
        match *question {
            Question::Begin { alone, .. } => self.begin(worker, place, alone),
            Question::Wait { claim, reason, lost, called, .. } => self.wait(worker, place, claim, reason, lost, called),
            Question::Finish { claim, status, reason, .. } => self.finish(worker, place, claim, status, reason),
            Question::Obstacle(_) => Told::Not(self.obstacle(worker, place)),
            Question::Panicked(_) => self.panicked(worker, place),
            Question::DeadLettered(_) => {
                if let Some(outcome) = &mut self.change(place).outcome {
                    outcome.owed = Some(false);
                }
                Told::Done
            }
            _ => Told::Outcome(self.commands[&place].outcome),
        }
    }

    fn held_by_another(&self, worker: usize, account: usize) -> bool {
        self.accounts[account].lease.is_some_and(|lease| lease.worker != worker)
    }

    /// Where this claim is the account's latest, or whoever gives it back needs none.
    fn give_back(&mut self, account: usize, claim: Option<u64>) {
        if claim.is_none_or(|claim| claim == self.accounts[account].epoch) {
            self.accounts[account].lease = None;
        }
    }

    fn obstacle(&mut self, worker: usize, place: usize) -> Option<Why> {
        let account = self.commands[&place].sent.account;
        self.order(account);
        if let Some(outcome) = self.commands[&place].outcome {
            return Some(Why::Finished(outcome));
        }
        if self.held_by_another(worker, account) {
            return Some(Why::Held);
        }
        self.unfinished(account).any(|other| other.seen && other.place < place).then_some(Why::Behind)
    }

    fn begin(&mut self, worker: usize, place: usize, alone: bool) -> Told {
        if let Some(why) = self.obstacle(worker, place) {
            return Told::Not(Some(why));
        }
        let Command { suspect, deaths, stand, sent: Sent { account, .. }, .. } = self.commands[&place];
        if suspect && !alone {
            return Told::Not(Some(Why::Suspected));
        }
        if deaths >= MOST_DEATHS {
            self.end(place, Status::Failed, Some(Reason::Poison), Some(true));
            return Told::Not(self.commands[&place].outcome.map(Why::Finished));
        }
        // A former call of it whose end nobody told may have landed.
        if stand == Stand::Running {
            self.lose(place, Stand::Running);
        }
        self.claim(worker, account);
        let lost_add = self.accounts[account].lost_add;
        let command = self.change(place);
        command.stand = Stand::Running;
        command.attempts += 1;
        command.begun = true;
        Told::Begun { attempts: command.attempts, lost: command.lost, lost_add }
    }

    fn claim(&mut self, worker: usize, account: usize) {
        self.accounts[account].epoch += 1;
        self.accounts[account].lease = Some(Lease { worker, over: false });
    }

    /// Whether something may be recorded.
    fn ending(&self, worker: usize, place: usize, claim: Option<u64>) -> Ending {
        let command = &self.commands[&place];
        let account = &self.accounts[command.sent.account];
        match claim {
            Some(claim) if claim != account.epoch => {
                let unwanted = account.latest.is_some_and(|(action, _)| action == Action::Delete);
                Ending::ClaimLost { may_be_back: unwanted && command.sent.action == Action::Add }
            }
            None if command.stand == Stand::Running && self.held_by_another(worker, command.sent.account) => {
                Ending::ClaimLost { may_be_back: false }
            }
            _ => Ending::Ours,
        }
    }

    fn wait(&mut self, worker: usize, place: usize, claim: Option<u64>, reason: Reason, lost: bool, called: bool) -> Told {
        let Command { stand, sent: Sent { account, .. }, .. } = self.commands[&place];
        let running = stand == Stand::Running;
        if running && claim.is_none() {
            // Another delivery of what is in flight leaves it alone.
            if reason == Reason::WindowShare || self.held_by_another(worker, account) {
                return Told::Recorded { ending: Ending::Ours, outcome: None };
            }
            self.lose(place, Stand::Waiting);
            self.give_back(account, None);
        }
        let ending = self.ending(worker, place, claim);
        if ending != Ending::Ours || self.commands[&place].outcome.is_some() {
            return Told::Recorded { ending, outcome: self.commands[&place].outcome };
        }
        if lost {
            self.remember_lost_add(place);
        }
        let command = self.change(place);
        if running {
            (command.suspect, command.deaths) = (false, 0);
        }
        if claim.is_some() && !called {
            command.attempts = command.attempts.saturating_sub(1);
        }
        command.stand = Stand::Waiting;
        command.lost |= lost;
        // The time to wait for room goes on while the worker itself makes it wait.
        let ours = matches!(reason, Reason::WindowShare | Reason::RateLimited);
        if !(ours && command.trouble == Some(Reason::AccountLimitReached)) {
            command.trouble = Some(reason);
        }
        if claim.is_some() {
            self.give_back(account, claim);
        }
        self.order(account);
        Told::Recorded { ending, outcome: self.commands[&place].outcome }
    }

    fn finish(&mut self, worker: usize, place: usize, claim: Option<u64>, status: Status, reason: Option<Reason>) -> Told {
        let account = self.commands[&place].sent.account;
        let ending = self.ending(worker, place, claim);
        if ending == Ending::Ours && self.commands[&place].outcome.is_none() {
            self.end(place, status, reason, (status == Status::Failed).then_some(true));
            if claim.is_some() {
                self.give_back(account, claim);
            }
        }
        Told::Recorded { ending, outcome: self.commands[&place].outcome }
    }

    fn panicked(&mut self, worker: usize, place: usize) -> Told {
        let Command { stand, sent: Sent { account, .. }, .. } = self.commands[&place];
        if stand != Stand::Finished && !self.held_by_another(worker, account) {
            if stand == Stand::Running {
                self.lose(place, Stand::Waiting);
                self.give_back(account, None);
            }
            self.change(place).stand = Stand::Waiting;
            self.fall(place);
        }
        Told::Done
    }

    fn clean_up(&mut self, worker: usize, account: usize) -> Told {
        self.look(worker, account);
        let Some((Action::Delete, latest)) = self.accounts[account].latest else { return Told::Not(Some(Why::NotWanted)) };
        if self.held_by_another(worker, account) {
            return Told::Not(Some(Why::Held));
        }
        if self.unfinished(account).any(|command| command.place == latest) {
            return Told::Not(Some(Why::NotWanted));
        }
        self.claim(worker, account);
        Told::Claimed
    }
}
