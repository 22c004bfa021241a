//! Who is measured: the worker with one ledger or another, or the floor.

use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::OFFICIAL_ACCOUNTS;
use crate::simulator::{self, Simulator};
use crate::stage::PREFIX;
use crate::support::ports::free_port;
use crate::support::worker::{Settings, Worker};

/// What is to be started.
#[derive(Clone)]
pub enum Contender {
    Floor,
    /// A worker with the ledger at this URL.
    Worker(String),
}

/// It runs, and ends with this value.
pub enum Running {
    Floor(Child),
    Worker(Worker),
}

/// What it is started with.
pub struct Setting<'a> {
    pub amqp_url: &'a str,
    pub simulator: &'a Simulator,
    pub concurrency: usize,
    /// For its files.
    pub folder: &'a Path,
}

impl Contender {
    pub fn start(&self, setting: &Setting<'_>) -> Running {
        match self {
            Self::Floor => Running::Floor(floor(setting)),
            Self::Worker(ledger) => Running::Worker(Worker::spawn(setting.folder, &settings(setting, ledger))),
        }
    }
}

fn floor(setting: &Setting<'_>) -> Child {
    // Cargo puts examples into a folder beside the programs.
    let program = Path::new(env!("CARGO_BIN_EXE_kf-worker")).with_file_name("examples").join("floor");
    let mut command = Command::new(&program);
    command.args(["--amqp", setting.amqp_url, "--prefix", PREFIX, "--wechat", &setting.simulator.url()]);
    command.args(["--concurrency", &setting.concurrency.to_string()]);
    for wechat_id in OFFICIAL_ACCOUNTS {
        command.args(["--account", &simulator::account(wechat_id)]);
    }
    let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
    child.unwrap_or_else(|error| panic!("can't run {}, which `make bench` builds: {error}", program.display()))
}

/// As a user would have it, but for what is compared.
fn settings(setting: &Setting<'_>, ledger: &str) -> Settings {
    let mut settings = Settings::default();
    settings
        .set("amqp.url", setting.amqp_url)
        .set("amqp.prefix", PREFIX)
        .set("worker.concurrency", setting.concurrency)
        .set("worker.window", 256.max(4 * setting.concurrency))
        .set("ledger.url", ledger)
        .set("admin.listen", format!("127.0.0.1:{}", free_port()));
    setting.simulator.configure(&mut settings);
    settings
}

impl Running {
    pub fn pid(&self) -> u32 {
        match self {
            Self::Floor(child) => child.id().expect("the floor is running"),
            Self::Worker(worker) => worker.pid(),
        }
    }

    /// Ends the worker in order, and the floor by force, since it knows no order.
    pub async fn end(self) {
        match self {
            Self::Floor(mut child) => child.kill().await.expect("the floor was running"),
            Self::Worker(mut worker) => assert_eq!(worker.terminate().await, Some(0), "the worker ends in order"),
        }
    }
}
