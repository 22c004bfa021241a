//! What a fleet run stands on, and what happens to it: deaths, a sleep, a newcomer, and the ledger's database away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::NAME;
use crate::members::{Deed, Members};
use crate::partitions::PARTITIONS;
use crate::plan::OFFICIAL_ACCOUNTS;
use crate::promises::Evidence;
use crate::rows;
use crate::simulator::Simulator;
use crate::support::postgres::{Database, OwnServer};
use crate::support::rabbitmq::OwnNode;
use crate::support::worker::Settings;
use crate::traffic::{self, Events, Published};
use crate::witness::Witness;

/// Workers at the beginning; one more joins.
const WORKERS: usize = 3;
/// For so long a worker is stopped: longer than a claim lasts and than it takes to be counted out.
const STOPPED: Duration = Duration::from_secs(20);
/// How often it is looked whether it is time for the next thing.
const LOOK: Duration = Duration::from_millis(50);
/// How long everything may take to come to rest once nothing happens any more.
const DRAIN: Duration = Duration::from_secs(180);
/// How often in a row nothing is found on its way before that is believed.
const QUIET: u32 = 5;
const DEFER: [&str; 2] = ["1s", "2s"];

/// Everything that a run stands on.
pub struct Stage {
    pub url: String,
    postgres: OwnServer,
    pub database: Database,
    simulator: Simulator,
    pub witness: Witness,
    pub members: Members,
}

/// What was done to the workers.
pub struct Deeds {
    pub killed: Deed,
    pub stopped: Deed,
    pub woken: Deed,
    pub joined: Deed,
}

impl Stage {
    pub async fn build(folder: &Path, node: &OwnNode) -> Self {
        let postgres = OwnServer::start();
        let database = postgres.database();
        let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
        // Now and then one takes so long that a worker can lose its session, or its life, in the middle of it.
        simulator.put_faults(&json!([{"probability": 0.03, "latency": "1700ms"}, {"latency": "20ms", "jitter": "40ms"}])).await;
        let url = format!("{}?heartbeat=2", node.url());
        let settings = settings(&url, &database, &simulator);
        let wechat = settings.get("wechat.base_url").and_then(|url| url.as_str()?.strip_prefix("http://")?.parse().ok());
        let witness = Witness::new(wechat.expect("the simulator's address"));
        let mut members = Members::new(folder.to_owned(), settings);
        for _ in 0..WORKERS {
            members.join(&witness).await;
        }
        traffic::declare_results(&url).await;
        Self { url, postgres, database, simulator, witness, members }
    }

    /// What happens to the workers and to their ledger while so many messages are published.
    pub async fn ordeal(&mut self, messages: u32, published: &Mutex<Published>) -> Deeds {
        let at = async |share: f64| {
            let enough = (f64::from(messages) * share) as u64;
            while published.lock().expect("nobody panics here").confirmed.values().sum::<u64>() < enough {
                sleep(LOOK).await;
            }
        };
        at(0.1).await;
        self.witness.many_in_flight(0).await;
        let killed = self.members.kill(0).await;
        println!("{NAME}: worker 0 was killed");
        at(0.22).await;
        self.members.start_again(0).await;
        println!("{NAME}: worker 0 was started again");
        at(0.34).await;
        self.witness.many_in_flight(1).await;
        let stopped = self.members.signal(1, "STOP").await;
        println!("{NAME}: worker 1 was stopped for {STOPPED:?}");
        sleep(STOPPED).await;
        let woken = self.members.signal(1, "CONT").await;
        println!("{NAME}: worker 1 goes on");
        at(0.58).await;
        let joined = self.members.join(&self.witness).await;
        println!("{NAME}: worker {WORKERS} has joined");
        at(0.72).await;
        println!("{NAME}: PostgreSQL is killed, and started again");
        self.postgres.kill();
        self.postgres.start_again();
        at(0.86).await;
        println!("{NAME}: PostgreSQL is restarted in order");
        self.postgres.restart();
        Deeds { killed, stopped, woken, joined }
    }

    /// Waits until every command has its outcome and nothing is on its way any more.
    pub async fn drain(&mut self, published: &Mutex<Published>, events: &Mutex<Events>) -> Result<(), String> {
        let deadline = Instant::now() + DRAIN;
        let mut quiet = 0;
        while quiet < QUIET {
            sleep(Duration::from_millis(200)).await;
            let missing = missing(published, events);
            let waiting = traffic::waiting(&self.url, &queues()).await;
            let held = self.members.held().await;
            let still = missing == 0 && held == Some(0) && waiting.as_ref().is_some_and(|counts| counts.values().all(|count| *count == 0));
            quiet = if still { quiet + 1 } else { 0 };
            if Instant::now() > deadline {
                return Err(format!(
                    "not at rest after {DRAIN:?}: {missing} without a result, queues {waiting:?}, held by the workers {held:?}"
                ));
            }
        }
        Ok(())
    }

    pub async fn evidence(&self, published: Published, events: Events) -> Evidence {
        let mut made_once_more = BTreeMap::new();
        for kf_account in self.members.kf_accounts_logged("the account was deleted once more") {
            *made_once_more.entry(kf_account).or_default() += 1;
        }
        Evidence {
            published,
            events: events.all,
            rows: rows::read(&self.database),
            dead: traffic::empty(&self.url, "kf.dead").await,
            waiting: traffic::waiting(&self.url, &queues()).await.unwrap_or_default(),
            accounts: self.simulator.accounts().await,
            calls: self.simulator.calls().await,
            made_once_more,
        }
    }
}

fn missing(published: &Mutex<Published>, events: &Mutex<Events>) -> usize {
    let (published, events) = (published.lock().expect("nobody panics here"), events.lock().expect("nobody panics here"));
    let ids = published.messages.values().filter_map(|(kind, _)| kind.command_id());
    ids.filter(|id| !events.answered.contains(*id)).count()
}

/// The queues that a command passes through.
fn queues() -> Vec<String> {
    let partitions = (0..PARTITIONS).map(|number| format!("kf.commands.{number}"));
    partitions.chain(DEFER.map(|delay| format!("kf.deferred.{delay}"))).collect()
}

/// Short times, so that handovers are quick; a claim lasts for 7 s.
fn settings(url: &str, database: &Database, simulator: &Simulator) -> Settings {
    let mut settings = Settings::default();
    settings
        .set("amqp.url", url)
        .set("amqp.partitions", PARTITIONS)
        .set("wechat.request_timeout", "2s")
        .set("retry.initial", "50ms")
        .set("retry.max_interval", "1s")
        .set("retry.max_in_process", "20s")
        .set("retry.defer", json!(DEFER))
        .set("ledger.url", database.url())
        .env("RUST_LOG", "info");
    simulator.configure(&mut settings);
    settings
}
