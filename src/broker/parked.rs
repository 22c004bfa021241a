//! What came while the number of partitions was changed: taken before anything that came later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Connection;

use super::names::Names;
use super::request::{self, Holds};
use super::session::Session;
use super::subscription::{Arrived, Place, Subscription};
use super::{ConnectError, within};

/// How often the queue is looked at, once nothing of it is held.
const LOOK: Duration = Duration::from_millis(500);

/// Whether parked commands wait, and no more are parked. Who may not ask is told that there are none.
///
/// # Errors
/// Also while the new partitions are about to take the place of the parking: what comes then is in both.
pub async fn come_first(connection: &Connection, names: &Names) -> Result<bool, ConnectError> {
    let allowed = |asked: Result<bool, ConnectError>| match asked {
        Err(error) if error.is_forbidden() => Ok(false),
        asked => asked,
    };
    if !allowed(request::look(connection, &names.parked()).await.map(|found| found.is_some()))? {
        return Ok(false);
    }
    if !allowed(request::exchange_exists(connection, &names.parking()).await)? {
        return Ok(true);
    }
    if allowed(request::exchange_exists(connection, &names.unparking()).await)? {
        return Err(ConnectError::Unreachable(
            "the number of partitions is just being changed; if nobody does, end it with `kf-worker partitions set`".to_owned(),
        ));
    }
    Ok(false)
}

/// Takes the parked commands, or waits until another worker has, and deletes their queue.
pub async fn take(session: &Session, window: u16, arrived: &Arrived) -> Result<(), ConnectError> {
    let (connection, names) = (session.consuming(), session.names());
    tracing::info!("the commands that were parked while the number of partitions was changed come first");
    // One worker alone: another one could not know whether all that was taken before is in the ledger.
    while !request::own(connection, &names.parked_owner()).await? {
        if !come_first(connection, names).await? || !wait(session).await {
            return Ok(());
        }
    }
    while come_first(connection, names).await? && !session.is_ending() {
        empty(session, window, arrived).await?;
    }
    request::delete_queue(connection, &names.parked_owner()).await
}

/// Takes what is there until nothing is left and nothing of it is held, and deletes the queue if it stays so.
async fn empty(session: &Session, window: u16, arrived: &Arrived) -> Result<(), ConnectError> {
    let (connection, queue) = (session.consuming(), session.names().parked());
    let held = Arc::<AtomicUsize>::default();
    let channel = within(connection.create_channel()).await?;
    let mut subscription = Subscription::new(queue.clone(), channel, Arc::clone(&held), session);
    let mut place = subscription.take_place(window, false).await?;
    let mut looks = 0;
    // Twice: what was on its way when the parking ended has come by then.
    while looks < 2 {
        if !quiet(session, &subscription, &mut place, arrived).await? {
            if session.is_ending() {
                break;
            }
            looks = 0;
            continue;
        }
        let alone = Some(Holds { messages: 0, consumers: 1 });
        let nothing = held.load(Ordering::Relaxed) == 0 && request::look(connection, &queue).await? == alone;
        looks = if nothing { looks + 1 } else { 0 };
    }
    subscription.leave(place, session, arrived).await?;
    // Others hold nothing, as they are not the owner; and a worker that is ending leaves the rest to the next one.
    let nothing = held.load(Ordering::Relaxed) == 0 && !session.is_ending();
    if nothing && request::look(connection, &queue).await? == Some(Holds { messages: 0, consumers: 0 }) {
        request::delete_queue(connection, &queue).await?;
        tracing::info!("all parked commands are done; the partitions are taken");
    }
    Ok(())
}

/// Hands on what comes; whether nothing came for a while.
async fn quiet(session: &Session, subscription: &Subscription, place: &mut Place, arrived: &Arrived) -> Result<bool, ConnectError> {
    tokio::select! {
        message = place.consumer.next() => match message {
            Some(delivery) => {
                subscription.hand_on(delivery.map_err(super::describe)?, session, arrived);
                Ok(false)
            }
            None => Err(ConnectError::Unreachable(format!("the queue `{}` was deleted", session.names().parked()))),
        },
        go_on = wait(session) => Ok(go_on),
    }
}

/// Waits a moment; `false` where the session ends, or is to take no more.
async fn wait(session: &Session) -> bool {
    tokio::select! {
        () = session.lost() => false,
        () = session.stopped() => false,
        () = tokio::time::sleep(LOOK) => true,
    }
}
