//! How a worker of these runs is set up: in a hurry, so that much happens in a short time.

use std::path::Path;

use serde_json::json;

use crate::support::ports::free_port;
use crate::support::worker::Settings;
use crate::wechat::Simulator;

/// A worker in a hurry: waits are short, and so is the time that a delivery is held, so that much is put off.
pub fn settings(url: &str, simulator: &Simulator, folder: &Path) -> Settings {
    let mut settings = Settings::default();
    settings
        .set("amqp.url", url)
        .set("worker.concurrency", 16)
        .set("worker.window", 64)
        .set("retry.initial", "10ms")
        .set("retry.max_interval", "200ms")
        .set("retry.max_in_process", "2s")
        .set("retry.defer", json!(["1s", "2s"]))
        .set("retry.probe_interval", "3s")
        .set("ledger.url", format!("sqlite:{}", folder.join("ledger.db").display()))
        .set("admin.listen", format!("127.0.0.1:{}", free_port()))
        .env("RUST_LOG", "info,kf_worker=debug");
    simulator.configure(&mut settings);
    settings
}
