//! What the worker holds of its ledger: questions and answers, whichever database is behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::request::{Asked, Errand, Reply, Request};
use super::sheet::{Keys, Sheet};
use super::{
    Acceptance, Arrival, Arrived, Attendance, Claim, CleanUp, Epoch, FetchedToken, Fetcher, Finished, KeptPause, LedgerError, Obstacle,
    OpenError, Place, Position, Recorded, Settings, StoredToken, TokenTurn, Waiting, Wanted, postgres, sqlite,
};
use crate::event::Conclusion;
use crate::metrics::{LedgerOperation as Operation, Metrics};
use crate::outcome::Scope;

/// A handle on the ledger; clones share what writes to it, which ends when the last is dropped.
#[derive(Clone)]
pub struct Ledger {
    requests: mpsc::UnboundedSender<Request>,
    id: String,
    shared: bool,
    lease: Duration,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// Opens the ledger, makes it where there is none, and brings an older one to this version's form.
    ///
    /// # Errors
    /// Where it can't be reached, is another worker's alone, or is no ledger of this or an older version.
    pub async fn open(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let (requests, queue) = mpsc::unbounded_channel();
        let id = match &settings.place {
            Place::Sqlite(path) => sqlite::start(path, settings, Arc::clone(&metrics), queue)?,
            Place::Postgres(url) => postgres::start(url, settings, Arc::clone(&metrics), queue).await?,
        };
        Ok(Self { requests, id, shared: settings.place.is_shared(), lease: settings.lease, metrics })
    }

    /// Who this ledger is; put-off copies carry it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What a dead letter of this ledger carries, and nobody can know who has not read it: by this its replay is recognised.
    pub fn proof(&self, dead_id: &str) -> String {
        // The zero byte keeps the two apart; half of it is more than anybody can guess.
        let digest = Sha256::new().chain_update(self.id.as_bytes()).chain_update([0]).chain_update(dead_id).finalize();
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How long a claim lasts.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether other workers may use it at the same time.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Accepts arrivals in their order, in one transaction. The answers come in the same order.
    ///
    /// # Errors
    /// Where the ledger can't be written; then nothing was accepted.
    pub async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<Acceptance>, LedgerError> {
        let mut keys = Keys::default();
        for arrival in &arrivals {
            let command_id = match &arrival.message {
                Arrived::Command(command) => {
                    keys.kf_accounts.insert(command.account.as_str().to_owned());
                    &command.given.command_id
                }
                Arrived::Refused(refused) => &refused.given.command_id,
            };
            keys.command_ids.insert(command_id.clone());
        }
        keys.arrivals = arrivals.len();
        self.decide(Operation::Accept, keys, move |sheet| arrivals.iter().map(|arrival| sheet.accept(arrival)).collect()).await
    }

    /// Claims a command's account for one call to WeChat and counts the call. `alone` says that this worker makes no other
    /// call meanwhile.
    ///
    /// # Errors
    /// Where the ledger can't be written; then WeChat must not be called.
    pub async fn begin(&self, position: Position, alone: bool) -> Result<Claim, LedgerError> {
        self.decide(Operation::Begin, Keys::position(position), move |sheet| sheet.begin(position, alone)).await
    }

    /// What stands in the way of a command's beginning, where something does.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn obstacle(&self, position: Position) -> Result<Option<Obstacle>, LedgerError> {
        self.decide(Operation::Other, Keys::position(position), move |sheet| sheet.obstacle(position)).await
    }

