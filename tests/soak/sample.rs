//! One look at the worker: what its process holds, what it says in its metrics, and what waits for it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::drain::QUEUES;
use crate::exposition::{Exposition, Histogram};
use crate::support::worker::Worker;
use crate::traffic;

const MIB: f64 = 1_048_576.0;

/// What was seen at one moment; a line of the file of figures. What could not be asked is missing.
#[derive(Clone, Serialize, Deserialize)]
pub struct Sample {
    pub minutes: f64,
    pub resident_mib: f64,
    pub file_descriptors: u32,
    pub threads: u32,
    /// The ledger's file and its log together.
    pub ledger_mib: f64,
    /// Outcomes a second since the sample before.
    pub outcomes_per_second: f64,
    /// Of the messages settled since the sample before: from being taken to being acknowledged.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
    /// In the commands queue and the deferred queues.
    pub waiting: Option<u32>,
    pub held: u32,
    /// All that follows counts from the beginning.
    pub outcomes: u64,
    pub failed_calls: u64,
    pub fault_changes: u32,
    pub cuts: u32,
    pub broker_kills: u32,
}

/// What has been done to the worker so far.
pub struct Done {
    pub fault_changes: u32,
    pub cuts: u32,
    pub broker_kills: u32,
}

/// Looks at one worker again and again.
pub struct Observer<'a> {
    pub worker: &'a Worker,
    pub ledger: &'a Path,
    /// The broker's own, since the worker's may be cut.
    pub url: &'a str,
    pub began: Instant,
    before: Option<(Sample, Histogram)>,
}

impl<'a> Observer<'a> {
    pub fn new(worker: &'a Worker, ledger: &'a Path, url: &'a str, began: Instant) -> Self {
        Self { worker, ledger, url, began, before: None }
    }

    /// Looks once; `None` where the worker does not answer.
    pub async fn look(&mut self, done: Done) -> Option<Sample> {
        let (_, text) = self.worker.get("/metrics").await?;
        let metrics = Exposition(&text);
        let minutes = self.began.elapsed().as_secs_f64() / 60.0;
        let outcomes = metrics.total("kf_results_total", "") as u64;
        let settled = metrics.histogram("kf_processing_seconds");
        let (since, seconds, outcomes_since) = match &self.before {
            Some((sample, histogram)) => {
                (settled.since(histogram), (minutes - sample.minutes) * 60.0, outcomes.saturating_sub(sample.outcomes))
            }
            None => (settled.clone(), minutes * 60.0, outcomes),
        };
        let process = Process::of(self.worker.pid());
        let sample = Sample {
            minutes,
            resident_mib: process.resident_mib,
            file_descriptors: process.file_descriptors,
            threads: process.threads,
            ledger_mib: size_of(self.ledger),
            outcomes_per_second: outcomes_since as f64 / seconds,
            p50_seconds: since.quantile(0.5),
            p99_seconds: since.quantile(0.99),
            waiting: traffic::waiting(self.url, &QUEUES).await.map(|counts| counts.values().sum()),
            held: metrics.total("kf_commands_held", "") as u32,
            outcomes,
            failed_calls: (metrics.total("kf_wechat_calls_total", "") - metrics.total("kf_wechat_calls_total", "class=\"ok\"")) as u64,
            fault_changes: done.fault_changes,
            cuts: done.cuts,
            broker_kills: done.broker_kills,
        };
        self.before = Some((sample.clone(), settled));
        Some(sample)
    }
}

/// What the kernel says of a process.
struct Process {
    resident_mib: f64,
    file_descriptors: u32,
    threads: u32,
}

impl Process {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the worker is running");
        let number = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it of every process");
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number follows")
        };
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the worker is running").count();
        Self { resident_mib: number("VmRSS:") * 1024.0 / MIB, file_descriptors: open as u32, threads: number("Threads:") as u32 }
    }
}

fn size_of(ledger: &Path) -> f64 {
    let log = ledger.with_extension("db-wal");
    let sizes = [ledger, &log].into_iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len());
    sizes.sum::<u64>() as f64 / MIB
}
