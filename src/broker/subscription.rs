//! One queue of commands, consumed for as long as the session lives: its place in the queue's line, and stepping back.
//!
//! Several workers stand in line at each queue, and the broker gives its messages to the first of them alone. Whoever
//! cancels and subscribes again goes to the back. What it has taken by then stays its own.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures_util::StreamExt as _;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::acknowledger::Acknowledger;
use super::delivery::{Delivery, Held};
use super::session::Session;
use super::share::{HAND_OVER, STEP_BACK, STEP_BACK_AGAIN, Share};
use super::{ConnectError, within};

/// One queue and this session's place in its line.
pub struct Subscription {
    queue: Arc<str>,
    channel: Channel,
    acknowledger: Acknowledger,
    /// How many of its messages are taken and not yet acknowledged.
    held: Arc<AtomicUsize>,
    /// Places taken so far, which gives each a name of its own.
    places: u32,
}

/// A place in line.
pub struct Place {
    pub consumer: lapin::Consumer,
    prefetch: u16,
    /// Another worker may have stepped back from the queue just before the next message.
    after_another: bool,
}

/// Where the messages of all queues go, in the order in which each queue gives them. The prefetch bounds how many
/// there are.
pub type Arrived = mpsc::UnboundedSender<Delivery>;

/// What a partition waits for.
enum Event {
    SessionEnds,
    Stop,
    ShareChanged,
    StepBack,
    Message(Option<lapin::Result<Box<lapin::message::Delivery>>>),
}

impl Subscription {
    /// Over a channel of its own.
    pub fn new(queue: String, channel: Channel, held: Arc<AtomicUsize>, session: &Session) -> Self {
        let acknowledger = Acknowledger::of(channel.clone(), session.clone());
        Self { queue: queue.into(), channel, acknowledger, held, places: 0 }
    }

    /// Goes to the back of the line.
    pub async fn take_place(&mut self, prefetch: u16, after_another: bool) -> Result<Place, ConnectError> {
        // It counts for consumers that come after it, each for itself.
        within(self.channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        self.places += 1;
        let (queue, tag) = (&*self.queue, format!("kf-worker-{}", self.places));
        let consumed = self.channel.basic_consume(queue.into(), tag.into(), BasicConsumeOptions::default(), FieldTable::default());
        let consumer = within(consumed).await.map_err(|error| error.about(format!("queue `{queue}`")))?;
        Ok(Place { consumer, prefetch, after_another })
    }

    /// Leaves the line, and hands on what was on its way.
    pub async fn leave(&self, mut place: Place, session: &Session, arrived: &Arrived) -> Result<(), ConnectError> {
        within(self.channel.basic_cancel(place.consumer.tag(), BasicCancelOptions::default())).await?;
        // The client ends the stream once the broker has confirmed, after the last message.
        while let Some(delivery) = place.consumer.next().await {
            if std::mem::take(&mut place.after_another) {
                tokio::time::sleep(HAND_OVER).await;
            }
            self.hand_on(delivery.map_err(super::describe)?, session, arrived);
        }
        Ok(())
    }

    /// Gives a message to whoever takes them all, and counts it as held.
    pub fn hand_on(&self, delivery: lapin::message::Delivery, session: &Session, arrived: &Arrived) {
        let held = Held::new(&self.held, session.metrics().hold());
        let delivery = Delivery::new(delivery, Arc::clone(&self.queue), self.acknowledger.clone(), session.clone(), held);
        // Nobody takes any more at the end of a session: what was taken comes again.
        let _ = arrived.send(delivery);
    }
}

/// A partition, and whose it is.
pub struct Partition {
    number: u16,
    /// How many there are.
    of: u16,
    /// How many messages are taken at once, in all.
    window: u16,
    share: watch::Receiver<Share>,
    subscription: Subscription,
    place: Place,
    /// When to step back from what is another worker's, and when that was done last.
    step_back_at: Option<Instant>,
    stepped_back_at: Option<Instant>,
}

impl Partition {
    /// Subscribes to the partition `number` of so many; others stand in its line already, where `after_another`.
    pub async fn subscribe(
        mut subscription: Subscription,
        (number, of): (u16, u16),
        window: u16,
        mut share: watch::Receiver<Share>,
        after_another: bool,
    ) -> Result<Self, ConnectError> {
        let prefetch = share.borrow_and_update().prefetch(window, of);
        let place = subscription.take_place(prefetch, after_another).await?;
        Ok(Self { number, of, window, share, subscription, place, step_back_at: None, stepped_back_at: None })
    }

