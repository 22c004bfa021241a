//! Plays a list of operations with a ledger and its model, and compares them after each.

/// Fails the play, with words.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => { if !$holds { return Err(format!($($words)+)); } };
}

mod asking;
mod compare;
mod lookup;

use futures_util::future::{BoxFuture, join_all};
use serde_json::Value;

use super::*;

/// When the first operation happens, in seconds since 1970.
const START: i64 = 1_700_000_000;

/// A claim that a worker made.
struct Claimed {
    worker: usize,
    account: usize,
    /// Where it was made for a command.
    place: Option<usize>,
    /// As the model counts, and as the ledger does.
    count: u64,
    epoch: Epoch,
}

pub struct Play<'a> {
    stage: &'a mut Stage,
    model: Model,
    /// All that were ever sent.
    messages: Vec<Sent>,
    /// Where each place of the model stands in the ledger.
    positions: Vec<Position>,
    claims: Vec<Claimed>,
    /// Every outcome that was ever seen, byte for byte.
    outcomes: HashMap<(usize, u32), String>,
    revisions: HashMap<usize, i64>,
    epochs: HashMap<usize, i64>,
    /// The command of each account that was the last to begin.
    begun: HashMap<usize, usize>,
    now: i64,
}

/// What the ledger answered, as it did.
enum Raw {
    Accepted(Vec<Acceptance>),
    Claim(Claim),
    CleanUp(CleanUp),
    Obstacle(Option<Obstacle>),
    Recorded(Recorded),
    Finished(Option<Finished>),
    Done,
}

impl<'a> Play<'a> {
    pub async fn of(stage: &'a mut Stage, operations: &[Operation]) -> Result<(), String> {
        stage.clear().await;
        let model = Model::new(stage.is_shared());
        let mut play = Self {
            stage,
            model,
            messages: Vec::new(),
            positions: Vec::new(),
            claims: Vec::new(),
            outcomes: HashMap::new(),
            revisions: HashMap::new(),
            epochs: HashMap::new(),
            begun: HashMap::new(),
            now: START,
        };
        for (index, operation) in operations.iter().enumerate() {
            play.now += 1;
            let told = |error| format!("at {index}, {operation:?}: {error}");
            play.step(operation).await.map_err(told)?;
            play.compare().await.map_err(told)?;
        }
        Ok(())
    }

    async fn step(&mut self, operation: &Operation) -> Result<(), String> {
        let workers = self.stage.workers.len();
        match operation {
            Operation::Ask(by, asks) => return self.ask(*by, asks).await,
            Operation::Crash(worker) => self.crash(worker % workers, None).await,
            Operation::Release(worker) => {
                let worker = &self.stage.workers[worker % workers];
                self.model.release(worker.name);
                worker.ledger.release().await.map_err(|error| error.to_string())?;
            }
            Operation::Lapse(account) if self.model.shared => {
                self.model.lapse(*account);
                let over =
                    format!("UPDATE account SET lease_until = 'epoch' WHERE kf_account = '{}' AND holder IS NOT NULL", name(*account));
                self.stage.execute(&over).await;
            }
            Operation::Lapse(_) => {}
            Operation::Unseen(which) => self.hide(*which).await,
            Operation::Prune(account) => {
                let ended = if self.model.shared { "'epoch'" } else { "0" };
                let old =
                    format!("UPDATE command SET finished_at = {ended} WHERE finished_at IS NOT NULL AND kf_account = '{}'", name(*account));
                self.stage.execute(&old).await;
                let (forgotten, expected) = (self.stage.workers[0].ledger.prune_all(|_| {}).await, self.model.prune(*account));
                ensure!(forgotten.as_ref().ok() == Some(&expected), "{forgotten:?} were forgotten, not {expected}");
            }
        }
        Ok(())
    }

    async fn crash(&mut self, worker: usize, meanwhile: Option<&str>) {
        let dead = self.stage.replace(worker, meanwhile).await;
        self.model.crash(dead);
        self.claims.retain(|claim| claim.worker != dead);
        if !self.model.shared {
            self.epochs.clear();
        }
    }

    /// Whoever holds a call holds its message too. A file's worker knows by heart when it saw a message: it dies over it.
    async fn hide(&mut self, which: Which) {
        let Some(place) = self.find(which).filter(|place| self.is_unfinished(*place)) else { return };
        if self.model.commands[&place].stand == Stand::Running {
            return;
        }
        self.model.change(place).seen = false;
        let at = if self.model.shared { "'epoch'" } else { "0" };
        let statement = format!("UPDATE command SET seen_at = {at} WHERE position = {}", self.positions[place].0);
        if self.model.shared { self.stage.execute(&statement).await } else { self.crash(0, Some(&statement)).await }
    }

    async fn ask(&mut self, by: By, asks: &[Ask]) -> Result<(), String> {
        let holder = |account: usize| {
            let lease = self.model.accounts[account].lease?;
            self.stage.workers.iter().position(|worker| worker.name == lease.worker)
        };
        let index = match by {
            By::Worker(worker) => worker % self.stage.workers.len(),
            By::Holder(account) => holder(account).unwrap_or(0),
        };
        let worker = self.stage.workers[index].name;
        let mut questions: Vec<Question> = asks.iter().filter_map(|ask| self.question(worker, ask)).collect();
        // What can't be answered takes all with it that shares its transaction.
        if questions.len() > 1 {
            questions.retain(|question| question.place().is_none_or(|place| self.model.commands.contains_key(&place)));
        }
        let mut expected = Vec::new();
        let mut counts = Vec::new();
        let mut sent = Vec::new();
        for question in &questions {
            sent.push(self.send(index, question));
            expected.push(self.model.ask(worker, question));
            counts.push(self.model.accounts.iter().map(|account| account.epoch).collect::<Vec<_>>());
        }
        let answers = join_all(sent).await;
        for (((question, answer), expected), counts) in questions.iter().zip(answers).zip(expected).zip(counts) {
            self.learn(worker, question, &answer, &counts)?;
            let told = self.told(answer)?;
            ensure!(told == expected, "\n{question:?} is answered\n{told:?}, not\n{expected:?}");
        }
        Ok(())
    }

    /// Takes note of a claim, and holds that an account's commands begin in their order.
    fn learn(&mut self, worker: usize, question: &Question, answer: &Result<Raw, LedgerError>, counts: &[u64]) -> Result<(), String> {
        let (account, place, epoch) = match (question, answer) {
            (Question::Begin { place, .. }, Ok(Raw::Claim(Claim::Begun(begun)))) => {
                let account = self.model.commands[place].sent.account;
                let last = self.begun.get(&account).copied();
                self.begun.insert(account, last.map_or(*place, |last| last.max(*place)));
                let newest = self.model.accounts[account].latest.map(|(_, place)| place);
                // What was not seen for long may come after newer ones, as long as the newest is still to come.
                let in_order = last.is_none_or(|last| last <= *place || newest.is_some_and(|newest| newest > last));
                ensure!(in_order, "{place} begins after {last:?}, which is the newest");
                (account, Some(*place), begun.epoch)
            }
            (Question::CleanUp(account), Ok(Raw::CleanUp(CleanUp::Begun(epoch)))) => (*account, None, *epoch),
            _ => return Ok(()),
        };
        self.claims.push(Claimed { worker, account, place, count: counts[account], epoch });
        Ok(())
    }
}

fn name(account: usize) -> String {
    format!("a{account}@test")
}
