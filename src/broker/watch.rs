//! Two looks at a session that find out when it is over: at its connections, and at messages that are not delivered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::session::{Consumed, Session};
use super::{ConnectError, within};
use crate::readiness::Readiness;

/// How often the connections are looked at: the client tells of some losses by nothing else.
const LOOK: Duration = Duration::from_millis(200);
/// How often the queues are asked whether messages wait there while none is held: a consumer that is deaf.
const LISTEN: Duration = Duration::from_secs(10);
/// So many times in a row messages must wait: a partition that was just another worker's comes to us within a few.
const DEAF: u8 = 4;

impl Session {
    /// Looks at all connections until the session is over.
    pub(super) async fn watch(self, readiness: std::sync::Arc<Readiness>) {
        while !self.is_lost() {
            let consuming = self.consuming().status().connected();
            if !consuming || self.consumed().iter().any(|queue| !queue.channel.status().connected()) {
                self.give_up("the consuming connection to the broker was lost");
            }
            let publishing = self.publishing().map(|connection| connection.status());
            if !publishing.iter().all(|status| status.connected()) {
                self.give_up("a publishing connection to the broker was lost");
            }
            let blocked = publishing.iter().any(|status| status.blocked());
            readiness.blocked(blocked);
            self.metrics().broker_blocked.set(blocked.into());
            tokio::select! {
                () = self.lost() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Proves that the consumers hear: messages of a partition that is ours, that wait several times in a row while none
    /// of it is held, mean that they do not. Asking also proves that the connection is alive in both directions.
    pub(super) async fn listen(self) {
        let mut waiting = vec![0; self.consumed().len()];
        loop {
            tokio::select! {
                () = self.lost() => return,
                () = tokio::time::sleep(LISTEN) => {}
            }
            match self.look(&mut waiting).await {
                Ok(()) => {}
                // Who may consume but not ask goes without this proof.
                Err(error) if error.is_forbidden() => return,
                Err(error) => self.give_up(format!("the queues of commands can't be asked: {error}")),
            }
        }
    }

    /// Counts for each queue how many times in a row messages have waited.
    async fn look(&self, waiting: &mut [u8]) -> Result<(), ConnectError> {
        let share = self.share();
        let channel = within(self.consuming().create_channel()).await?;
        for (queue, times) in self.consumed().iter().zip(waiting) {
            // A queue of which something is held is heard, and at one that is another worker's we only stand by.
            let is_idle = share.owns(queue.number) && queue.held.load(Ordering::Relaxed) == 0;
            *times = if is_idle && messages(&channel, queue).await? > 0 { *times + 1 } else { 0 };
            if *times >= DEAF {
                self.give_up(format!("messages wait in the queue `{}` and none is delivered", queue.name));
            }
        }
        within(channel.close(200, "asked".into())).await
    }
}

async fn messages(channel: &Channel, queue: &Consumed) -> Result<u32, ConnectError> {
    let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
    let asked = within(channel.queue_declare(queue.name.as_str().into(), options, FieldTable::default())).await?;
    Ok(asked.message_count())
}
