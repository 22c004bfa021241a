//! The WeChat simulator, and the random faults that it is told to make.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::plan::OFFICIAL_ACCOUNTS;
use crate::rest;
use crate::simulator;
use crate::support::{eventually, worker::Settings};

/// How long the worker waits for an answer, and the longest that the simulator makes one wait. They are far apart: a call
/// that its caller has given up while the simulator still works on it would overlap with the next one, rightly.
pub const REQUEST_TIMEOUT: &str = "1s";
const LONGEST_LATENCY_MS: u64 = 200;

/// The running simulator.
pub struct Simulator {
    pub process: simulator::Simulator,
    changes: AtomicU32,
}

impl Simulator {
    pub async fn start() -> Self {
        Self { process: simulator::Simulator::start(&OFFICIAL_ACCOUNTS).await, changes: AtomicU32::new(0) }
    }

    /// Makes a worker use it.
    pub fn configure(&self, settings: &mut Settings) {
        self.process.configure(settings);
        settings.set("wechat.request_timeout", REQUEST_TIMEOUT);
    }

    /// Every kf account that exists.
    pub async fn accounts(&self) -> Value {
        self.process.accounts().await
    }

    /// The calls that it has counted.
    pub async fn calls(&self) -> Value {
        self.process.calls().await
    }

    async fn clear_faults(&self) {
        self.process.control("DELETE", "faults", "").await;
    }

    /// Waits until nothing is in flight; gives how many calls were at first.
    pub async fn idle(&self) -> u64 {
        let at_first = self.in_flight().await;
        eventually("WeChat is done with the calls of a worker that was killed", async || (self.in_flight().await == 0).then_some(())).await;
        at_first
    }

    async fn in_flight(&self) -> u64 {
        let calls = self.calls().await;
        let accounts = calls["kf_accounts"].as_object().expect("calls by kf account");
        accounts.values().filter_map(|account| account["in_flight"].as_u64()).sum()
    }

    /// Puts faults in and takes them out until told to stop; then there are none.
    pub async fn misbehave(&self, mut rng: StdRng, stop: &CancellationToken) {
        while rest(Duration::from_millis(rng.random_range(300..3_000)), stop).await {
            match rng.random_range(0..10) {
                0..2 => self.clear_faults().await,
                2 => drop(self.process.control("POST", "tokens/expire", "").await),
                3..5 => self.process.put_faults(&json!([outage(&mut rng), latency(&mut rng)])).await,
                _ => {
                    let mut rules = vec![latency(&mut rng)];
                    for _ in 0..rng.random_range(1..4) {
                        rules.push(fault(&mut rng));
                    }
                    self.process.put_faults(&json!(rules)).await;
                }
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        self.clear_faults().await;
    }

    /// How often its faults have changed.
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }
}

fn latency(rng: &mut StdRng) -> Value {
    let most = rng.random_range(1..=LONGEST_LATENCY_MS);
    json!({"latency": format!("{}ms", most / 2), "jitter": format!("{}ms", most / 2 + 1)})
}

/// Some calls go wrong, in one way.
fn fault(rng: &mut StdRng) -> Value {
    let effect = match rng.random_range(0..7) {
        0 => json!({"errcode": -1}),
        1 | 2 => json!("lost_answer"),
        3 => json!("reset"),
        4 => json!({"http_status": 502}),
        5 => json!("malformed"),
        _ => json!("hang"),
    };
    let mut rule = json!({"probability": rng.random_range(0.02..0.4), "effect": effect});
    match rng.random_range(0..4) {
        0 => rule["endpoint"] = json!("add"),
        1 => rule["endpoint"] = json!("del"),
        2 => rule["wechat_id"] = json!(OFFICIAL_ACCOUNTS[rng.random_range(0..OFFICIAL_ACCOUNTS.len())]),
        _ => {}
    }
    rule
}

/// One Official Account does nothing for a while: it is busy, or refuses its credentials, which pauses it.
fn outage(rng: &mut StdRng) -> Value {
    let errcode = if rng.random_bool(0.5) { -1 } else { 48001 };
    json!({"wechat_id": OFFICIAL_ACCOUNTS[rng.random_range(0..OFFICIAL_ACCOUNTS.len())], "effect": {"errcode": errcode}})
}
