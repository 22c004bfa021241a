//! The workers of a run: one after the other, each killed at a random moment, all with the same ledger.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rest;
use crate::support::worker::{Settings, Worker};
use crate::wechat::Simulator;

/// With less time than this left for each death, nobody waits until a worker works.
const LEAST: Duration = Duration::from_secs(1);
/// How often a worker is asked whether it works.
const LOOK: Duration = Duration::from_millis(20);

/// The worker that runs now, and what is known of those before it.
pub struct Workers {
    folder: PathBuf,
    settings: Settings,
    worker: Worker,
    pub kills: u32,
    /// Calls that were in flight when their worker was killed.
    pub calls_cut_off: u64,
    /// How workers ended that nobody had killed.
    pub ended_by_itself: Vec<String>,
}

impl Workers {
    /// Starts the first one and waits until it is ready.
    pub async fn start(folder: &Path, settings: Settings) -> Self {
        let mut worker = Worker::spawn(folder, &settings);
        worker.ready().await;
        Self { folder: folder.to_owned(), settings, worker, kills: 0, calls_cut_off: 0, ended_by_itself: Vec::new() }
    }

    /// Kills the worker at random moments until that was often enough, and at least until `enough`; the next one is
    /// started at once. It hurries where the time gets short.
    ///
    /// At once means: as soon as WeChat is done with the calls of the one that was killed, a fifth of a second at most.
    /// A call that outlives its caller may overlap with the next one, and may land after it; nobody can prevent that.
    pub async fn die(
        &mut self,
        mut rng: StdRng,
        often: u32,
        until: Instant,
        simulator: &Simulator,
        enough: &CancellationToken,
        limit: &CancellationToken,
    ) {
        while self.kills < often || !enough.is_cancelled() {
            let each = until.saturating_duration_since(Instant::now()) / often.saturating_sub(self.kills).max(4);
            let in_a_hurry = self.kills < often && each < LEAST;
            // Some die while they are still starting, or while the broker is away; most in the middle of their work.
            let working = rng.random_bool(0.8) && !in_a_hurry;
            let share = if working { 1.5 } else { 0.2 };
            let each = each.max(LEAST);
            let time = each.mul_f64(rng.random_range(0.0..share));
            if (working && !self.works(limit).await) || !rest(time, limit).await {
                return;
            }
            self.keep_up();
            self.worker.kill().await;
            self.kills += 1;
            self.calls_cut_off += simulator.idle().await;
            self.worker = Worker::spawn(&self.folder, &self.settings);
        }
    }

    /// Waits until the worker takes commands; `false` when it is time to stop.
    async fn works(&mut self, limit: &CancellationToken) -> bool {
        loop {
            self.keep_up();
            if let Some((200, _)) = self.worker.get("/readyz").await {
                return true;
            }
            if !rest(LOOK, limit).await {
                return false;
            }
        }
    }

    /// Starts the worker again where it has ended by itself, which it never should.
    pub fn keep_up(&mut self) {
        if !self.worker.is_running() {
            let log = self.worker.log();
            self.ended_by_itself.push(log.lines().next_back().unwrap_or("without a word").to_owned());
            self.worker = Worker::spawn(&self.folder, &self.settings);
        }
    }

    /// How many messages the worker holds; `None` while it can't say.
    pub async fn held(&self) -> Option<u32> {
        let (_, metrics) = self.worker.get("/metrics").await?;
        metrics.lines().find_map(|line| line.strip_prefix("kf_commands_held "))?.parse().ok()
    }

    /// How often all workers together have logged something.
    pub fn logged(&self, what: &str) -> usize {
        self.worker.log().matches(what).count()
    }

    /// Ends the last one in order, and gives its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.worker.terminate().await
    }
}
