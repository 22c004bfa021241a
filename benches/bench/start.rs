//! How long a worker takes from the start of its program until it is ready.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::OFFICIAL_ACCOUNTS;
use crate::contender::{Contender, Running, Setting};
use crate::simulator::Simulator;
use crate::stage::Stage;
use crate::support::DEADLINE;

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(1);

/// Starts a worker with this ledger, ends it once it is ready, and gives how long that took; its queues are there already.
pub async fn until_ready(stage: &Stage, ledger: &str) -> Duration {
    let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
    let folder = stage.new_folder();
    let setting = Setting { amqp_url: stage.node.url(), simulator: &simulator, concurrency: 64, folder: &folder };
    let began = Instant::now();
    let running = Contender::Worker(ledger.to_owned()).start(&setting);
    let Running::Worker(worker) = &running else { unreachable!("a worker was started") };
    while !matches!(worker.get("/readyz").await, Some((200, _))) {
        assert!(began.elapsed() < DEADLINE, "the worker is not ready; its log says: {}", worker.log());
        sleep(LOOK).await;
    }
    let time = began.elapsed();
    running.end().await;
    time
}
