//! A RabbitMQ node of the run's own, killed and started again on the same data.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rest;
use crate::support::eventually;
use crate::support::ports::free_port;

/// The node, and the script that looks after it.
pub struct Node {
    folder: PathBuf,
    port: u16,
    script: Child,
    /// How often it was killed; shared with whoever looks on.
    pub kills: Arc<AtomicU32>,
}

impl Node {
    /// Starts a node whose data are kept in `folder`, and waits until it answers.
    pub async fn start(folder: PathBuf) -> Self {
        let port = free_port();
        let script = start(&folder, port).await;
        Self { folder, port, script, kills: Arc::default() }
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f?heartbeat=2", self.port)
    }

    /// Waits until RabbitMQ has saved the names of these quorum queues: before that, one that is killed loses them.
    pub async fn has_saved(&self, queues: &[&str]) {
        let names = self.folder.join("data/private@localhost/quorum/private@localhost/names.dets");
        eventually("the broker has saved the names of its queues", async || {
            let saved = std::fs::read(&names).ok()?;
            let holds = |queue: &&str| saved.windows(queue.len()).any(|window| window == queue.as_bytes());
            queues.iter().all(holds).then_some(())
        })
        .await;
    }

    /// Dies and comes back at random moments until that was often enough.
    pub async fn die(&mut self, mut rng: StdRng, often: u32, until: Instant, limit: &CancellationToken) {
        for left in (1..=often).rev() {
            let each = until.saturating_duration_since(Instant::now()) / (left + 1);
            if !rest(each.mul_f64(rng.random_range(0.1..0.8)), limit).await {
                return;
            }
            self.kill().await;
            self.script = start(&self.folder, self.port).await;
        }
    }

    /// SIGKILL for the Erlang node; the script then ends too.
    async fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("rabbitmq.pid")).expect("a running node has a PID file");
        let sent = Command::new("sh").args(["-c", "kill -s KILL \"$0\"", pid.trim()]).status().await;
        assert!(sent.expect("a shell").success(), "the node was running");
        self.script.wait().await.expect("the script can be waited for");
        self.kills.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the node in order.
    pub async fn stop(mut self) {
        drop(self.script.stdin.take());
        self.script.wait().await.expect("the script can be waited for");
    }
}

/// The script ends with this process, since only this process holds the other end of its standard input.
async fn start(folder: &Path, port: u16) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/private-rabbitmq.sh");
    let mut command = Command::new(script);
    command.arg(folder).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the script of the private RabbitMQ starts");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut url = String::new();
    BufReader::new(stdout).read_line(&mut url).await.expect("the script's output can be read");
    assert!(!url.is_empty(), "the private RabbitMQ didn't start; its log is {}", folder.join("log").display());
    child
}
