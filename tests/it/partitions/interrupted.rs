//! A change of the number that is killed, at one moment after the other, and run again.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::change::{all_events, emptied, set, show};
use super::{assert_done_in_order, rounds, settings};
use crate::support::stage::Stage;
use crate::support::worker::{Worker, kf_worker};

/// After so many kills a change may end, however slow the machine is.
const MOST_KILLS: usize = 40;

/// How long the next one may run before it is killed: in coarse steps while it only parks and looks, which it begins with for a
/// second each time; in fine ones where queues go and come, the finer the faster the machine is.
fn later(delay: Duration) -> Duration {
    delay + if delay < Duration::from_secs(1) { Duration::from_millis(280) } else { delay / 40 }
}

/// Runs `set`, which waits until the broker knows that the one before is dead, and kills it after a while, unless it has ended
/// by then. Whether it has.
async fn killed_after(worker: &Worker, number: usize, delay: Duration) -> bool {
    let mut command = kf_worker();
    command.arg("--config").arg(worker.config()).args(["partitions", "set", &number.to_string(), "--wait", "30s"]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("the program starts");
    match timeout(delay, child.wait()).await {
        Ok(status) => {
            let status = status.expect("it can be waited for");
            assert!(status.success(), "{status}");
            true
        }
        Err(_) => {
            child.kill().await.expect("it was running");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_goes_on_from_what_it_finds() {
    let mut stage = Stage::new().await;
    let one = settings(&stage, 1);
    let mut worker = stage.worker_with(&one).await;
    let mut commands: Vec<Value> = Vec::new();
    let mut round = 0;
    for number in [3, 1] {
        assert_eq!(worker.terminate().await, Some(0));
        let delays = std::iter::successors(Some(Duration::from_millis(150)), |delay| Some(later(*delay)));
        for delay in delays.take(MOST_KILLS) {
            if killed_after(&worker, number, delay).await {
                break;
            }
            // What comes in the middle of it, wherever it goes.
            if show(&worker).await["parking"] == true {
                let next = rounds(5, round..round + 1);
                stage.send_all(&next).await;
                commands.extend(next);
                round += 1;
            }
            // Killed before the old queues were cut off: the old workers empty them first.
            let shown = show(&worker).await;
            let held = shown["queues"].as_array().expect("queues").iter().any(|queue| queue["messages"] != 0);
            if held && shown["partitions"] != number {
                worker.restart().await;
                emptied(&stage, &worker).await;
                assert_eq!(worker.terminate().await, Some(0));
            }
        }
        set(&worker, number).await;
        let shown = show(&worker).await;
        assert_eq!((shown["partitions"].as_u64(), &shown["parking"]), (Some(number as u64), &Value::Bool(false)));
        let settings = settings(&stage, number);
        worker = stage.worker_with(&settings).await;
        let next = rounds(5, round..round + 1);
        stage.send_all(&next).await;
        commands.extend(next);
        round += 1;
        let done = async || stage.broker.ready("parked").await.is_none().then_some(());
        crate::support::eventually("the parked commands are done", done).await;
    }
    let events = all_events(&mut stage, worker, &commands).await;
    assert_done_in_order(&stage, &commands, events);
}
