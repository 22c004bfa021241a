//! What the tests stand on: a real RabbitMQ, a real PostgreSQL, a scripted WeChat, the real binary as a process, and ways to get between them.

pub mod broker;
pub mod certificates;
pub mod collector;
pub mod ledger;
pub mod ports;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod rabbitmq;
pub mod raw_amqp;
pub mod script;
pub mod stage;
pub mod vhost;
pub mod wechat;
pub mod worker;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for anything before it fails; far more than a healthy system takes, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(45);

/// Asks again and again about something outside this process until the answer is there, and fails at the deadline.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
