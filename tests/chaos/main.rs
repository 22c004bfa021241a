//! One long randomised run of the real programs: random commands, faults at WeChat, SIGKILLs of worker and broker; then every promise is checked.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

mod deaths;
mod drain;
mod form;
mod hurry;
mod ledger;
mod node;
mod plan;
mod publication;
mod report;
mod series;
#[path = "../bad_day/simulator.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod simulator;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;
mod traffic;
mod verdict;
mod wechat;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use deaths::Workers;
use drain::{QUEUES, drain};
use node::Node;
use report::Report;
use series::Seeds;
use traffic::{Events, Published};
use verdict::Evidence;
use wechat::Simulator;

/// How the run calls itself.
const NAME: &str = "chaos";

/// One long randomised run against everything that is promised.
#[derive(Parser)]
struct Arguments {
    /// What all chance is drawn from; the same seed draws the same commands, faults and deaths (their moments vary)
    #[arg(long, default_value_t = rand::random::<u32>().into())]
    seed: u64,
    /// How long commands are published and things killed at most; it ends earlier once enough has died
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    seconds: u32,
    /// Many runs instead of one: so many new seeds (`20`), or these (`1-20`, `1,5,7`)
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<Seeds>,
    /// Where the figures and the verdict go, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Deaths after which a run may end: fewer in one that is short.
struct Deaths {
    workers: u32,
    brokers: u32,
}

impl Deaths {
    fn in_so_many(seconds: u32) -> Self {
        Self { workers: (seconds / 5).min(20), brokers: (seconds / 24).clamp(1, 5) }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seeds) = &arguments.seeds {
        return if series::run(seeds, arguments.seconds).await { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("chaos: seed {} for at most {} s (make chaos SEED={0} SECONDS={1})", arguments.seed, arguments.seconds);
    let folder = tempfile::Builder::new().prefix("kf-chaos-").tempdir().expect("a temporary folder").keep();
    let report = run(&arguments, &folder).await;
    if let Some(path) = &arguments.report {
        report.write(path);
    }
    let violations = report.violations;
    if violations.is_empty() {
        // Nobody needs it now; where it can't be removed it is only litter.
        let _ = std::fs::remove_dir_all(&folder);
        println!("chaos: all promises held");
        return ExitCode::SUCCESS;
    }
    for violation in &violations {
        println!("chaos: BROKEN: {violation}");
    }
    println!("chaos: {} violations with seed {}; logs and ledger are in {}", violations.len(), arguments.seed, folder.display());
    ExitCode::FAILURE
}

/// The whole run, and what came of it.
async fn run(arguments: &Arguments, folder: &Path) -> Report {
    let began = Instant::now();
    let length = Duration::from_secs(arguments.seconds.into());
    let mut node = Node::start(folder.join("rabbitmq")).await;
    let url = node.url();
    let simulator = Simulator::start().await;
    let mut workers = Workers::start(folder, hurry::settings(&url, &simulator, folder)).await;
    traffic::declare_results(&url).await;
    node.has_saved(&[QUEUES.as_slice(), &[traffic::RESULTS, "kf.dead"]].concat()).await;

    let (published, events) = (Mutex::new(Published::default()), Mutex::new(Events::default()));
    let drained = tokio::select! {
        drained = async {
            storm(arguments, length, &mut node, &mut workers, &simulator, &published).await;
            println!("chaos: the storm is over after {:.0?}; everything comes to rest", began.elapsed());
            let held = async || {
                workers.keep_up();
                workers.held().await
            };
            drain(&url, held, &published, &events).await
        } => drained,
        () = traffic::collect(&url, &events) => Err("the results could not be read".to_owned()),
        () = tell_progress(began, &published, &events) => Err("the progress could not be told".to_owned()),
    };
    let exit_code = workers.terminate().await;
    let mut events = events.into_inner().expect("nobody panicked");
    events.all.extend(traffic::empty(&url, traffic::RESULTS).await);
    let evidence = Evidence {
        published: published.into_inner().expect("nobody panicked"),
        events: events.all,
        rows: ledger::read(&folder.join("ledger.db")),
        dead: traffic::empty(&url, "kf.dead").await,
        waiting: traffic::waiting(&url, &QUEUES).await.unwrap_or_default(),
        accounts: simulator.accounts().await,
        calls: simulator.calls().await,
        made_once_more: BTreeMap::new(),
    };
    evidence.keep(folder);
    let mut report = Report {
        seconds: began.elapsed().as_secs_f64(),
        messages: evidence.published.confirmed.values().sum(),
        commands: evidence.commands(),
        worker_kills: workers.kills,
        calls_cut_off: workers.calls_cut_off,
        broker_kills: node.kills.load(Ordering::Relaxed),
        fault_changes: simulator.changes(),
        violations: drained.err().into_iter().collect(),
    };
    println!(
        "chaos: {}, {} sessions with the broker, {} commands put off",
        report.figures(),
        workers.logged("commands are being taken"),
        workers.logged("a command was put off"),
    );
    let Deaths { workers: of_workers, brokers } = Deaths::in_so_many(arguments.seconds);
    if report.worker_kills < of_workers || report.broker_kills < brokers {
        println!("chaos: the time was too short for {of_workers} and {brokers}");
    }
    report.violations.extend((exit_code != Some(0)).then(|| format!("the worker ended with {exit_code:?} after SIGTERM")));
    report.violations.extend(workers.ended_by_itself.iter().map(|how| format!("a worker ended by itself: {how}")));
    report.violations.extend(evidence.judge());
    node.stop().await;
    report
}

/// Commands, faults and deaths, until enough has died and all is published, or the time is up.
async fn storm(
    arguments: &Arguments,
    length: Duration,
    node: &mut Node,
    workers: &mut Workers,
    simulator: &Simulator,
    published: &Mutex<Published>,
) {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    // Some 25 commands a second; the rests leave time for the waits while the broker is away.
    let plan = plan::draw(rng.random(), (arguments.seconds * 25) as usize, length.mul_f64(0.35), usize::MAX);
    let [of_faults, of_workers, of_node] = [(); 3].map(|()| StdRng::seed_from_u64(rng.random()));
    let (limit, enough, over) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (url, until) = (node.url(), Instant::now() + length);
    let deaths = Deaths::in_so_many(arguments.seconds);
    let all = async {
        tokio::join!(
            async {
                tokio::join!(
                    traffic::produce(&url, plan.into_iter().enumerate(), published, &limit),
                    node.die(of_node, deaths.brokers, until, &limit),
                );
                enough.cancel();
            },
            async {
                workers.die(of_workers, deaths.workers, until, simulator, &enough, &limit).await;
                over.cancel();
            },
            simulator.misbehave(of_faults, &over),
        );
    };
    let clock = async {
        sleep(length).await;
        limit.cancel();
        std::future::pending().await
    };
    tokio::select! {
        () = all => {}
        () = clock => {}
    }
}

async fn tell_progress(began: Instant, published: &Mutex<Published>, events: &Mutex<Events>) {
    let mut ticks = interval(Duration::from_secs(10));
    loop {
        ticks.tick().await;
        let (messages, results) = {
            let (published, events) = (published.lock().expect("nobody panics here"), events.lock().expect("nobody panics here"));
            (published.confirmed.values().sum::<u64>(), events.answered.len())
        };
        println!("chaos: {:>4.0?}  {messages} messages published, {results} commands with a result", began.elapsed());
    }
}

/// Rests, unless it is time to stop; then it says `false`.
async fn rest(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = sleep(time) => !stop.is_cancelled(),
        () = stop.cancelled() => false,
    }
}
