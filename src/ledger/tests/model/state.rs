//! What a ledger should know, written from the contract alone: plain lists, no database and no clock.

use std::collections::BTreeMap;

use super::*;

/// A message, as its producer sent it; times are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub id: usize,
    pub action: Action,
    pub account: usize,
    pub revision: Option<i64>,
    pub at: Option<i64>,
    /// Which rule it breaks.
    pub refused: Option<Reason>,
}

impl Sent {
    /// When it was sent is not part of what it says.
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { at: None, ..*self } == Self { at: None, ..*other }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Accepted,
    Running,
    Waiting,
    Abandoned,
    Finished,
}

#[derive(Debug, Clone)]
pub struct Command {
    pub place: usize,
    pub sent: Sent,
    pub received: i64,
    pub stand: Stand,
    pub generation: u32,
    pub attempts: u32,
    pub attempts_before: u32,
    /// A call has ever begun.
    pub begun: bool,
    pub lost: bool,
    pub suspect: bool,
    pub deaths: u32,
    pub trouble: Option<Reason>,
    /// Its message is about.
    pub seen: bool,
    pub outcome: Option<Ended>,
}

/// A command's outcome in this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub place: usize,
    pub generation: u32,
    pub status: Status,
    pub reason: Option<Reason>,
    /// Whether a dead letter is owed, where one was due.
    pub owed: Option<bool>,
}

#[derive(Debug, Clone, Default)]
pub struct Account {
    pub revision: Option<i64>,
    /// The latest accepted command's action and place.
    pub latest: Option<(Action, usize)>,
    pub last_delete: Option<i64>,
    /// An add's answer was lost.
    pub lost_add: bool,
    /// Counts claims, and those that were found to have run out.
    pub epoch: u64,
    pub lease: Option<Lease>,
}

#[derive(Debug, Clone, Copy)]
pub struct Lease {
    pub worker: usize,
    pub over: bool,
}

pub struct Model {
    /// Several workers may use it.
    pub shared: bool,
    pub accounts: Vec<Account>,
    pub commands: BTreeMap<usize, Command>,
    /// The next command's.
    pub place: usize,
}

impl Model {
    pub fn new(shared: bool) -> Self {
        Self { shared, accounts: vec![Account::default(); ACCOUNTS], commands: BTreeMap::new(), place: 0 }
    }

    pub fn by_id(&self, id: usize) -> Option<&Command> {
        self.commands.values().find(|command| command.sent.id == id)
    }

    /// Unfinished commands of an account, oldest first.
    pub fn unfinished(&self, account: usize) -> impl Iterator<Item = &Command> {
        self.commands.values().filter(move |command| command.sent.account == account && command.stand != Stand::Finished)
    }

    pub fn change(&mut self, place: usize) -> &mut Command {
        self.commands.get_mut(&place).unwrap()
    }

    /// The rule of order.
    pub fn order(&mut self, account: usize) {
        let queue: Vec<Command> = self.unfinished(account).filter(|command| command.seen).cloned().collect();
        if !queue.first().is_some_and(|oldest| matches!(oldest.stand, Stand::Waiting | Stand::Abandoned)) {
            return;
        }
        for older in queue.iter().filter(|older| older.stand != Stand::Running) {
            let newer = queue.iter().filter(|newer| newer.place > older.place).map(|newer| newer.sent.action);
            if newer.into_iter().any(|newer| newer == Action::Delete || older.sent.action == Action::Add) {
                self.end(older.place, Status::Superseded, Some(Reason::NewerCommand), None);
            }
        }
    }

    pub fn end(&mut self, place: usize, status: Status, reason: Option<Reason>, owed: Option<bool>) {
        let command = self.change(place);
        command.stand = Stand::Finished;
        command.outcome = Some(Ended { place, generation: command.generation, status, reason, owed });
    }

    /// A worker that looks at an account finds out about those whose claims have run out.
    pub fn look(&mut self, worker: usize, account: usize) {
        let shared = self.shared;
        let Some(lease) = self.accounts[account].lease else { return };
        if lease.worker == worker || (shared && !lease.over) {
            return;
        }
        for place in self.running(account) {
            self.lose(place, Stand::Abandoned);
            self.fall(place);
        }
        self.accounts[account].epoch += 1;
        self.accounts[account].lease = None;
    }

    pub fn running(&self, account: usize) -> Vec<usize> {
        self.unfinished(account).filter(|command| command.stand == Stand::Running).map(|command| command.place).collect()
    }

    /// The end of its call will not be told.
    pub fn lose(&mut self, place: usize, stand: Stand) {
        self.remember_lost_add(place);
        let command = self.change(place);
        (command.stand, command.lost) = (stand, true);
    }

    pub fn remember_lost_add(&mut self, place: usize) {
        let command = &self.commands[&place];
        if command.sent.action == Action::Add && command.begun {
            self.accounts[command.sent.account].lost_add = true;
        }
    }

    /// Its worker fell over it, or with it.
    pub fn fall(&mut self, place: usize) {
        let command = self.change(place);
        command.deaths += u32::from(command.suspect);
        command.suspect = true;
    }

    /// A worker is gone. A file is its worker's alone, so that all claims in it are over.
    pub fn crash(&mut self, worker: usize) {
        for account in (0..ACCOUNTS).filter(|_| !self.shared) {
            let running = !self.running(account).is_empty();
            self.accounts[account].lease = running.then_some(Lease { worker, over: true });
        }
    }

    pub fn release(&mut self, worker: usize) {
        for account in 0..ACCOUNTS {
            if self.accounts[account].lease.is_some_and(|lease| lease.worker == worker) {
                self.running(account).into_iter().for_each(|place| self.lose(place, Stand::Waiting));
            }
        }
    }

    pub fn lapse(&mut self, account: usize) {
        if let Some(lease) = &mut self.accounts[account].lease {
            lease.over = true;
        }
    }

    /// Forgets the outcomes of an account, and answers how many there were.
    pub fn prune(&mut self, account: usize) -> usize {
        let before = self.commands.len();
        let kept =
            |command: &Command| command.stand != Stand::Finished || command.sent.account != account || command.sent.refused.is_some();
        self.commands.retain(|_, command| kept(command));
        before - self.commands.len()
    }
}
