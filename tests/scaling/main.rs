//! A benchmark: how many commands a second one, two and three workers carry out, what one queue and either ledger carry, and how fast partitions are shared anew.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

mod crew;
mod database;
mod load;
#[path = "../bad_day/simulator.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod simulator;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;
#[path = "../bad_day/table.rs"]
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use crew::{Crew, Measured};
use simulator::Simulator;
use support::broker::Broker;
use support::ports::free_port;
use support::postgres::OwnServer;
use support::rabbitmq::OwnNode;
use support::worker::{Settings, Worker};
use table::print;

/// An Official Account may take half of the calls at once, so there are several.
pub const OFFICIAL_ACCOUNTS: [&str; 10] = ["oa0", "oa1", "oa2", "oa3", "oa4", "oa5", "oa6", "oa7", "oa8", "oa9"];
const PARTITIONS: usize = 12;
/// How long workers are given to share the partitions and to warm up, and for how long they are measured then.
const SETTLE: Duration = Duration::from_secs(12);
const STEADY: Duration = Duration::from_secs(10);
/// What a queue alone is measured with.
const RAW: usize = 20_000;

/// What all benchmarks stand on.
struct Bench {
    folder: PathBuf,
    node: OwnNode,
    postgres: OwnServer,
}

/// One benchmark's own queues and settings.
struct Case {
    prefix: String,
    partitions: usize,
    concurrency: usize,
    latency: &'static str,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Workers,
    Ledgers,
    Queues,
}

/// A benchmark of workers, ledgers and queues.
#[derive(Parser)]
struct Arguments {
    /// Measure this alone
    #[arg(long)]
    only: Option<Part>,
}

#[tokio::main]
async fn main() {
    let Arguments { only } = Arguments::parse();
    let is_asked_for = |part| only.is_none_or(|only| only == part);
    let folder = tempfile::Builder::new().prefix("kf-scaling-").tempdir().expect("a temporary folder");
    let bench = Bench { folder: folder.path().to_owned(), node: OwnNode::start(), postgres: OwnServer::start() };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    println!("scaling: {processors} processors, with RabbitMQ, PostgreSQL, WeChat's simulator and all workers on them");
    if is_asked_for(Part::Workers) {
        bench.crews("s", 16, 60_000).await;
        bench.crews("l", 64, 130_000).await;
    }
    if is_asked_for(Part::Ledgers) {
        bench.ledgers().await;
    }
    if is_asked_for(Part::Queues) {
        bench.queues().await;
    }
}

impl Bench {
    /// One worker, then a second and a third, then two again, all from one backlog.
    async fn crews(&self, name: &str, concurrency: usize, backlog: usize) {
        let case = Case { prefix: format!("kf-{name}"), partitions: PARTITIONS, concurrency, latency: "50ms" };
        let database = self.postgres.database();
        let (simulator, broker) = self.prepare(&case, database.url(), backlog).await;
        let mut crew = Crew::new(&self.folder.join(name), self.settings(&case, database.url(), &simulator));
        let mut rows = Vec::new();
        for what in ["one worker", "a second joins", "a third joins", "the third leaves"] {
            if what == "the third leaves" {
                crew.leave().await
            } else {
                crew.join()
            }
            let mut loads = Vec::new();
            let measured = crew.watch(SETTLE, STEADY, async || loads.push(database::load(&database))).await;
            let memory = crew.memory().await;
            let connections = database::connections(&database);
            rows.push(row(what, &measured, &memory, &loads, &connections));
        }
        self.was_enough(&case, &broker).await;
        let ceiling = if concurrency == 16 { " (at most 320 a second for each worker)" } else { "" };
        let title =
            format!("Workers at {PARTITIONS} partitions, WeChat answers after {}, worker.concurrency {concurrency}{ceiling}", case.latency);
        print(&title, &HEADS, &rows);
        crew.end().await;
    }

    /// One worker with either ledger and with one queue or several, where WeChat answers at once.
    async fn ledgers(&self) {
        let mut rows = Vec::new();
        let cases = [
            ("a", "SQLite", 1, 64),
            ("b", "SQLite", 4, 64),
            ("c", "PostgreSQL", 1, 64),
            ("d", "PostgreSQL", 4, 64),
            ("e", "PostgreSQL", 4, 256),
        ];
        for (name, ledger, partitions, concurrency) in cases {
            let case = Case { prefix: format!("kf-{name}"), partitions, concurrency, latency: "0ms" };
            let database = self.postgres.database();
            let url = match ledger {
                "SQLite" => format!("sqlite:{}", self.folder.join(format!("{name}.db")).display()),
                _ => database.url().to_owned(),
            };
            let (simulator, broker) = self.prepare(&case, &url, 45_000).await;
            let mut crew = Crew::new(&self.folder.join(name), self.settings(&case, &url, &simulator));
            crew.join();
            let mut loads = Vec::new();
            let measured = crew.watch(SETTLE / 2, STEADY, async || loads.push(database::load(&database))).await;
            let what = format!("{ledger}, {}, concurrency {concurrency}", spread(partitions));
            rows.push(row(&what, &measured, &crew.memory().await, &loads, &database::connections(&database)));
            self.was_enough(&case, &broker).await;
            crew.end().await;
        }
        print("One worker, WeChat answers at once", &HEADS, &rows);
    }

