//! What the ledger is asked, and how decisions share a transaction.

use tokio::sync::oneshot;

use super::sheet::{Keys, Sheet};
use super::{Attendance, FetchedToken, Fetcher, KeptPause, LedgerError, Position, StoredToken, TokenTurn, Wanted};
use crate::metrics::Metrics;
use crate::outcome::Scope;

/// Requests that share one transaction at most.
pub const BATCH: usize = 512;

/// What the ledger is asked.
pub enum Request {
    /// To be decided on records, together with whatever else waits.
    Decision(Box<dyn Decision>),
    /// Something besides commands.
    Errand(Errand),
}

/// A decision on records, and the answer once they are written. It may be made again, on other records, where a
/// transaction could not be ended.
pub trait Decision: Send {
    /// What has to be loaded.
    fn keys(&self) -> &Keys;
    fn decide(&mut self, sheet: &mut Sheet) -> Result<(), LedgerError>;
    /// Says to who asked what was committed, or why nothing was.
    fn answer(self: Box<Self>, committed: Result<(), LedgerError>);
}

/// To whom an answer is due.
pub type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// What the ledger remembers besides commands.
pub enum Errand {
    Pauses(Reply<Vec<KeptPause>>),
    KeepPause(KeptPause, Reply<()>),
    ForgetPause(String, Scope, Reply<()>),
    Token(String, Reply<Option<StoredToken>>),
    TokenTurn(Fetcher, Reply<TokenTurn>),
    EndTokenTurn(Fetcher, Reply<()>),
    SaveToken(FetchedToken, Reply<bool>),
    Wanted(String, Reply<Vec<Wanted>>),
    Prune(Position, Reply<Pruned>),
    Probe(Reply<()>),
    Attend(Reply<Attendance>),
    Leave(Reply<()>),
    Close(Reply<()>),
}

/// How far pruning has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Outcomes that were forgotten.
    pub forgotten: usize,
    /// Where to go on; nothing where the rest is younger than the retention.
    pub next: Option<Position>,
}

/// A question that waits for its answer.
pub struct Asked<T, F> {
    pub keys: Keys,
    pub work: F,
    pub result: Option<Result<T, LedgerError>>,
    pub reply: Reply<T>,
}

impl<T, F> Decision for Asked<T, F>
where
    T: Send,
    F: FnMut(&mut Sheet) -> Result<T, LedgerError> + Send,
{
    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn decide(&mut self, sheet: &mut Sheet) -> Result<(), LedgerError> {
        let result = (self.work)(sheet);
        let went_well = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        went_well
    }

    fn answer(self: Box<Self>, committed: Result<(), LedgerError>) {
        let Self { result, reply, .. } = *self;
        // Who has stopped waiting needs no answer.
        drop(reply.send(committed.and_then(|()| result.unwrap_or(Err(LedgerError::Closed)))));
    }
}

/// Parts what waits: decisions share a transaction, errands are run one by one.
pub fn part(batch: &mut Vec<Request>) -> (Vec<Box<dyn Decision>>, Vec<Errand>) {
    let (mut decisions, mut errands) = (Vec::with_capacity(batch.len()), Vec::new());
    for request in batch.drain(..) {
        match request {
            Request::Decision(decision) => decisions.push(decision),
            Request::Errand(errand) => errands.push(errand),
        }
    }
    (decisions, errands)
}

/// Makes all decisions of a transaction on one sheet; the first that can't be made undoes them all, since nobody may rely
/// on a part of them.
pub fn decide_all(decisions: &mut [Box<dyn Decision>], sheet: &mut Sheet) -> Result<(), LedgerError> {
    decisions.iter_mut().try_for_each(|decision| decision.decide(sheet))
}

/// All that has to be loaded for some decisions.
pub fn keys_of(decisions: &[Box<dyn Decision>]) -> Keys {
    let mut keys = Keys::default();
    for decision in decisions {
        keys.join(decision.keys());
    }
    keys
}

/// Counts the outcomes that a transaction has written: here and nowhere else, so that each is counted once, whoever is told.
pub fn count_ended(sheet: &Sheet, metrics: &Metrics) {
    for command in sheet.ended() {
        if let Some(ended) = &command.ended {
            metrics.finished(command.action, command.kf_account.as_deref(), ended.status, ended.reason);
        }
    }
}

/// Answers all that shared a transaction.
pub fn answer_all(decisions: Vec<Box<dyn Decision>>, committed: &Result<(), LedgerError>) {
    for decision in decisions {
        decision.answer(committed.clone());
    }
}
