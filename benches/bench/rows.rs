//! What is measured for each row of the table, against what, and what has to be reached.

use std::time::Duration;

use crate::contender::Contender;
use crate::drain::{Case, Drained, drain};
use crate::report::{Report, Row, Target, median};
use crate::stage::Stage;
use crate::{Arguments, Part, idle, outcomes, start};

/// At which WeChat is tried with some time of its own.
pub const SLOW: Duration = Duration::from_millis(50);
/// How long WeChat is kept busy then, by Little's law.
const BUSY: usize = 5;
/// Starts for each run: one alone is too short to be trusted.
const STARTS: u16 = 5;

/// All that has to do with throughput where WeChat answers at once shares the floor's runs, and is interleaved with them.
pub async fn where_wechat_answers_at_once(stage: &Stage, arguments: &Arguments, report: &mut Report) {
    let many = match arguments.asks_for(Part::Outcomes) {
        true => Some(outcomes::ledger_with(stage, arguments.outcomes).await),
        false => None,
    };
    let (mut floor, mut sqlite, mut postgres, mut filled) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..usize::from(arguments.runs) {
        let case = Case { commands: arguments.commands, round, concurrency: 64, latency: Duration::ZERO };
        let mut run = async |name, contender, runs: &mut Vec<Drained>| {
            let drained = drain(stage, &contender, case).await;
            report.run("0 ms", name, &drained);
            runs.push(drained);
        };
        run("floor", Contender::Floor, &mut floor).await;
        run("worker, SQLite", Contender::Worker(stage.empty_ledger()), &mut sqlite).await;
        if arguments.asks_for(Part::Postgres) {
            run("worker, PostgreSQL", Contender::Worker(stage.empty_database()), &mut postgres).await;
        }
        if let Some(ledger) = &many {
            run("worker, many outcomes", Contender::Worker(ledger.clone()), &mut filled).await;
        }
    }
    if arguments.asks_for(Part::Instant) {
        let row = against("WeChat at 0 ms, 64 at once", "commands/s", &sqlite, &floor, per_second, Target::AtLeast(0.75));
        report.row(Row { guard: Some(Target::AtLeast(0.45)), ..row });
        let what = "WeChat at 0 ms, 64 at once: processor time";
        let row = against(what, "ms/1,000 commands", &sqlite, &floor, processor, Target::AtMost(2.0));
        report.row(Row { guard: Some(Target::AtMost(3.2)), ..row });
    }
    if arguments.asks_for(Part::Postgres) {
        let what = "the same, ledger in PostgreSQL";
        let row = against(what, "commands/s", &postgres, &floor, per_second, Target::AtLeast(0.5));
        report.row(Row { guard: Some(Target::AtLeast(0.2)), ..row });
    }
    if let Some(ledger) = &many {
        let what = format!("the same, {} outcomes in the ledger, to an empty one", arguments.outcomes);
        let empty = Some(median(&values(&sqlite, per_second)));
        report.row(Row { against: empty, ..against(&what, "commands/s", &filled, &floor, per_second, Target::AtLeast(0.9)) });
        let what = format!("start to ready, {} outcomes in the ledger", arguments.outcomes);
        report.row(starts(stage, arguments, ledger, what, 1_000.0).await);
    }
}

/// Against what Little's law allows.
pub async fn where_wechat_is_slow(stage: &Stage, arguments: &Arguments, report: &mut Report) {
    for (concurrency, least) in [(64, 0.97), (256, 0.92)] {
        let most = concurrency as f64 / SLOW.as_secs_f64();
        let (mut floor, mut worker) = (Vec::new(), Vec::new());
        for round in 0..usize::from(arguments.runs) {
            let case = Case { commands: most as usize * BUSY, round, concurrency, latency: SLOW };
            for (name, contender, runs) in
                [("floor", Contender::Floor, &mut floor), ("worker", Contender::Worker(stage.empty_ledger()), &mut worker)]
            {
                let drained = drain(stage, &contender, case).await;
                report.run(&format!("50 ms, {concurrency} at once"), name, &drained);
                runs.push(drained);
            }
        }
        let what = format!("WeChat at 50 ms, {concurrency} at once, to Little's {most:.0}/s");
        let row = against(&what, "commands/s", &worker, &floor, per_second, Target::AtLeast(least));
        report.row(Row { against: Some(most), guard: Some(Target::AtLeast(0.85)), ..row });
    }
}

/// The worker's alone: the floor's says nothing about what is too much.
pub async fn memory(stage: &Stage, arguments: &Arguments, report: &mut Report) {
    let mut peaks = Vec::new();
    for round in 0..usize::from(arguments.runs) {
        let case = Case { commands: arguments.backlog, round, concurrency: 64, latency: Duration::ZERO };
        let drained = drain(stage, &Contender::Worker(stage.empty_ledger()), case).await;
        report.run("backlog", "worker", &drained);
        peaks.push(drained.peak_memory);
    }
    let what = format!("peak memory, {} commands waiting", arguments.backlog);
    report.row(Row { what, unit: "MiB", worker: peaks, floor: Vec::new(), against: None, target: Target::Below(40.0), guard: None });
}

pub async fn idle(stage: &Stage, arguments: &Arguments, report: &mut Report) {
    // Of the floor, and of the worker.
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..arguments.runs {
        for (of, contender) in measured.iter_mut().zip([Contender::Floor, Contender::Worker(stage.empty_ledger())]) {
            let latencies = idle::latencies(stage, &contender).await;
            report.run("idle", if let Contender::Floor = contender { "floor" } else { "worker" }, &latencies);
            of.push(latencies);
        }
    }
    for (what, share, most) in [("p50", 0.5, 5.0), ("p99", 0.99, 20.0)] {
        let [floor, worker] = measured.each_ref().map(|runs| runs.iter().map(|run| run.at(share)).collect::<Vec<_>>());
        let what = format!("idle, from publishing a command to its event: {what}");
        report.row(Row {
            what,
            unit: "ms",
            against: Some(median(&floor)),
            worker,
            floor,
            target: Target::Below(most),
            guard: Some(Target::AtMost(4.0)),
        });
    }
}

/// The queues are there, and the ledger too, as after an update.
pub async fn start(stage: &Stage, arguments: &Arguments, report: &mut Report) {
    let ledger = stage.empty_ledger();
    start::until_ready(stage, &ledger).await;
    report.row(starts(stage, arguments, &ledger, "start to ready".to_owned(), 300.0).await);
}

async fn starts(stage: &Stage, arguments: &Arguments, ledger: &str, what: String, most: f64) -> Row {
    let mut times = Vec::new();
    for _ in 0..arguments.runs * STARTS {
        times.push(start::until_ready(stage, ledger).await.as_secs_f64() * 1_000.0);
    }
    Row { what, unit: "ms", worker: times, floor: Vec::new(), against: None, target: Target::Below(most), guard: None }
}

/// A row that compares with the floor.
fn against(what: &str, unit: &'static str, worker: &[Drained], floor: &[Drained], of: fn(&Drained) -> f64, target: Target) -> Row {
    let (worker, floor) = (values(worker, of), values(floor, of));
    Row { what: what.to_owned(), unit, against: Some(median(&floor)), worker, floor, target, guard: None }
}

fn values(runs: &[Drained], of: fn(&Drained) -> f64) -> Vec<f64> {
    runs.iter().map(of).collect()
}

fn per_second(drained: &Drained) -> f64 {
    drained.per_second
}

fn processor(drained: &Drained) -> f64 {
    drained.processor_ms
}
