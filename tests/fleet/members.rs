//! The workers of a fleet, each a process with a folder and an admin port of its own, and what is done to them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::support::ports::free_port;
use crate::support::worker::{Settings, Worker};
use crate::witness::{Witness, now};

/// A worker that does not answer for so long is not asked any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// All workers, by number.
pub struct Members {
    folder: PathBuf,
    settings: Settings,
    workers: Vec<Worker>,
}

/// Something that was done, to which worker, and when.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    pub worker: usize,
    pub at: Duration,
}

impl Members {
    pub fn new(folder: PathBuf, settings: Settings) -> Self {
        Self { folder, settings, workers: Vec::new() }
    }

    /// Starts one more worker, with a door of its own to WeChat, and waits until it is ready.
    pub async fn join(&mut self, witness: &Witness) -> Deed {
        let number = self.workers.len();
        let folder = self.folder.join(format!("worker-{number}"));
        std::fs::create_dir(&folder).expect("a folder for the worker");
        let mut settings = self.settings.clone();
        settings
            .set("wechat.base_url", format!("http://{}", witness.door(number).await))
            .set("admin.listen", format!("127.0.0.1:{}", free_port()));
        let mut worker = Worker::spawn(&folder, &settings);
        worker.ready().await;
        self.workers.push(worker);
        Deed { worker: number, at: now() }
    }

    /// SIGKILL.
    pub async fn kill(&mut self, worker: usize) -> Deed {
        let at = now();
        self.workers[worker].kill().await;
        Deed { worker, at }
    }

    /// Starts a worker again that was killed.
    pub async fn start_again(&mut self, worker: usize) -> Deed {
        self.workers[worker].restart().await;
        Deed { worker, at: now() }
    }

    /// SIGSTOP or SIGCONT.
    pub async fn signal(&self, worker: usize, signal: &str) -> Deed {
        self.workers[worker].signal(signal).await;
        Deed { worker, at: now() }
    }

    /// How many messages they hold in all; nothing where one does not answer.
    pub async fn held(&self) -> Option<u64> {
        let mut held = 0.0;
        for worker in &self.workers {
            held += timeout(PATIENCE, worker.metric("kf_commands_held")).await.ok()??;
        }
        Some(held as u64)
    }

    /// Ends all in order, one after the other, and gives each that ended before that, or otherwise than with 0.
    pub async fn end(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            if !worker.is_running() {
                wrong.push(format!("worker {number} ended by itself"));
                continue;
            }
            let code = worker.terminate().await;
            wrong.extend((code != Some(0)).then(|| format!("worker {number} ended with {code:?} after SIGTERM")));
        }
        wrong
    }

    /// How many lines of all logs hold these words.
    pub fn logged(&self, words: &str) -> usize {
        self.workers.iter().map(|worker| worker.logged(words)).sum()
    }

    /// The kf account in each line of any log that holds these words.
    pub fn kf_accounts_logged(&self, words: &str) -> Vec<String> {
        let of_line = |line: &str| {
            let fields = serde_json::from_str::<Value>(line).ok();
            let quoted = || line.split_once("kf_account=")?.1.split(' ').next().map(|name| name.trim_matches('"').to_owned());
            fields.and_then(|fields| Some(fields["kf_account"].as_str()?.to_owned())).or_else(quoted)
        };
        let logs = self.workers.iter().map(Worker::log);
        logs.flat_map(|log| log.lines().filter(|line| line.contains(words)).filter_map(of_line).collect::<Vec<_>>()).collect()
    }
}
