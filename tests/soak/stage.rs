//! What a run stands on: broker, proxy, simulated WeChat and the one worker, and all that happens to them meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::drain::{QUEUES, drain};
use crate::history::History;
use crate::node::Node;
use crate::plan::{self, OFFICIAL_ACCOUNTS};
use crate::sample::{Done, Observer, Sample};
use crate::support::proxy::Proxy;
use crate::support::worker::{Settings, Worker};
use crate::traffic::{self, Events, Published};
use crate::verdict::Evidence;
use crate::wechat::Simulator;
use crate::{hurry, ledger, rest};

/// Outcomes are kept for this share of the run, so that many are forgotten in it...
pub const RETENTION_SHARE: u32 = 12;
/// ...but for no less than any command may take.
const LEAST_RETENTION: Duration = Duration::from_secs(90);
/// How many messages are drawn for each second; somewhat more than are published, which is what the broker confirms.
const DRAWN_PER_SECOND: u32 = 45;
/// How long the producer rests for each of them, on average.
const REST: Duration = Duration::from_millis(14);
/// How often an Official Account may add in a minute: it is throttled for a part of most minutes.
const ADDS_A_MINUTE: u64 = 150;
/// How often the worker is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// A broker dies once in so long.
const BETWEEN_KILLS: Duration = Duration::from_secs(360);

/// Everything that a run starts.
pub struct Stage {
    folder: PathBuf,
    node: Node,
    proxy: Proxy,
    simulator: Simulator,
    worker: Worker,
    pub retention: Duration,
    cuts: AtomicU32,
    history: History,
    published: Mutex<Published>,
    events: Mutex<Events>,
}

