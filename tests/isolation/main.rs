//! What a healthy Official Account feels of one whose every call hangs: its throughput and latency alone, beside it, and behind its backlog.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

#[path = "../bad_day/figures.rs"]
mod figures;
#[path = "../bad_day/simulator.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod simulator;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;
#[path = "../bad_day/table.rs"]
mod table;
#[path = "../bad_day/traffic.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod traffic;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use figures::{PACE, Pace, show};
use simulator::Simulator;
use support::broker::{Broker, Message};
use support::ports::free_port;
use support::rabbitmq::OwnNode;
use support::worker::{Settings, Worker};
use table::print;
use traffic::{Sent, Traffic, command};

const HEALTHY: &str = "healthy";
const HANGING: &str = "hanging";
/// Of the healthy one's commands, and of the hanging one's as well: a tenth of what the worker can do.
const PER_SECOND: u32 = 200;
/// Commands of the healthy one before a phase begins: by then its token is fetched and its connections are open.
const WARM_UP: usize = 200;
/// What waits of the hanging one before the healthy one's first command comes.
const BACKLOG: usize = 3_000;
/// How long an answer of WeChat's takes, where one is given.
const LATENCY: &str = "20ms";
const DEFER: [&str; 2] = ["10s", "1m"];
/// How long the healthy one's last commands are waited for.
const GRACE: Duration = Duration::from_secs(10);

/// After this long a backlog must not be felt any more.
const SETTLED: Duration = Duration::from_secs(10);
/// Beside the hanging one the healthy one has at least this share of its throughput alone…
const THROUGHPUT: f64 = 0.9;
/// … and at most so many times its 99th percentile of the latency,
const TIMES: u32 = 2;
/// where this much more is forgiven: the worker, WeChat, the broker and this program share the machine, and twice the
/// commands mean that one waits for a processor now and then, for about one slice of its scheduler's time.
const SLACK: Duration = Duration::from_millis(5);

/// What the healthy one has beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// As many commands of the hanging one, at the same pace.
    SameLoad,
    /// A backlog of the hanging one's.
    Backlog,
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = tempfile::Builder::new().prefix("kf-isolation-").tempdir().expect("a temporary folder").keep();
    let node = OwnNode::start();
    println!("isolation: {PER_SECOND} commands a second of an Official Account that answers after {LATENCY}");
    println!("isolation: A: nothing beside it, for 15 s");
    let alone = phase(node.url(), &folder, "a", Beside::Nothing, 15).await;
    println!("isolation: B: as many commands beside it of an Official Account whose every call hangs, for 15 s");
    let beside = phase(node.url(), &folder, "b", Beside::SameLoad, 15).await;
    println!("isolation: B2: behind a backlog of {BACKLOG} commands of that one, for 25 s");
    let behind = phase(node.url(), &folder, "b2", Beside::Backlog, 25).await;
    let broken = judge(&alone, &beside, &behind);
    println!();
    if broken.is_empty() {
        // Nobody needs it now; where it can't be removed it is only litter.
        let _ = std::fs::remove_dir_all(&folder);
        println!("isolation: all promises held");
        return ExitCode::SUCCESS;
    }
    for promise in &broken {
        println!("isolation: BROKEN: {promise}");
    }
    println!("isolation: {} promises broken; logs and ledgers are in {}", broken.len(), folder.display());
    ExitCode::FAILURE
}

/// One phase, with a worker, a WeChat and queues of its own; gives the healthy one's commands without those of the warm-up.
async fn phase(url: &str, folder: &Path, name: &str, beside: Beside, seconds: usize) -> Vec<Sent> {
    let folder = folder.join(name);
    std::fs::create_dir(&folder).expect("a folder for the phase");
    let broker = Broker::connect(url, format!("kf-{name}")).await;
    let simulator = Simulator::start(&[HEALTHY, HANGING]).await;
    let hang = |endpoint: &str| json!({"endpoint": endpoint, "wechat_id": HANGING, "effect": "hang"});
    // Its tokens are to be had, so that its commands get as far as holding up calls.
    simulator.put_faults(&json!([hang("add"), hang("del"), {"latency": LATENCY}])).await;
    let mut worker = Worker::spawn(&folder, &settings(url, &broker.prefix, &simulator, &folder));
    worker.ready().await;
    let traffic = Traffic::begin(&broker).await;
    traffic.publish(of(HEALTHY, 0..WARM_UP), PER_SECOND).await;
    assert_eq!(traffic.answered(|_| true, GRACE).await, 0, "the worker works");

    let count = PER_SECOND as usize * seconds;
    let healthy = of(HEALTHY, WARM_UP..WARM_UP + count);
    match beside {
        Beside::Nothing => traffic.publish(healthy, PER_SECOND).await,
        Beside::SameLoad => {
            let both = healthy.zip(of(HANGING, 0..count)).flat_map(|(one, other)| [one, other]);
            traffic.publish(both, 2 * PER_SECOND).await;
        }
        Beside::Backlog => {
            broker.publish_all(of(HANGING, 0..BACKLOG).map(|command| Message::json(&command))).await;
            traffic.publish(healthy, PER_SECOND).await;
        }
    }
    traffic.answered(|sent| sent.is_of(HEALTHY), GRACE).await;
    // What the hanging one has left is nobody's concern: everything of this phase goes.
    worker.kill().await;
    let (sent, _) = traffic.end().await;
    broker.remove_now(&DEFER.map(str::to_owned));
    sent.into_iter().filter(|sent| sent.is_of(HEALTHY)).skip(WARM_UP).collect()
}

