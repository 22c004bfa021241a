//! How a session begins to consume: what was parked first, then every partition.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::session::{Consumed, Session, Shared};
use super::subscription::{Arrived, Partition, Subscription};
use super::{ConnectError, parked, request, within};

/// Partitions that are subscribed to at the same time.
const AT_ONCE: usize = 16;

impl Session {
    /// What came while the number of partitions was changed is older than all that is in them.
    pub(super) async fn subscribe_after_parked(self, arrived: Arrived) {
        let subscribed = async {
            parked::take(&self, self.shared.window, &arrived).await?;
            if self.is_ending() { Ok(()) } else { self.subscribe(&arrived).await }
        };
        if let Err(error) = subscribed.await {
            self.give_up(error.to_string());
        }
    }

    /// Stands in line at every partition, so that any whose worker dies has a next one at once.
    pub(super) async fn subscribe(&self, arrived: &Arrived) -> Result<(), ConnectError> {
        let queues = self.names().command_queues(self.shared.partitions);
        let numbered = (0..self.shared.partitions).zip(queues);
        let subscribed = stream::iter(numbered).map(|(number, name)| self.subscribe_to(number, name)).buffered(AT_ONCE);
        let (consumed, partitions): (Vec<_>, Vec<_>) = subscribed.try_collect::<Vec<_>>().await?.into_iter().unzip();
        // It is set once in a session's life.
        let _ = self.shared.consumed.set(consumed);
        for partition in partitions {
            self.shared.subscriptions.spawn(partition.follow(self.clone(), arrived.clone()));
        }
        tokio::spawn(self.clone().listen());
        Ok(())
    }

    async fn subscribe_to(&self, number: u16, name: String) -> Result<(Consumed, Partition), ConnectError> {
        let Shared { partitions, window, share, .. } = &*self.shared;
        let consuming = self.consuming();
        let others = match request::look(consuming, &name).await {
            Ok(holds) => holds.is_some_and(|holds| holds.consumers > 0),
            // Who may not ask must expect them.
            Err(error) if error.is_forbidden() => true,
            Err(error) => return Err(error),
        };
        let channel = within(consuming.create_channel()).await?;
        let held = Arc::<AtomicUsize>::default();
        let subscription = Subscription::new(name.clone(), channel.clone(), Arc::clone(&held), self);
        let partition = Partition::subscribe(subscription, (number, *partitions), *window, share.subscribe(), others).await?;
        Ok((Consumed { number, name, channel, held }, partition))
    }
}