    /// Records that a command waits, and why; a claim is given back. Answers its outcome where a newer command
    /// superseded it.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn wait(&self, position: Position, waiting: Waiting) -> Result<Recorded, LedgerError> {
        self.decide(Operation::Wait, Keys::position(position), move |sheet| sheet.wait(position, &waiting)).await
    }

    /// The outcome of a waiting command, where a newer one superseded it meanwhile.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn check(&self, position: Position) -> Result<Option<Finished>, LedgerError> {
        self.decide(Operation::Other, Keys::position(position), move |sheet| sheet.finished(position)).await
    }

    /// Writes the outcome of a command, reached with this claim where WeChat was called; where it has one already, that
    /// one stands and is answered.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it is not known whether the command has an outcome.
    pub async fn finish(
        &self,
        position: Position,
        claim: Option<Epoch>,
        conclusion: Conclusion,
        dead_letter: bool,
    ) -> Result<Recorded, LedgerError> {
        self.decide(Operation::Finish, Keys::position(position), move |sheet| sheet.finish(position, claim, &conclusion, dead_letter)).await
    }

    /// Records that the dead letter owed for a command is in its queue.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn dead_lettered(&self, position: Position) -> Result<(), LedgerError> {
        self.decide(Operation::Other, Keys::position(position), move |sheet| sheet.dead_lettered(position)).await
    }

    /// Records that carrying out a command has panicked.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn panicked(&self, position: Position) -> Result<(), LedgerError> {
        self.decide(Operation::Other, Keys::position(position), move |sheet| sheet.panicked(position)).await
    }

    /// Gives back what is in flight at an orderly end, so that it does not look like a death.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it will look like one.
    pub async fn release(&self) -> Result<(), LedgerError> {
        let keys = Keys { claimed: true, ..Keys::default() };
        self.decide(Operation::Other, keys, Sheet::release).await
    }

    /// Claims an account to delete it once more.
    ///
    /// # Errors
    /// Where the ledger can't be written; then WeChat must not be called.
    pub async fn begin_clean_up(&self, kf_account: String) -> Result<CleanUp, LedgerError> {
        self.decide(Operation::Begin, Keys::account(&kf_account), move |sheet| Ok(sheet.begin_clean_up(&kf_account))).await
    }

    /// Gives the claim of a clean-up back.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it runs out by itself.
    pub async fn end_clean_up(&self, kf_account: String, claim: Epoch) -> Result<(), LedgerError> {
        let keys = Keys::account(&kf_account);
        self.decide(Operation::Other, keys, move |sheet| {
            sheet.end_clean_up(&kf_account, claim);
            Ok(())
        })
        .await
    }

    /// The pauses that outlived the last process.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn pauses(&self) -> Result<Vec<KeptPause>, LedgerError> {
        self.send(Errand::Pauses).await
    }

    /// Remembers a pause, in place of the one of its scope.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn keep_pause(&self, pause: KeptPause) -> Result<(), LedgerError> {
        self.send(|reply| Errand::KeepPause(pause, reply)).await
    }

    /// Forgets the pause of a scope.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn forget_pause(&self, wechat_id: String, scope: Scope) -> Result<(), LedgerError> {
        self.send(|reply| Errand::ForgetPause(wechat_id, scope, reply)).await
    }

    /// The token that was kept for an owner.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn token(&self, owner: String) -> Result<Option<StoredToken>, LedgerError> {
        self.send(|reply| Errand::Token(owner, reply)).await
    }

    /// Takes the turn to fetch an owner's token. Whoever has it and takes it again has it for as long anew.
    ///
    /// # Errors
    /// Where the ledger can't be written; then nothing must be fetched.
    pub async fn token_turn(&self, fetcher: Fetcher) -> Result<TokenTurn, LedgerError> {
        self.send(|reply| Errand::TokenTurn(fetcher, reply)).await
    }

    /// Gives a turn back in which no token was fetched.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it runs out by itself.
    pub async fn end_token_turn(&self, fetcher: Fetcher) -> Result<(), LedgerError> {
        self.send(|reply| Errand::EndTokenTurn(fetcher, reply)).await
    }

    /// Keeps a token in the place of the one that its owner had when it was fetched, and ends the turn. Answers whether it
    /// is kept: not where another one was kept meanwhile with the same configuration.
    ///
    /// # Errors
    /// Where the ledger can't be written; then it must not be used.
    pub async fn save_token(&self, token: FetchedToken) -> Result<bool, LedgerError> {
        self.send(|reply| Errand::SaveToken(token, reply)).await
    }

    /// What every known account of an Official Account should be.
    ///
    /// # Errors
    /// Where the ledger can't be read.
    pub async fn wanted(&self, wechat_id: String) -> Result<Vec<Wanted>, LedgerError> {
        self.send(|reply| Errand::Wanted(wechat_id, reply)).await
    }

    /// Forgets outcomes that are older than the retention, a few in each transaction, so that nobody waits long behind it.
    /// Tells how many it has come to, and answers how many there were.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn prune_all(&self, mut progress: impl FnMut(usize)) -> Result<usize, LedgerError> {
        let (mut forgotten, mut after) = (0, Position(0));
        loop {
            let pruned = self.send(|reply| Errand::Prune(after, reply)).await?;
            forgotten += pruned.forgotten;
            progress(forgotten);
            match pruned.next {
                Some(next) => after = next,
                None => return Ok(forgotten),
            }
        }
    }

    /// Proves that the ledger can be written.
    ///
    /// # Errors
    /// Where it can't.
    pub async fn probe(&self) -> Result<(), LedgerError> {
        self.send(Errand::Probe).await
    }

    /// Says that this worker is alive and takes commands, and counts those of which the same is known.
    ///
    /// # Errors
    /// Where the ledger can't be written.
    pub async fn attend(&self) -> Result<Attendance, LedgerError> {
        self.send(Errand::Attend).await
    }

    /// Says that this worker takes no more commands.
    ///
    /// # Errors
    /// Where the ledger can't be written; then the others find out after a while.
    pub async fn leave(&self) -> Result<(), LedgerError> {
        self.send(Errand::Leave).await
    }

    /// Ends in order: what this worker wrote to a file is in that file, and no more in the log beside it.
    ///
    /// # Errors
    /// Where the ledger can't be written; nothing is lost by that.
    pub async fn close(&self) -> Result<(), LedgerError> {
        self.send(Errand::Close).await
    }

    async fn decide<T: Send + 'static>(
        &self,
        operation: Operation,
        keys: Keys,
        work: impl FnMut(&mut Sheet) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.ask(operation, |reply| Request::Decision(Box::new(Asked { keys, work, result: None, reply }))).await
    }

    async fn send<T>(&self, errand: impl FnOnce(Reply<T>) -> Errand) -> Result<T, LedgerError> {
        self.ask(Operation::Other, |reply| Request::Errand(errand(reply))).await
    }

    async fn ask<T>(&self, operation: Operation, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LedgerError> {
        let asked_at = Instant::now();
        let (reply, answer) = oneshot::channel();
        let answer = match self.requests.send(request(reply)) {
            Ok(()) => answer.await.unwrap_or(Err(LedgerError::Closed)),
            Err(_) => Err(LedgerError::Closed),
        };
        self.metrics.ledger(operation, asked_at.elapsed(), answer.is_ok());
        answer
    }
}
