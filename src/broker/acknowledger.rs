//! Acknowledging: all that is done is told to the broker at once, up to the first message that isn't.
//!
//! Each acknowledgement is an entry in the log of a quorum queue, so that one for many costs the broker a part of many. What is
//! done behind a message that takes long is told by itself, after a moment: it must not count among those that are held.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::delivery::Held;
use super::session::Session;
use super::within;

/// How long what is done waits for those before it.
const MOMENT: Duration = Duration::from_millis(50);
/// What is told at once at most.
const BATCH: usize = 1_024;

/// Where the messages of one channel go when they are done.
#[derive(Clone)]
pub struct Acknowledger(mpsc::UnboundedSender<(u64, Held)>);

impl Acknowledger {
    /// Of the messages that come over a channel from now on. It ends with all who can send to it.
    pub fn of(channel: Channel, session: Session) -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        tokio::spawn(acknowledge(channel, session, done));
        Self(sender)
    }

    /// A message is done.
    pub fn done(&self, delivery_tag: u64, held: Held) {
        // It ends with its session: then everything comes again.
        let _ = self.0.send((delivery_tag, held));
    }
}

async fn acknowledge(channel: Channel, session: Session, mut done: mpsc::UnboundedReceiver<(u64, Held)>) {
    let (mut book, mut batch) = (Book::new(), Vec::new());
    loop {
        let goes_on = tokio::select! {
            received = done.recv_many(&mut batch, BATCH) => received > 0,
            () = book.overdue() => true,
            () = session.lost() => return,
        };
        for (delivery_tag, held) in batch.drain(..) {
            book.done(delivery_tag, held);
        }
        // Nobody is to wait at the end, when no more is taken.
        let overdue = if goes_on && !session.is_ending() { MOMENT } else { Duration::ZERO };
        let told = async {
            if let Some(last) = book.up_to() {
                within(channel.basic_ack(last, BasicAckOptions { multiple: true })).await?;
            }
            for delivery_tag in book.alone(overdue) {
                within(channel.basic_ack(delivery_tag, BasicAckOptions::default())).await?;
            }
            Ok::<_, super::ConnectError>(())
        };
        if let Err(error) = told.await {
            return session.give_up(format!("acknowledging failed: {error}"));
        }
        if !goes_on {
            return;
        }
    }
}

/// What was done on a channel, whose messages are numbered from 1.
struct Book<H> {
    /// The first that isn't done.
    first: u64,
    /// What is done behind it; nothing where that was told already.
    behind: BTreeMap<u64, Option<H>>,
    /// The same in the order of time, and some that are no longer behind.
    waiting: VecDeque<(Instant, u64)>,
}

impl<H> Book<H> {
    fn new() -> Self {
        Self { first: 1, behind: BTreeMap::new(), waiting: VecDeque::new() }
    }

    fn done(&mut self, delivery_tag: u64, held: H) {
        self.behind.insert(delivery_tag, Some(held));
        self.waiting.push_back((Instant::now(), delivery_tag));
    }

    /// The last message up to which all are done, where any of them is still to be told: it is one of those, since the broker
    /// takes no number twice.
    fn up_to(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(held) = self.behind.remove(&self.first) {
            last = held.map(|_| self.first).or(last);
            self.first += 1;
        }
        while self.waiting.pop_front_if(|(_, delivery_tag)| *delivery_tag < self.first).is_some() {}
        last
    }

    /// What has been waiting for so long behind a message that isn't done.
    fn alone(&mut self, overdue: Duration) -> Vec<u64> {
        let mut alone = Vec::new();
        while let Some((_, delivery_tag)) = self.waiting.pop_front_if(|(since, _)| since.elapsed() >= overdue) {
            if self.behind.get_mut(&delivery_tag).and_then(Option::take).is_some() {
                alone.push(delivery_tag);
            }
        }
        alone
    }

    /// Ends when something has been waiting for too long.
    async fn overdue(&self) {
        match self.waiting.front() {
            Some((since, _)) => tokio::time::sleep_until(*since + MOMENT).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_up_to_the_first_that_is_not_done_is_told_at_once() {
        let mut book = Book::new();
        [3, 1, 2, 5].into_iter().for_each(|delivery_tag| book.done(delivery_tag, ()));
        assert_eq!((book.up_to(), book.alone(MOMENT)), (Some(3), vec![]));
        book.done(4, ());
        assert_eq!((book.up_to(), book.alone(MOMENT)), (Some(5), vec![]));
        assert_eq!((book.up_to(), book.waiting.len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_is_told_by_itself_and_never_again() {
        let mut book = Book::new();
        [2, 4].into_iter().for_each(|delivery_tag| book.done(delivery_tag, ()));
        book.overdue().await;
        assert_eq!((book.up_to(), book.alone(MOMENT)), (None, vec![2, 4]));
        book.done(3, ());
        assert_eq!((book.up_to(), book.alone(MOMENT)), (None, vec![]));
        book.done(1, ());
        assert_eq!(book.up_to(), Some(3), "of the first four, the last that the broker has not been told of");
        assert_eq!((book.up_to(), book.alone(Duration::ZERO)), (None, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_counts_no_longer_as_held() {
        let (mut book, held) = (Book::new(), std::sync::Arc::new(()));
        [1, 3].into_iter().for_each(|delivery_tag| book.done(delivery_tag, std::sync::Arc::clone(&held)));
        assert_eq!(book.up_to(), Some(1));
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        assert_eq!(book.alone(Duration::ZERO), [3]);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
