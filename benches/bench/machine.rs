//! What the figures were measured on.

use serde::Serialize;

/// The machine and the versions of what ran on it.
#[derive(Clone, Serialize)]
pub struct Machine {
    pub processors: usize,
    pub model: String,
    pub linux: String,
    pub rabbitmq: String,
    pub postgres: Option<String>,
    pub kf_worker: &'static str,
}

impl Machine {
    pub fn new(rabbitmq: String, postgres: Option<String>) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.unwrap_or_else(|| "unknown".to_owned()),
            linux: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rabbitmq,
            postgres,
            kf_worker: env!("CARGO_PKG_VERSION"),
        }
    }

    /// In one line.
    pub fn sentence(&self) -> String {
        let postgres = self.postgres.as_ref().map(|version| format!(", PostgreSQL {version}")).unwrap_or_default();
        let Self { processors, model, linux, rabbitmq, kf_worker, .. } = self;
        format!("kf-worker {kf_worker} on {processors} processors ({model}), Linux {linux}, RabbitMQ {rabbitmq}{postgres}")
    }
}