    /// Hands on what comes, and follows the share, until the session ends or is to take no more.
    pub async fn follow(mut self, session: Session, arrived: Arrived) {
        let stood = self.stand_in_line(&session, &arrived).await;
        let left = match stood {
            Ok(Left::Stopped) => self.subscription.leave(self.place, &session, &arrived).await,
            Ok(Left::SessionEnds) => {
                // Leaving the line before what is held goes back would let the next one have what follows it.
                session.closed().await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = left {
            session.give_up(format!("the queue `{}` can't be consumed: {error}", self.subscription.queue));
        }
    }

    async fn stand_in_line(&mut self, session: &Session, arrived: &Arrived) -> Result<Left, ConnectError> {
        loop {
            match self.next(session).await {
                Event::SessionEnds => return Ok(Left::SessionEnds),
                Event::Stop => return Ok(Left::Stopped),
                Event::ShareChanged if self.is_ours() => {
                    self.step_back_at = None;
                    let (share, wanted) = (self.share(), self.wanted_prefetch());
                    if share.is_worth_changing(self.place.prefetch, wanted) {
                        self.begin_anew(share.of > 1, session, arrived).await?;
                    }
                }
                Event::ShareChanged => self.step_back_at = Some(Instant::now() + STEP_BACK),
                Event::StepBack => {
                    (self.step_back_at, self.stepped_back_at) = (None, Some(Instant::now()));
                    self.begin_anew(true, session, arrived).await?;
                }
                Event::Message(Some(delivery)) => self.take(*delivery.map_err(super::describe)?, session, arrived).await,
                Event::Message(None) => {
                    session.give_up("the broker cancelled the consumer (was the queue deleted?)");
                    return Ok(Left::SessionEnds);
                }
            }
        }
    }

    async fn next(&mut self, session: &Session) -> Event {
        tokio::select! {
            () = session.lost() => Event::SessionEnds,
            () = session.stopped() => Event::Stop,
            // Its sender lives as long as the session.
            Ok(()) = self.share.changed() => Event::ShareChanged,
            () = until(self.step_back_at) => Event::StepBack,
            message = self.place.consumer.next() => Event::Message(message.map(|delivery| delivery.map(Box::new))),
        }
    }

    async fn take(&mut self, delivery: lapin::message::Delivery, session: &Session, arrived: &Arrived) {
        if std::mem::take(&mut self.place.after_another) {
            tokio::select! {
                () = session.lost() => return,
                () = tokio::time::sleep(HAND_OVER) => {}
            }
        }
        self.subscription.hand_on(delivery, session, arrived);
        if self.step_back_at.is_none() && !self.is_ours() {
            // First in line at a queue that isn't ours: its owner has come after us, or not at all.
            let again = self.stepped_back_at.map_or(Instant::now() + STEP_BACK, |at| at + STEP_BACK_AGAIN);
            self.step_back_at = Some(again);
        }
    }

    fn share(&self) -> Share {
        *self.share.borrow()
    }

    fn is_ours(&self) -> bool {
        self.share().owns(self.number)
    }

    fn wanted_prefetch(&self) -> u16 {
        self.share().prefetch(self.window, self.of)
    }

    /// Goes to the back of the line. The new place is taken before the old one is left, so that the queue is never
    /// without somebody in line.
    async fn begin_anew(&mut self, after_another: bool, session: &Session, arrived: &Arrived) -> Result<(), ConnectError> {
        let new = self.subscription.take_place(self.wanted_prefetch(), after_another).await?;
        let old = std::mem::replace(&mut self.place, new);
        self.subscription.leave(old, session, arrived).await
    }
}

/// How standing in line has ended.
enum Left {
    SessionEnds,
    Stopped,
}

/// Never, where there is no such instant.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
