//! The ledger's contract, held against real databases: every promise once for each of them, also across a restart.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;

use super::*;
use crate::command::{Decoded, Message, decode};
use crate::event::{History, Identity, conclude};
use crate::metrics::Metrics;
use crate::outcome::{Effect, Outcome, Status};

// Shared with the integration tests, which see the library from outside only: what these tests hold against a server is not
// public, and a server of their own is started, found and cleaned up in one way for both.
#[path = "../../tests/it/support/ports.rs"]
mod ports;
#[path = "../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "the integration tests use the rest of it")]
mod private_postgres;
#[path = "../../tests/it/support/script.rs"]
mod script;

use private_postgres::{Database, OwnServer, Pooler};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a test waits for anything before it fails.
const DEADLINE: Duration = Duration::from_secs(45);

/// A ledger's own place, in which it can be closed and opened again.
enum Fixture {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

/// An open ledger, with the claims that were made through it.
struct Opened {
    ledger: Ledger,
    claims: RefCell<HashMap<Position, Epoch>>,
}

impl Fixture {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        Self::Postgres(private_postgres::database())
    }

    /// Forgets all commands and accounts; nobody has it open.
    fn empty(&mut self) {
        match self {
            Self::Sqlite(_) => *self = Self::sqlite(),
            Self::Postgres(database) => database.execute("TRUNCATE kf_worker.command, kf_worker.account"),
        }
    }

    /// A claim has run out as soon as it is made, so that a worker which was closed is found dead at once.
    fn settings(&self) -> Settings {
        let place = match self {
            Self::Sqlite(folder) => Place::Sqlite(folder.path().join("ledger.db")),
            Self::Postgres(database) => Place::parse(database.url()).unwrap(),
        };
        Settings { place, retention: DAY, patience: DAY, lease: Duration::ZERO }
    }

    async fn open(&self) -> Opened {
        self.reopen(&self.settings()).await
    }

    /// Opens it as the next process would, once the last one has let go.
    async fn reopen(&self, settings: &Settings) -> Opened {
        let let_go = async {
            loop {
                match Ledger::open(settings, metrics()).await {
                    Ok(ledger) => return Opened { ledger, claims: RefCell::default() },
                    Err(OpenError::Sqlite(sqlite::OpenError::InUse(_))) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, let_go).await.expect("nobody has it open")
    }
}

impl Deref for Opened {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl Opened {
    async fn begin(&self, position: Position) -> Result<Claim, LedgerError> {
        let claim = self.ledger.begin(position, true).await?;
        if let Claim::Begun(begun) = &claim {
            self.claims.borrow_mut().insert(position, begun.epoch);
        }
        Ok(claim)
    }

    /// Records a wait with the claim that was made before it, if there was one.
    async fn wait(&self, position: Position, waiting: Waiting) -> Result<Option<Finished>, LedgerError> {
        let claim = self.claims.borrow_mut().remove(&position);
        let recorded = self.ledger.wait(position, Waiting { claim, ..waiting }).await?;
        assert_eq!(recorded.ending, Ending::Ours);
        Ok(recorded.finished)
    }

    /// Records an outcome, likewise.
    async fn finish(&self, position: Position, conclusion: Conclusion, dead_letter: bool) -> Result<Finished, LedgerError> {
        let claim = self.claims.borrow_mut().remove(&position);
        let recorded = self.ledger.finish(position, claim, conclusion, dead_letter).await?;
        Ok(recorded.finished.unwrap())
    }
}

/// Makes a test for each database of each function.
macro_rules! for_every_database {
    ($($name:ident,)+) => {
        mod sqlite_ledger {
            $(#[tokio::test] async fn $name() { super::$name(super::Fixture::sqlite()).await; })+
        }
        mod postgres_ledger {
            $(#[tokio::test] async fn $name() { super::$name(super::Fixture::postgres()).await; })+
        }
    };
}

mod calls;
mod fleet;
mod memory;
mod model;
mod order;
mod reading;
mod sqlite_file;

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn message(body: &str) -> Message {
    Message { body: body.as_bytes().to_vec(), ..Message::default() }
}

fn arrived(message: &Message) -> Arrived {
    match decode(message) {
        Decoded::Command(command) => Arrived::Command(Arc::new(command)),
        Decoded::Refused(refused) => Arrived::Refused(Arc::new(refused)),
        Decoded::Unreadable(failure) => panic!("{failure:?}"),
    }
}

fn arrival(message: &Message) -> Arrival {
    Arrival { message: arrived(message), received_at: Timestamp::now(), origin: Origin::Producer }
}

/// `+id` adds the account `a@test`, `-id` deletes it; `+id#7` with a revision.
fn command(text: &str) -> Message {
    let (sign, rest) = text.split_at(1);
    let (id, revision) = rest.split_once('#').map_or((rest, String::new()), |(id, revision)| (id, format!(r#","revision":{revision}"#)));
    let what = if sign == "+" { r#""action":"add","nickname":"n""# } else { r#""action":"delete""# };
    message(&format!(r#"{{"command_id":"{id}",{what},"kf_account":"a@test"{revision}}}"#))
}

async fn accept(ledger: &Opened, text: &str) -> Acceptance {
    ledger.accept(vec![arrival(&command(text))]).await.unwrap().remove(0)
}

async fn ticket(ledger: &Opened, text: &str) -> Ticket {
    match accept(ledger, text).await {
        Acceptance::Unfinished(ticket) => ticket,
        other => panic!("{text}: {other:?}"),
    }
}

async fn finish(ledger: &Opened, text: &str, ticket: Ticket, effect: Effect) -> Finished {
    let Arrived::Command(command) = arrived(&command(text)) else { panic!("{text}") };
    let history = History { attempts: 1, received_at: ticket.received_at, finished_at: Timestamp::UNIX_EPOCH };
    let conclusion = conclude(&command.given, Identity::Generation(0), &Outcome::Succeeded(effect.into()), history);
    ledger.finish(ticket.position, conclusion, false).await.unwrap()
}

async fn begin(ledger: &Opened, ticket: Ticket) -> Begun {
    match ledger.begin(ticket.position).await.unwrap() {
        Claim::Begun(begun) => begun,
        other => panic!("{other:?}"),
    }
}

fn waiting(answer_lost: bool) -> Waiting {
    Waiting {
        reason: Reason::SystemBusy,
        answer: Some(Answer { errcode: -1, errmsg: "busy".to_owned() }),
        answer_lost,
        claim: None,
        called: true,
    }
}

fn status(acceptance: &Acceptance) -> (Status, Option<Reason>) {
    match acceptance {
        Acceptance::Decided(finished) | Acceptance::Repeat(finished) => (finished.conclusion.status, finished.conclusion.reason),
        other => panic!("{other:?}"),
    }
}
