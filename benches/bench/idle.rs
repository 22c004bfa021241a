//! What is added to WeChat's time when there is nothing else to do: one command at a time, from publishing it to its event.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::OFFICIAL_ACCOUNTS;
use crate::contender::{Contender, Setting};
use crate::load;
use crate::simulator::Simulator;
use crate::stage::Stage;
use crate::support::DEADLINE;
use crate::support::broker::Message;
use crate::wechat;

/// Commands before those that count: by then tokens are fetched and connections are open.
const WARM_UP: usize = 50;
const COMMANDS: usize = 300;
/// Between an event and the next command.
const PAUSE: Duration = Duration::from_millis(10);

/// What was measured.
#[derive(Serialize)]
pub struct Latencies {
    /// Shortest first.
    milliseconds: Vec<f64>,
}

impl Latencies {
    /// This share of the commands took no longer, in milliseconds.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (self.milliseconds.len() as f64 * share).ceil() as usize;
        self.milliseconds[rank.saturating_sub(1)]
    }
}

impl Display for Latencies {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms", self.at(0.5), self.at(0.99), self.at(1.0))
    }
}

/// The latencies of commands to a contender that has nothing else to do. WeChat answers at once, so next to
/// nothing of them is WeChat's.
pub async fn latencies(stage: &Stage, contender: &Contender) -> Latencies {
    let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
    wechat::takes(&simulator, Duration::ZERO).await;
    stage.clear().await;
    let mut events = stage.consume_events().await;
    let folder = stage.new_folder();
    let setting = Setting { amqp_url: stage.node.url(), simulator: &simulator, concurrency: 64, folder: &folder };
    let running = contender.start(&setting);
    let mut milliseconds = Vec::with_capacity(COMMANDS);
    for number in 0..WARM_UP + COMMANDS {
        let latency = one(stage, number, &mut events).await;
        if number >= WARM_UP {
            milliseconds.push(latency.as_secs_f64() * 1_000.0);
        }
        sleep(PAUSE).await;
    }
    running.end().await;
    milliseconds.sort_by(f64::total_cmp);
    Latencies { milliseconds }
}

async fn one(stage: &Stage, number: usize, events: &mut Consumer) -> Duration {
    let message = Message::json(&load::command(number));
    let published = Instant::now();
    let event = async {
        let event = timeout(DEADLINE, events.next()).await.expect("an event comes");
        event.expect("the queue stays").expect("the channel lives");
        published.elapsed()
    };
    tokio::join!(stage.broker.publish(message), event).1
}
