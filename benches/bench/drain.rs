//! One run: commands that wait, somebody who carries them out, and the clock from the first event to the last.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::contender::{Contender, Setting};
use crate::load::{self, KF_ACCOUNTS};
use crate::process::{peak_memory, processor_time};
use crate::simulator::Simulator;
use crate::stage::Stage;
use crate::{OFFICIAL_ACCOUNTS, wechat};

/// How often the events are counted.
const LOOK: Duration = Duration::from_millis(20);
/// When no more events come for so long, none will.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is to do.
#[derive(Clone, Copy)]
pub struct Case {
    pub commands: usize,
    /// How many runs with the same ledger were before: the commands of this one have other ids.
    pub round: usize,
    pub concurrency: usize,
    /// How long WeChat takes.
    pub latency: Duration,
}

/// What was measured.
#[derive(Clone, Copy, Serialize)]
pub struct Drained {
    /// Commands a second, from the first event to the last.
    pub per_second: f64,
    pub seconds: f64,
    /// Processor time in ms for 1,000 commands, over the same time.
    pub processor_ms: f64,
    /// MiB, from its start to the last event.
    pub peak_memory: f64,
}

impl Display for Drained {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { per_second, processor_ms, peak_memory, .. } = self;
        write!(f, "{per_second:.0} commands/s, {processor_ms:.0} ms of processors for 1,000, {peak_memory:.0} MiB at most")
    }
}

/// What was known at one moment.
struct Look {
    at: Instant,
    events: usize,
    processor_time: Duration,
}

/// Lets a contender carry out commands that wait already.
pub async fn drain(stage: &Stage, contender: &Contender, case: Case) -> Drained {
    let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
    wechat::takes(&simulator, case.latency).await;
    stage.clear().await;
    // Each run begins with adds, as its WeChat has no accounts.
    let first = case.round * case.commands.next_multiple_of(2 * KF_ACCOUNTS);
    load::publish(stage.node.url(), &stage.broker.prefix, first..first + case.commands).await;
    let folder = stage.new_folder();
    let setting = Setting { amqp_url: stage.node.url(), simulator: &simulator, concurrency: case.concurrency, folder: &folder };
    let running = contender.start(&setting);
    let drained = watch(stage, running.pid(), case.commands).await;
    // The floor keeps no order, so that now and then an add meets the account that is yet to be deleted.
    let calls = match contender {
        Contender::Floor => wechat::has_answered(&simulator).await,
        Contender::Worker(_) => wechat::has_done(&simulator).await,
    };
    assert_eq!(calls, case.commands, "each command is one call, and with the worker one that changes something");
    running.end().await;
    drained
}

async fn watch(stage: &Stage, pid: u32, commands: usize) -> Drained {
    let (mut first, mut news, mut known) = (None, Instant::now(), 0);
    loop {
        let look = Look { at: Instant::now(), events: stage.events().await, processor_time: processor_time(pid) };
        if look.events > known {
            (news, known) = (look.at, look.events);
        }
        assert!(news.elapsed() < PATIENCE, "no event more after {known} of {commands}: look at the log of the process {pid}");
        match first {
            Some(ref first) if look.events >= commands => return measure(first, &look, peak_memory(pid)),
            None if look.events > 0 => first = Some(look),
            _ => {}
        }
        sleep(LOOK).await;
    }
}

fn measure(first: &Look, last: &Look, peak_memory: f64) -> Drained {
    let commands = (last.events - first.events) as f64;
    let seconds = (last.at - first.at).as_secs_f64();
    let processor_ms = (last.processor_time - first.processor_time).as_secs_f64() * 1_000.0 / commands * 1_000.0;
    Drained { per_second: commands / seconds, seconds, processor_ms, peak_memory }
}
