//! The workers that are measured, and what they have done at which moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::ports::free_port;
use crate::support::worker::{Settings, Worker};

/// How often the workers are asked.
const LOOK: Duration = Duration::from_millis(250);
/// A worker has its share when it does so much of it…
const ABOUT: f64 = 0.6;
/// … within this time.
const LATELY: Duration = Duration::from_secs(2);

/// Workers that share a ledger.
pub struct Crew {
    folder: PathBuf,
    settings: Settings,
    pub workers: Vec<Worker>,
}

/// What was known of all workers at one moment.
#[derive(Clone)]
struct Look {
    at: Instant,
    /// Commands finished, by worker.
    finished: Vec<f64>,
    partitions: Vec<f64>,
    cpu: Vec<f64>,
}

/// What was measured over a while.
pub struct Measured {
    /// Commands a second, by worker, once all had come to rest.
    pub rates: Vec<f64>,
    /// Processors that each has used.
    pub processors: Vec<f64>,
    pub partitions: Vec<f64>,
    /// Since the beginning: until the workers counted each other, …
    pub counted: Duration,
    /// … and until each carried its share for good.
    pub carried: Option<Duration>,
    /// Commands finished, all in all, over the steady while.
    pub commands: f64,
}

impl Crew {
    pub fn new(folder: &Path, settings: Settings) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for the workers");
        Self { folder: folder.to_owned(), settings, workers: Vec::new() }
    }

    /// One more worker, which isn't waited for.
    pub fn join(&mut self) {
        let folder = self.folder.join(self.workers.len().to_string());
        std::fs::create_dir(&folder).expect("a folder for the worker");
        let mut settings = self.settings.clone();
        settings.set("admin.listen", format!("127.0.0.1:{}", free_port()));
        self.workers.push(Worker::spawn(&folder, &settings));
    }

    /// The one that came last goes, in order.
    pub async fn leave(&mut self) {
        let mut worker = self.workers.pop().expect("there is one");
        worker.signal("TERM").await;
        // Its end is nobody's concern: the others take over while it drains.
        tokio::spawn(async move { worker.exit_code().await });
    }

    /// Watches the workers for a while that `settle` at most of it takes to come to rest; `begin` and `end` are called
    /// where the steady while begins and ends.
    pub async fn watch(&self, settle: Duration, steady: Duration, mut note: impl AsyncFnMut()) -> Measured {
        let began = Instant::now();
        let mut looks = Vec::new();
        let mut noted = false;
        while began.elapsed() < settle + steady {
            looks.extend(self.look().await);
            if !noted && began.elapsed() >= settle {
                note().await;
                noted = true;
            }
            sleep(LOOK).await;
        }
        note().await;
        measure(&looks, began, settle)
    }

    /// Nothing while one does not answer.
    async fn look(&self) -> Option<Look> {
        let mut look = Look { at: Instant::now(), finished: Vec::new(), partitions: Vec::new(), cpu: Vec::new() };
        for worker in &self.workers {
            let (_, text) = worker.get("/metrics").await?;
            let metric = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
            look.finished.push(metric("kf_processing_seconds_count")?);
            look.partitions.push(metric("kf_partitions")?);
            look.cpu.push(metric("process_cpu_seconds_total")?);
        }
        Some(look)
    }

    /// The memory that each has in use, in MiB.
    pub async fn memory(&self) -> Vec<f64> {
        let mut memory = Vec::new();
        for worker in &self.workers {
            memory.push(worker.metric("process_resident_memory_bytes").await.unwrap_or_default() / 1024.0 / 1024.0);
        }
        memory
    }

    /// Ends all in order.
    pub async fn end(mut self) {
        for worker in &mut self.workers {
            assert_eq!(worker.terminate().await, Some(0), "a worker ends in order");
        }
    }
}

fn measure(looks: &[Look], began: Instant, settle: Duration) -> Measured {
    let steady: Vec<&Look> = looks.iter().filter(|look| look.at - began >= settle).collect();
    let (first, last) = (steady.first().expect("the workers answer"), steady.last().expect("the workers answer"));
    let rates = rates(first, last);
    let time = (last.at - first.at).as_secs_f64();
    let processors = first.cpu.iter().zip(&last.cpu).map(|(before, after)| (after - before) / time).collect();
    let counted = looks.iter().rfind(|look| look.partitions != last.partitions).map_or(Duration::ZERO, |look| look.at - began);
    let idle = |look: &&Look| {
        let later = looks.iter().find(|later| later.at - look.at >= LATELY);
        later.is_some_and(|later| self::rates(look, later).iter().zip(&rates).any(|(now, then)| *now < ABOUT * then))
    };
    let carried = looks.iter().rfind(idle).map(|look| look.at + LOOK - began).or(Some(Duration::ZERO));
    let commands = first.finished.iter().zip(&last.finished).map(|(before, after)| after - before).sum();
    Measured { rates, processors, partitions: last.partitions.clone(), counted, carried: carried.filter(|at| *at < settle), commands }
}

fn rates(first: &Look, last: &Look) -> Vec<f64> {
    let time = (last.at - first.at).as_secs_f64();
    first.finished.iter().zip(&last.finished).map(|(before, after)| (after - before) / time).collect()
}
