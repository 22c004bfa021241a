//! `make bench`: the worker against its floor (`benches/floor.rs`), interleaved, at the same broker and the same simulated WeChat.

#![expect(clippy::expect_used, clippy::panic, reason = "in a benchmark a panic is the verdict, in its helpers as well")]

mod contender;
mod drain;
mod idle;
#[path = "../../tests/scaling/load.rs"]
#[allow(dead_code, reason = "shared with `make scaling`, which uses all of it")]
mod load;
mod machine;
mod outcomes;
mod process;
mod report;
mod rows;
#[path = "../../tests/bad_day/simulator.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod simulator;
mod stage;
mod start;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
mod support;
#[path = "../../tests/bad_day/table.rs"]
mod table;
mod wechat;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use report::Report;
use rows::SLOW;
use stage::Stage;
use wechat::Caller;

/// An Official Account may take half of the calls at once while others wait, so there are several: none of them ever has half.
pub const OFFICIAL_ACCOUNTS: [&str; 10] = ["oa0", "oa1", "oa2", "oa3", "oa4", "oa5", "oa6", "oa7", "oa8", "oa9"];

/// What is measured, in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// Commands a second and processor time where WeChat answers at once, with a ledger in SQLite
    Instant,
    /// The same with a ledger in PostgreSQL
    Postgres,
    /// The same with a ledger that holds many outcomes, and how long the worker takes to start with it
    Outcomes,
    /// Commands a second where WeChat takes 50 ms
    Slow,
    /// Peak memory with many commands waiting
    Memory,
    /// From publishing one command to its event, with nothing else to do
    Idle,
    /// From starting the program to being ready
    Start,
}

/// The worker against the smallest honest loop.
#[derive(Parser)]
struct Arguments {
    /// Measure these alone; may be a list
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    rows: Vec<Part>,
    /// How often each is measured; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Commands of a run where WeChat answers at once
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = at_least_a_thousand)]
    commands: usize,
    /// Commands that wait when peak memory is measured
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = at_least_a_thousand)]
    backlog: usize,
    /// Outcomes in the ledger that holds many
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = at_least_a_thousand)]
    outcomes: usize,
    /// End with 1 where a row has become worse, as a ratio to the floor, than it once was
    #[arg(long)]
    guard: bool,
    /// What `cargo bench` tells every benchmark
    #[arg(long = "bench", hide = true)]
    _told_by_cargo: bool,
}

impl Arguments {
    fn asks_for(&self, part: Part) -> bool {
        self.rows.is_empty() || self.rows.contains(&part)
    }
}

fn at_least_a_thousand(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number >= 1_000).ok_or_else(|| "it must be a number, and 1000 at least".to_owned())
}

#[tokio::main]
async fn main() {
    let (arguments, began) = (Arguments::parse(), Instant::now());
    // Nothing here is encrypted, but the client of HTTP wants to know by whom it would be.
    rustls::crypto::ring::default_provider().install_default().expect("nobody has chosen before");
    let stage = Stage::set(arguments.asks_for(Part::Postgres)).await;
    let mut report = Report::new(stage.machine());
    let caller = Arc::new(Caller::new().await);
    for latency in [Duration::ZERO, SLOW] {
        let took = caller.one_call(latency).await.as_secs_f64() * 1_000.0;
        report.note(format!("a call by itself that is to take {} ms takes {took:.1} ms", latency.as_millis()));
    }
    report.note(format!("the simulated WeChat by itself answers {:.0} calls a second", caller.calls_a_second().await));
    if [Part::Instant, Part::Postgres, Part::Outcomes].into_iter().any(|part| arguments.asks_for(part)) {
        rows::where_wechat_answers_at_once(&stage, &arguments, &mut report).await;
    }
    if arguments.asks_for(Part::Slow) {
        rows::where_wechat_is_slow(&stage, &arguments, &mut report).await;
    }
    if arguments.asks_for(Part::Memory) {
        rows::memory(&stage, &arguments, &mut report).await;
    }
    if arguments.asks_for(Part::Idle) {
        rows::idle(&stage, &arguments, &mut report).await;
    }
    if arguments.asks_for(Part::Start) {
        rows::start(&stage, &arguments, &mut report).await;
    }
    report.show(began.elapsed());
    if arguments.guard && !report.is_guarded() {
        std::process::exit(1);
    }
}