    /// What the queues give to somebody who does nothing with it, and take from four publishers.
    async fn queues(&self) {
        let mut rows = Vec::new();
        for (name, partitions) in [("q", 1), ("r", 4)] {
            let case = Case { prefix: format!("kf-{name}"), partitions, concurrency: 64, latency: "0ms" };
            let url = format!("sqlite:{}", self.folder.join(format!("{name}.db")).display());
            self.declare(&case, &url).await;
            let published = load::publish(self.node.url(), &case.prefix, 0..RAW).await;
            // Some are left in each, whatever its share.
            let given = load::drain(self.node.url(), &case.queues(), RAW / partitions / 2).await;
            rows.push(vec![spread(partitions), format!("{published:.0}"), format!("{given:.0}")]);
        }
        print("The queues alone", &["", "published a second", "taken and acknowledged a second"], &rows);
    }

    /// Declares the queues and fills them.
    async fn prepare(&self, case: &Case, ledger: &str, backlog: usize) -> (Simulator, Broker) {
        self.declare(case, ledger).await;
        let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
        simulator.put_faults(&json!([{"latency": case.latency}])).await;
        let broker = Broker::connect(self.node.url(), case.prefix.clone()).await;
        load::take_events(&broker).await;
        let published = load::publish(self.node.url(), &case.prefix, 0..backlog).await;
        println!("scaling: {}: {backlog} commands wait ({published:.0} were published a second)", case.prefix);
        (simulator, broker)
    }

    /// A worker declares the queues, and ends.
    async fn declare(&self, case: &Case, ledger: &str) {
        let folder = self.folder.join(format!("{}-declares", case.prefix));
        std::fs::create_dir(&folder).expect("a folder for the worker");
        let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
        let mut settings = self.settings(case, ledger, &simulator);
        settings.set("admin.listen", format!("127.0.0.1:{}", free_port()));
        let mut worker = Worker::spawn(&folder, &settings);
        worker.ready().await;
        assert_eq!(worker.terminate().await, Some(0), "the worker ends in order");
    }

    /// Says so where workers had nothing left to do, which is too fast a machine for these figures.
    async fn was_enough(&self, case: &Case, broker: &Broker) {
        for queue in case.queues() {
            let name = queue.trim_start_matches(&case.prefix).trim_start_matches('.');
            if broker.ready(name).await == Some(0) {
                println!("scaling: {queue} ran empty: the figures that follow are too low");
            }
        }
    }

    fn settings(&self, case: &Case, ledger: &str, simulator: &Simulator) -> Settings {
        let mut settings = Settings::default();
        settings
            .set("amqp.url", self.node.url())
            .set("amqp.prefix", case.prefix.as_str())
            .set("amqp.partitions", case.partitions)
            .set("worker.concurrency", case.concurrency)
            .set("worker.window", 256.max(4 * case.concurrency))
            .set("ledger.url", ledger);
        simulator.configure(&mut settings);
        settings
    }
}

impl Case {
    /// The queues of commands.
    fn queues(&self) -> Vec<String> {
        match self.partitions {
            1 => vec![format!("{}.commands", self.prefix)],
            several => (0..several).map(|number| format!("{}.commands.{number}", self.prefix)).collect(),
        }
    }
}

/// For people.
fn spread(partitions: usize) -> String {
    if partitions == 1 { "one queue".to_owned() } else { format!("{partitions} partitions") }
}

const HEADS: [&str; 11] = [
    "",
    "a second",
    "of each worker",
    "partitions",
    "counted after",
    "shared after",
    "processors of each",
    "MiB of each",
    "transactions/command",
    "WAL bytes/command",
    "connections",
];

/// One line of a table.
fn row(what: &str, measured: &Measured, memory: &[f64], loads: &[database::Load], connections: &str) -> Vec<String> {
    let each = |values: &[f64], digits: usize| values.iter().map(|value| format!("{value:.digits$}")).collect::<Vec<_>>().join(" ");
    let per_command = loads.first().zip(loads.last()).map(|(first, last)| last.per_command(*first, measured.commands));
    let (transactions, log_bytes) = per_command.map_or((0.0, 0.0), |load| (load.transactions, load.log_bytes));
    vec![
        what.to_owned(),
        format!("{:.0}", measured.rates.iter().sum::<f64>()),
        each(&measured.rates, 0),
        each(&measured.partitions, 0),
        format!("{:.1} s", measured.counted.as_secs_f64()),
        measured.carried.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())),
        each(&measured.processors, 1),
        each(memory, 0),
        format!("{transactions:.2}"),
        format!("{log_bytes:.0}"),
        connections.to_owned(),
    ]
}
