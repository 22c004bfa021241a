//! Random interleavings of all that workers ask, held against a model of the contract after every step.
//!
//! The model is written from the contract alone; it shares words with the ledger and no judgement. What was once found is
//! kept in `found.rs` as a test of its own. `PROPTEST_CASES` asks for more cases.

mod answer;
mod found;
mod operation;
mod play;
mod stage;
mod state;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use answer::{Accepted, Question, Told, Why};
use operation::{ACCOUNTS, Arriving, Ask, By, How, Operation, Which, With, operations};
use play::Play;
use stage::{AccountRow, Stage};
use state::{Command, Ended, Lease, Model, Sent, Stand};

/// Workers at a database; a file has one.
const WORKERS: usize = 3;

#[test]
fn a_ledger_in_a_file_answers_as_the_model_does() {
    search(300, || Stage::new(Fixture::sqlite(), 1));
}

#[test]
fn a_ledger_in_a_database_answers_as_the_model_does() {
    search(100, || Stage::new(Fixture::postgres(), WORKERS));
}

/// Plays many lists of operations; of one that goes wrong the shortest that still does is told.
fn search<F: Future<Output = Stage>>(cases: u32, stage: impl FnOnce() -> F) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stage = RefCell::new(runtime.block_on(stage()));
    let steps = std::cell::Cell::new(0);
    let found = TestRunner::new(config).run(&operations(), |operations| {
        let mut stage = stage.borrow_mut();
        steps.set(steps.get() + operations.len());
        runtime.block_on(Play::of(&mut stage, &operations)).map_err(TestCaseError::fail)
    });
    found.unwrap_or_else(|error| panic!("{error}"));
    println!("{cases} cases, {} steps", steps.get());
}

/// Plays one list, in a ledger of each kind.
async fn play(fixture: Fixture, operations: &[Operation]) {
    let workers = if matches!(fixture, Fixture::Sqlite(_)) { 1 } else { WORKERS };
    let mut stage = Stage::new(fixture, workers).await;
    Play::of(&mut stage, operations).await.unwrap_or_else(|error| panic!("{error}"));
}
