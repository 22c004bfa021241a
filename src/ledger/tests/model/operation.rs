//! What may happen to a ledger, in lists that can be shrunk: all that an entry names is looked up when its turn comes.

use proptest::prelude::*;

use super::*;

/// Accounts that commands are about.
pub const ACCOUNTS: usize = 2;

#[derive(Debug, Clone)]
pub enum Operation {
    /// One worker asks all of these before it hears an answer.
    Ask(By, Vec<Ask>),
    /// A worker dies, and another takes its place.
    Crash(usize),
    /// A worker gives back what it has in flight, as at an orderly end.
    Release(usize),
    /// The lease on an account runs out.
    Lapse(usize),
    /// A command's message is not seen for longer than anybody has patience.
    Unseen(Which),
    /// The outcomes of an account are past their retention, and forgotten.
    Prune(usize),
}

/// Which worker.
#[derive(Debug, Clone, Copy)]
pub enum By {
    Worker(usize),
    /// Who has the lease on this account, where somebody has.
    Holder(usize),
}

/// Which command.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// The oldest unfinished one of an account.
    Oldest(usize),
    /// The one of an account that is in flight.
    Running(usize),
    /// Of all that were ever sent, counted from the newest.
    Any(usize),
}

/// Which claim something is recorded with.
#[derive(Debug, Clone, Copy)]
pub enum With {
    Nothing,
    /// The worker's latest on this command, where it has one.
    Latest,
    /// Its first.
    First,
}

#[derive(Debug, Clone)]
pub enum Ask {
    Accept(Vec<Arriving>),
    Begin { which: Which, alone: bool },
    Wait { which: Which, with: With, reason: Reason, lost: bool, called: bool },
    Finish { which: Which, with: With, how: How },
    Check(Which),
    Obstacle(Which),
    Panicked(Which),
    DeadLettered(Which),
    CleanUp(usize),
    EndCleanUp(usize),
}

/// How a command ends; with a dead letter where it fails.
#[derive(Debug, Clone, Copy)]
pub enum How {
    Succeeded,
    Failed,
    Superseded,
    Rejected,
}

/// A message that arrives. Messages count from the newest.
#[derive(Debug, Clone, Copy)]
pub enum Arriving {
    /// A new command, sent so many seconds ago where its message says when.
    New {
        account: usize,
        action: Action,
        revision: Option<i64>,
        ago: Option<i64>,
    },
    /// One that breaks a rule.
    Broken,
    Again(usize),
    /// The same id with the other action.
    Other(usize),
    /// A copy that was put off.
    Copy(usize),
    /// The dead letter of a generation.
    Replay(usize, u32),
}

pub fn operations() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 1..60)
}

fn operation() -> impl Strategy<Value = Operation> {
    let by = prop_oneof![2 => (0..3_usize).prop_map(By::Worker), 3 => account().prop_map(By::Holder)];
    let asks = prop_oneof![4 => prop::collection::vec(ask(), 1), 1 => prop::collection::vec(ask(), 2..5)];
    prop_oneof![
        60 => (by, asks).prop_map(|(by, asks)| Operation::Ask(by, asks)),
        3 => (0..3_usize).prop_map(Operation::Crash),
        1 => (0..3_usize).prop_map(Operation::Release),
        3 => account().prop_map(Operation::Lapse),
        1 => which().prop_map(Operation::Unseen),
        1 => account().prop_map(Operation::Prune),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let reason = prop::sample::select(vec![Reason::SystemBusy, Reason::WindowShare, Reason::AccountLimitReached, Reason::RateLimited]);
    let how = prop_oneof![3 => Just(How::Succeeded), 3 => Just(How::Failed), 1 => Just(How::Superseded), 1 => Just(How::Rejected)];
    let waiting = (which(), with(), reason, any::<bool>(), prop::bool::weighted(0.8));
    prop_oneof![
        10 => prop::collection::vec(arriving(), 1..4).prop_map(Ask::Accept),
        12 => (which(), prop::bool::weighted(0.8)).prop_map(|(which, alone)| Ask::Begin { which, alone }),
        6 => waiting.prop_map(|(which, with, reason, lost, called)| Ask::Wait { which, with, reason, lost, called }),
        6 => (which(), with(), how).prop_map(|(which, with, how)| Ask::Finish { which, with, how }),
        1 => which().prop_map(Ask::Check),
        1 => which().prop_map(Ask::Obstacle),
        2 => which().prop_map(Ask::Panicked),
        1 => which().prop_map(Ask::DeadLettered),
        1 => account().prop_map(Ask::CleanUp),
        1 => account().prop_map(Ask::EndCleanUp),
    ]
}

fn arriving() -> impl Strategy<Value = Arriving> {
    let new = (account(), prop::sample::select(vec![Action::Add, Action::Delete]));
    let new = (new, prop::option::weighted(0.2, 0..6_i64), prop::option::weighted(0.3, -2..8_i64));
    let earlier = || 0..8_usize;
    prop_oneof![
        8 => new.prop_map(|((account, action), revision, ago)| Arriving::New { account, action, revision, ago }),
        1 => Just(Arriving::Broken),
        4 => earlier().prop_map(Arriving::Again),
        1 => earlier().prop_map(Arriving::Other),
        1 => earlier().prop_map(Arriving::Copy),
        3 => (earlier(), 0..3_u32).prop_map(|(nth, generation)| Arriving::Replay(nth, generation)),
    ]
}

fn account() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 1 => Just(1)]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        3 => account().prop_map(Which::Oldest),
        3 => account().prop_map(Which::Running),
        2 => (0..8_usize).prop_map(Which::Any),
    ]
}

fn with() -> impl Strategy<Value = With> {
    prop_oneof![6 => Just(With::Latest), 1 => Just(With::First), 1 => Just(With::Nothing)]
}