impl Stage {
    pub async fn set(folder: &Path, length: Duration) -> Self {
        let node = Node::start(folder.join("rabbitmq")).await;
        let proxy = Proxy::before(&node.url()).await;
        let simulator = Simulator::start().await;
        simulator.process.set_quota_of_adds(OFFICIAL_ACCOUNTS[2], "minute", Some(ADDS_A_MINUTE)).await;
        let retention = (length / RETENTION_SHARE).max(LEAST_RETENTION);
        let mut worker = Worker::spawn(folder, &settings(proxy.url(), &simulator, folder, retention));
        worker.ready().await;
        traffic::declare_results(&node.url()).await;
        node.has_saved(&[QUEUES.as_slice(), &[traffic::RESULTS, "kf.dead"]].concat()).await;
        Self {
            folder: folder.to_owned(),
            node,
            proxy,
            simulator,
            worker,
            retention,
            cuts: AtomicU32::new(0),
            history: History::of(&folder.join("ledger.db")),
            published: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// Traffic and everything that goes wrong, for so long, then until everything is at rest; gives what was seen meanwhile.
    pub async fn play(&mut self, seed: u64, length: Duration) -> (Vec<Sample>, Result<(), String>) {
        let (url, began, limit) = (self.node.url(), Instant::now(), CancellationToken::new());
        let Self { folder, node, proxy, simulator, worker, retention, cuts, history, published, events } = self;
        let kills = Arc::clone(&node.kills);
        let storm = Storm { url: &url, proxy, simulator, retention: *retention, cuts, kills, published };
        let ledger = folder.join("ledger.db");
        let observer = Observer::new(worker, &ledger, &url, began);
        let mut samples = Vec::new();
        let drained = tokio::select! {
            drained = async {
                tokio::join!(
                    storm.rage(seed, length, node, &limit),
                    storm.observe(observer, &mut samples, &limit),
                    async {
                        tokio::time::sleep(length).await;
                        limit.cancel();
                    },
                );
                let held = async || worker.metric("kf_commands_held").await.map(|held| held as u32);
                drain(&url, held, published, events).await
            } => drained,
            () = traffic::collect(&url, events) => Err("the results could not be read".to_owned()),
            () = history.follow() => Err("the ledger could not be followed".to_owned()),
        };
        (samples, drained)
    }

    /// Ends everything, and gives every promise that was broken.
    pub async fn end(mut self) -> Vec<String> {
        let running = self.worker.is_running();
        let exit_code = if running { self.worker.terminate().await } else { None };
        let url = self.node.url();
        let mut events = self.events.into_inner().expect("nobody panicked");
        events.all.extend(traffic::empty(&url, traffic::RESULTS).await);
        let evidence = Evidence {
            published: self.published.into_inner().expect("nobody panicked"),
            events: events.all,
            rows: self.history.complete(),
            dead: traffic::empty(&url, "kf.dead").await,
            waiting: traffic::waiting(&url, &QUEUES).await.unwrap_or_default(),
            accounts: self.simulator.accounts().await,
            calls: self.simulator.calls().await,
            made_once_more: BTreeMap::new(),
        };
        evidence.keep(&self.folder);
        println!(
            "soak: {} SIGKILLs of the broker, {} cuts of all connections, {} changes of faults, {} commands put off, {} rows in the ledger in all, {} at the end",
            self.node.kills.load(Ordering::Relaxed),
            self.cuts.into_inner(),
            self.simulator.changes(),
            self.worker.logged("a command was put off"),
            evidence.rows.len(),
            ledger::read(&self.folder.join("ledger.db")).len(),
        );
        let mut violations: Vec<String> = (exit_code != Some(0))
            .then(|| format!("the worker ended with {exit_code:?}, running before SIGTERM: {running}"))
            .into_iter()
            .collect();
        violations.extend(evidence.judge());
        self.node.stop().await;
        violations
    }
}

/// What happens while commands are published.
struct Storm<'a> {
    url: &'a str,
    proxy: &'a Proxy,
    simulator: &'a Simulator,
    retention: Duration,
    cuts: &'a AtomicU32,
    kills: Arc<AtomicU32>,
    published: &'a Mutex<Published>,
}

impl Storm<'_> {
    async fn rage(&self, seed: u64, length: Duration, node: &mut Node, limit: &CancellationToken) {
        let mut rng = StdRng::seed_from_u64(seed);
        let drawn = |time: Duration| time.as_secs() as usize * DRAWN_PER_SECOND as usize;
        // A third of the retention leaves room for what waits in the queues. Fewer are published than are drawn.
        let reach = drawn(self.retention) / 3;
        let plan = plan::draw(rng.random(), drawn(length), REST.mul_f64(drawn(length) as f64), reach);
        let [of_faults, of_cuts, of_node] = [(); 3].map(|()| StdRng::seed_from_u64(rng.random()));
        let kills = length.div_duration_f64(BETWEEN_KILLS).ceil() as u32;
        tokio::join!(
            traffic::produce(self.url, plan.into_iter().enumerate(), self.published, limit),
            node.die(of_node, kills, Instant::now() + length, limit),
            self.cut(of_cuts, limit),
            self.simulator.misbehave(of_faults, limit),
        );
    }

    /// Cuts the worker's connections to the broker now and then.
    async fn cut(&self, mut rng: StdRng, limit: &CancellationToken) {
        while rest(Duration::from_secs(rng.random_range(20..100)), limit).await {
            self.proxy.cut();
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks at the worker until it is time to stop.
    async fn observe(&self, mut observer: Observer<'_>, samples: &mut Vec<Sample>, limit: &CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = limit.cancelled() => return,
            }
            let done = Done {
                fault_changes: self.simulator.changes(),
                cuts: self.cuts.load(Ordering::Relaxed),
                broker_kills: self.kills.load(Ordering::Relaxed),
            };
            let Some(sample) = observer.look(done).await else { continue };
            if samples.len().is_multiple_of(6) {
                let Sample { minutes, resident_mib, ledger_mib, outcomes, failed_calls, .. } = &sample;
                println!(
                    "soak: {minutes:>5.1} min  {outcomes} outcomes, {failed_calls} calls that failed, {resident_mib:.1} MiB resident, ledger {ledger_mib:.1} MiB"
                );
            }
            samples.push(sample);
        }
    }
}

/// The worker of the chaos run, that soon forgets what is done.
fn settings(url: &str, simulator: &Simulator, folder: &Path, retention: Duration) -> Settings {
    let retention = retention.as_secs();
    let mut settings = hurry::settings(url, simulator, folder);
    settings.set("retry.max_age", format!("{}s", retention - 5)).set("ledger.retention", format!("{retention}s")).env("RUST_LOG", "info");
    settings
}
