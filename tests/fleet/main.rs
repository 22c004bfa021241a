//! One run of several workers that share a ledger: one is killed, one is stopped and woken, one joins, PostgreSQL dies and comes back; then every promise is checked.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

#[path = "../chaos/ledger.rs"]
#[allow(dead_code, reason = "its rows are those of every ledger, and are read from a file by others")]
mod ledger;
mod members;
mod order;
mod partitions;
mod plan;
#[path = "../chaos/verdict.rs"]
mod promises;
#[path = "../chaos/publication.rs"]
#[allow(dead_code, reason = "shared with the chaos run, which uses all of it")]
mod publication;
mod rows;
#[path = "../bad_day/simulator.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod simulator;
mod stage;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;
#[path = "../chaos/traffic.rs"]
mod traffic;
mod witness;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use order::Order;
use partitions::{TakenOver, taken_over};
use plan::Part;
use promises::Evidence;
use stage::{Deeds, Stage};
use support::rabbitmq::OwnNode;
use traffic::{Events, Published};

/// How the run calls itself.
const NAME: &str = "fleet";
/// How many commands are published each second.
const PACE: u32 = 160;

/// One run of several workers with one ledger.
#[derive(Parser)]
struct Arguments {
    /// What the commands are drawn from
    #[arg(long, default_value_t = rand::random::<u32>().into())]
    seed: u64,
    /// How many messages are published
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    commands: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("{NAME}: seed {} and {} messages (make fleet SEED={0} COMMANDS={1})", arguments.seed, arguments.commands);
    let folder = tempfile::Builder::new().prefix("kf-fleet-").tempdir().expect("a temporary folder").keep();
    let violations = run(&arguments, &folder).await;
    if violations.is_empty() {
        // Nobody needs it now; where it can't be removed it is only litter.
        let _ = std::fs::remove_dir_all(&folder);
        println!("{NAME}: all promises held");
        return ExitCode::SUCCESS;
    }
    for violation in &violations {
        println!("{NAME}: BROKEN: {violation}");
    }
    println!("{NAME}: {} violations with seed {}; logs and evidence are in {}", violations.len(), arguments.seed, folder.display());
    ExitCode::FAILURE
}

/// The whole run; gives every promise that was broken.
async fn run(arguments: &Arguments, folder: &Path) -> Vec<String> {
    let began = Instant::now();
    let node = OwnNode::start();
    let mut stage = Stage::build(folder, &node).await;
    let of_accounts = partitions::of_accounts(&stage.url).await;
    let rests = Duration::from_secs((arguments.commands / PACE).into());
    let plan = plan::draw(arguments.seed, arguments.commands as usize, rests);
    let (published, events) = (Mutex::new(Published::default()), Mutex::new(Events::default()));
    let url = stage.url.clone();
    let (deeds, drained) = tokio::select! {
        ended = async {
            let (deeds, ()) = tokio::join!(stage.ordeal(arguments.commands, &published), produce(&url, plan, &published));
            println!("{NAME}: all is published after {:.0?}; everything comes to rest", began.elapsed());
            (deeds, stage.drain(&published, &events).await)
        } => ended,
        () = traffic::collect(&url, &events) => panic!("the results could not be read"),
        () = tell_progress(began, &published, &events) => panic!("the progress could not be told"),
    };
    let mut violations: Vec<String> = drained.err().into_iter().collect();
    violations.extend(stage.members.end().await);
    let mut events = events.into_inner().expect("nobody panicked");
    events.all.extend(traffic::empty(&url, traffic::RESULTS).await);
    let evidence = stage.evidence(published.into_inner().expect("nobody panicked"), events).await;
    evidence.keep(folder);
    println!("{NAME}: {:.0?} in all", began.elapsed());
    violations.extend(evidence.judge());
    violations.extend(rows::claims(&stage.database));
    violations.extend(judge_calls(&stage, &evidence, &deeds, &of_accounts, folder));
    violations
}

/// What the witness saw; gives every promise that was broken.
fn judge_calls(stage: &Stage, evidence: &Evidence, deeds: &Deeds, of_accounts: &BTreeMap<String, usize>, folder: &Path) -> Vec<String> {
    let calls = stage.witness.calls();
    let lines: String = calls.iter().map(|call| format!("{call:?}\n")).collect();
    std::fs::write(folder.join("calls.txt"), lines).expect("the folder can be written");
    let found = Order { calls: &calls, rows: &evidence.rows, made_once_more: &evidence.made_once_more, woken: deeds.woken }.judge();
    let checks = [
        ("calls for a kf account never overlap, whoever makes them", &found.overlaps),
        ("calls come in order, and only for what is unfinished", &found.disorder),
    ];
    for (promise, broken) in checks {
        println!("{NAME}: {} {promise}", if broken.is_empty() { "held  " } else { "BROKEN" });
    }
    println!(
        "{NAME}: {} handovers of partitions, {} claims lost, {} deletes made once more, {} calls written late by the worker that was stopped, {} sessions with the broker",
        partitions::handovers(&calls, of_accounts),
        stage.members.logged("another worker has taken the command's account"),
        evidence.made_once_more.values().sum::<u64>(),
        found.late.len(),
        stage.members.logged("commands are being taken"),
    );
    for late in &found.late {
        println!("{NAME}: written late: {late}");
    }
    tell("SIGKILL", &taken_over(&calls, of_accounts, deeds.killed));
    tell("SIGSTOP", &taken_over(&calls, of_accounts, deeds.stopped));
    let first = calls.iter().find(|call| call.worker == deeds.joined.worker).map(|call| call.begun.saturating_sub(deeds.joined.at));
    println!("{NAME}: the worker that joined made its first call after {}", show(first));
    found.overlaps.into_iter().chain(found.disorder).collect()
}

fn tell(what: &str, times: &TakenOver) {
    println!(
        "{NAME}: after {what} of the worker of {} partitions: another one had finished a command of the first after {}, of the last after {}; what was in flight was called for again after {} at most",
        times.partitions,
        show(times.first),
        show(times.last),
        show(times.in_flight),
    );
}

fn show(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
}

async fn produce(url: &str, plan: Vec<Part>, published: &Mutex<Published>) {
    let never = CancellationToken::new();
    let producers = plan.into_iter().map(|part| traffic::produce(url, part, published, &never));
    futures_util::future::join_all(producers).await;
}

async fn tell_progress(began: Instant, published: &Mutex<Published>, events: &Mutex<Events>) {
    let mut ticks = interval(Duration::from_secs(10));
    loop {
        ticks.tick().await;
        let messages = published.lock().expect("nobody panics here").confirmed.values().sum::<u64>();
        let results = events.lock().expect("nobody panics here").answered.len();
        println!("{NAME}: {:>4.0?}  {messages} messages published, {results} commands with a result", began.elapsed());
    }
}

/// Rests, unless it is time to stop; then it says `false`.
async fn rest(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = sleep(time) => !stop.is_cancelled(),
        () = stop.cancelled() => false,
    }
}
