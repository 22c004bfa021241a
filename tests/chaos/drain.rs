//! The end of a run: everything comes to rest.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::traffic::{self, Events, Published};

/// The queues that a command passes through.
pub const QUEUES: [&str; 3] = ["kf.commands", "kf.deferred.1s", "kf.deferred.2s"];
/// How long everything may take to come to rest once nothing is killed any more.
const DRAIN: Duration = Duration::from_secs(180);
/// How often in a row nothing is found on its way before that is believed.
const QUIET: u32 = 5;

/// Waits until every command has its outcome and nothing is on its way any more. `held` says how many messages the worker
/// holds, where it can say so.
pub async fn drain(
    url: &str,
    mut held: impl AsyncFnMut() -> Option<u32>,
    published: &Mutex<Published>,
    events: &Mutex<Events>,
) -> Result<(), String> {
    let deadline = Instant::now() + DRAIN;
    let mut quiet = 0;
    while quiet < QUIET {
        sleep(Duration::from_millis(200)).await;
        let missing = {
            let (published, events) = (published.lock().expect("nobody panics here"), events.lock().expect("nobody panics here"));
            let ids = published.messages.values().filter_map(|(kind, _)| kind.command_id());
            ids.filter(|id| !events.answered.contains(*id)).count()
        };
        let waiting = traffic::waiting(url, &QUEUES).await;
        let held = held().await;
        let still = missing == 0 && held == Some(0) && waiting.as_ref().is_some_and(|counts| counts.values().all(|count| *count == 0));
        quiet = if still { quiet + 1 } else { 0 };
        if Instant::now() > deadline {
            return Err(format!(
                "not at rest after {DRAIN:?}: {missing} without a result, queues {waiting:?}, held by the worker {held:?}"
            ));
        }
    }
    Ok(())
}