fn of(wechat_id: &str, numbers: std::ops::Range<usize>) -> impl Iterator<Item = Value> {
    numbers.map(move |number| command(wechat_id, number))
}

fn settings(url: &str, prefix: &str, simulator: &Simulator, folder: &Path) -> Settings {
    let mut settings = Settings::default();
    settings
        .set("amqp.url", url)
        .set("amqp.prefix", prefix)
        .set("wechat.request_timeout", "2s")
        .set("retry.defer", json!(DEFER))
        .set("ledger.url", format!("sqlite:{}", folder.join("ledger.db").display()))
        .set("admin.listen", format!("127.0.0.1:{}", free_port()));
    simulator.configure(&mut settings);
    settings
}

/// Shows the figures and gives every promise that was broken.
fn judge(alone: &[Sent], beside: &[Sent], behind: &[Sent]) -> Vec<String> {
    let (a, b, b2) = (Pace::of(alone), Pace::of(beside), Pace::of(behind));
    let (b_settled, b2_settled) = (Pace::of(settled(beside)), Pace::of(settled(behind)));
    let normal = a.p99 * TIMES + SLACK;
    let cases = [
        ("A: alone", &a),
        ("B: beside as many that hang", &b),
        ("B: from 10 s on", &b_settled),
        ("B2: behind a backlog that hangs", &b2),
        ("B2: from 10 s on", &b2_settled),
    ];
    let rows = cases.map(|(name, pace)| [vec![name.to_owned()], pace.cells(), ratios(pace, &a)].concat());
    let heads = [["the healthy one's"].as_slice(), &PACE, &["of A's throughput", "of A's p99"]].concat();
    print("From publishing to the event", &heads, &rows);
    match back_to_normal(behind, normal) {
        Some(time) => println!("\nB2: back to normal {:.0} s after the first command behind the backlog", time.as_secs_f64()),
        None => println!("\nB2: not back to normal as long as was looked"),
    }

    let mut broken = Vec::new();
    for (name, pace) in [("B", &b), ("B2 from 10 s on", &b2_settled)] {
        if pace.per_second < a.per_second * THROUGHPUT {
            broken.push(format!(
                "{name} has {:.1} commands a second, and A has {:.1}: less than {THROUGHPUT} of that",
                pace.per_second, a.per_second
            ));
        }
    }
    if b.p99 > normal {
        broken.push(format!("B has a p99 of {}, and {} is the most that A's allows", show(b.p99), show(normal)));
    }
    let unanswered = alone.iter().chain(beside).chain(settled(behind)).filter(|sent| sent.answered.is_none()).count();
    if unanswered > 0 {
        broken.push(format!("{unanswered} commands of A, of B, and of B2 from 10 s on had no outcome within {GRACE:?} of the last one"));
    }
    broken
}

/// Throughput and p99 in relation to A's.
fn ratios(pace: &Pace, a: &Pace) -> Vec<String> {
    let p99 = match pace.p99 {
        figures::NEVER => "-".to_owned(),
        p99 => format!("{:.2}", p99.as_secs_f64() / a.p99.as_secs_f64()),
    };
    vec![format!("{:.2}", pace.per_second / a.per_second), p99]
}

/// Those that were published when a backlog must not be felt any more.
fn settled(sent: &[Sent]) -> impl Iterator<Item = &Sent> {
    let began = sent.first().map(|sent| sent.published);
    sent.iter().filter(move |sent| began.is_some_and(|began| sent.published - began >= SETTLED))
}

/// After how many seconds of publishing half of the commands of each further second had a normal latency.
fn back_to_normal(sent: &[Sent], normal: Duration) -> Option<Duration> {
    let began = sent.first()?.published;
    let seconds: Vec<&[Sent]> = sent.chunk_by(|a, b| (a.published - began).as_secs() == (b.published - began).as_secs()).collect();
    let time = seconds.iter().rposition(|second| Pace::of(*second).p50 > normal).map_or(0, |second| second + 1);
    (time < seconds.len()).then(|| Duration::from_secs(time as u64))
}
