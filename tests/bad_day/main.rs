//! A bad day at WeChat: one Official Account is locked out, another has used up its quota, and a healthy one must not feel it; then the weather clears.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

mod figures;
mod simulator;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;
mod table;
mod traffic;
mod verdict;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::Instant;

use simulator::Simulator;
use support::broker::Broker;
use support::ports::free_port;
use support::rabbitmq::OwnNode;
use support::worker::{Settings, Worker};
use traffic::{Sent, Traffic, command};
use verdict::{Evidence, Sickness};

/// Nothing happens to it all day.
const HEALTHY: &str = "healthy";
/// Its AppSecret is changed while commands are under way, and its tokens end with it.
const LOCKED_OUT: &str = "locked-out";
/// Its daily quota of adds is used up while commands are under way.
const SPENT: &str = "spent";

/// Whose turn it is to get a command: half of them are the healthy one's.
const TURNS: [&str; 4] = [HEALTHY, LOCKED_OUT, HEALTHY, SPENT];
const COMMANDS: usize = 5_000;
/// So many are published before anything goes wrong.
const WHILE_WELL: usize = 2_000;
const PER_SECOND: u32 = 250;
/// So often `spent` may still add when the bad part of the day begins.
const ADDS_LEFT: u64 = 30;
/// How long an answer of WeChat's takes.
const LATENCY: &str = "20ms";
/// How many calls the worker may have in flight at once.
const CONCURRENCY: u32 = 64;
/// Between two calls that try whether an Official Account answers again.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// The delays of the deferred queues.
const DEFER: [&str; 2] = ["1s", "5s"];

/// How long what nothing holds up may take to its last outcome, and what was held up once the cause is mended. Both are
/// far more than a healthy worker takes.
const SOON: Duration = Duration::from_secs(15);
const IN_THE_END: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() -> ExitCode {
    let folder = tempfile::Builder::new().prefix("kf-bad-day-").tempdir().expect("a temporary folder").keep();
    let broken = run(&folder).await;
    println!();
    if broken.is_empty() {
        // Nobody needs it now; where it can't be removed it is only litter.
        let _ = std::fs::remove_dir_all(&folder);
        println!("bad day: all promises held");
        return ExitCode::SUCCESS;
    }
    for promise in &broken {
        println!("bad day: BROKEN: {promise}");
    }
    println!("bad day: {} promises broken; log and ledger are in {}", broken.len(), folder.display());
    ExitCode::FAILURE
}

/// The whole day; gives every promise that was broken.
async fn run(folder: &Path) -> Vec<String> {
    let node = OwnNode::start();
    let broker = Broker::connect(node.url(), "kf".to_owned()).await;
    let simulator = Simulator::start(&[HEALTHY, LOCKED_OUT, SPENT]).await;
    simulator.put_faults(&json!([{"latency": LATENCY}])).await;
    let mut worker = Worker::spawn(folder, &settings(node.url(), &simulator, folder));
    worker.ready().await;
    let traffic = Traffic::begin(&broker).await;
    let mut put_off = traffic::put_off(&broker, &DEFER).await;

    println!("bad day: all are well: {WHILE_WELL} commands, {PER_SECOND} a second");
    traffic.publish(commands(0..WHILE_WELL), PER_SECOND).await;
    let mut broken = late(traffic.answered(|_| true, SOON).await, "of the commands published while all were well");

    println!("bad day: `{LOCKED_OUT}` gets another AppSecret, `{SPENT}` has {ADDS_LEFT} adds left: {} commands", COMMANDS - WHILE_WELL);
    let began = Instant::now();
    fall_sick(&simulator).await;
    traffic.publish(commands(WHILE_WELL..COMMANDS), PER_SECOND).await;
    let unharmed = |sent: &Sent| sent.is_of(HEALTHY) || (sent.is_of(SPENT) && !sent.is_add());
    let harmed = traffic.answered(unharmed, SOON).await;
    broken.extend(late(harmed, "of the commands that no sickness touches, which should not wait for the weather,"));

    println!("bad day: `{LOCKED_OUT}` gets its AppSecret back");
    let locked_out = Sickness { lasted: began.elapsed(), calls: calls_of(&simulator, LOCKED_OUT).await };
    simulator.put_secret_back(LOCKED_OUT).await;
    broken.extend(late(traffic.answered(|sent| sent.is_of(LOCKED_OUT), IN_THE_END).await, "of the commands of `locked-out`"));

    println!("bad day: it is midnight in China, and `{SPENT}` has its quota back");
    let mut exit_codes = vec![worker.terminate().await];
    let spent = Sickness { lasted: began.elapsed(), calls: calls_of(&simulator, SPENT).await };
    let_midnight_pass(&folder.join("ledger.db"));
    simulator.set_quota_of_adds(SPENT, "day", None).await;
    worker.restart().await;
    broken.extend(late(traffic.answered(|_| true, IN_THE_END).await, "of all commands"));

    exit_codes.push(worker.terminate().await);
    let (sent, strange) = traffic.end().await;
    let put_off = put_off.rest().await;
    let evidence = Evidence { sent, strange, put_off, locked_out, spent, accounts: simulator.accounts().await, exit_codes };
    broken.extend(evidence.judge());
    broken.extend(left_over(&broker).await);
    broken
}

/// The commands with these numbers of the day, each with its own Official Account's next number.
fn commands(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Value> {
    numbers.map(|number| {
        let (round, turn) = (number / TURNS.len(), number % TURNS.len());
        let own = |turns: &[&str]| turns.iter().filter(|wechat_id| **wechat_id == TURNS[turn]).count();
        command(TURNS[turn], round * own(&TURNS) + own(&TURNS[..turn]))
    })
}

/// A worker in a hurry to probe, so that a minute shows what would else take hours.
fn settings(url: &str, simulator: &Simulator, folder: &Path) -> Settings {
    let mut settings = Settings::default();
    settings
        .set("amqp.url", url)
        .set("worker.concurrency", CONCURRENCY)
        .set("worker.window", 256)
        .set("retry.defer", json!(DEFER))
        .set("retry.probe_interval", format!("{}s", PROBE_INTERVAL.as_secs()))
        .set("ledger.url", format!("sqlite:{}", folder.join("ledger.db").display()))
        .set("admin.listen", format!("127.0.0.1:{}", free_port()));
    simulator.configure(&mut settings);
    settings
}

async fn fall_sick(simulator: &Simulator) {
    let calls = calls_of(simulator, SPENT).await;
    let adds: u64 = calls["add"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    simulator.set_quota_of_adds(SPENT, "day", Some(adds + ADDS_LEFT)).await;
    simulator.change_secret(LOCKED_OUT).await;
}

/// An Official Account's calls so far: endpoint → answer → count.
async fn calls_of(simulator: &Simulator, wechat_id: &str) -> Value {
    simulator.calls().await["official_accounts"][wechat_id].take()
}

/// A pause for a used up daily quota lasts until midnight in China, over any restart. Nobody can wait for midnight here, so
/// the pauses that the ledger remembers are taken out while no worker runs: this stands for the passing of midnight.
fn let_midnight_pass(ledger: &Path) {
    let connection = Connection::open(ledger).expect("the ledger opens");
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'pause'";
    let tables: u32 = connection.query_row(sql, [], |row| row.get(0)).expect("the ledger can be read");
    if tables > 0 {
        connection.execute("DELETE FROM pause", []).expect("the pauses can be taken out");
    }
}

fn late(count: usize, which: &str) -> Vec<String> {
    (count > 0).then(|| format!("{count} {which} had no outcome in time")).into_iter().collect()
}

/// What the worker has left at the broker, once it has ended.
async fn left_over(broker: &Broker) -> Vec<String> {
    let mut broken = Vec::new();
    for queue in ["commands", "deferred.1s", "deferred.5s", "dead"] {
        let count = broker.ready(queue).await;
        if count != Some(0) {
            broken.push(format!("the queue kf.{queue} is not empty in the end: {count:?}"));
        }
    }
    broken
}
