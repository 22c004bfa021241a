//! Sends orders and waits for what becomes of them, over as many connections as that takes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::order::Order;
use super::progress::{Answer, Progress};
use super::report::{Report, Standing};
use crate::broker::{ConnectError, Producer, PublishError, Replies, Sending, Settings};
use crate::event::{self, Told};
use crate::retry;

/// Orders that are under way at once, each of another account than the others.
const AT_ONCE: usize = 16;
/// So many connections in a row may fail once one has been made.
const MOST_FAILURES: u32 = 12;
/// How often is told how far it has come.
const TELL: Duration = Duration::from_secs(5);

/// Why not all was sent, or not all was answered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Publish(PublishError),
    #[error("no queue takes commands yet: start `kf-worker run` once, which makes it, or look whether `amqp.prefix` is the worker's")]
    NoQueue,
    #[error("the connection to the broker was lost")]
    Lost,
}

impl SendError {
    /// Whether only an operator can mend it.
    pub fn needs_an_operator(&self) -> bool {
        match self {
            Self::Connect(error) | Self::Publish(PublishError::Failed(error)) => error.needs_an_operator(),
            Self::Publish(_) | Self::NoQueue | Self::Lost => false,
        }
    }

    /// Whether another connection may do.
    fn may_pass(&self) -> bool {
        !self.needs_an_operator() && !matches!(self, Self::NoQueue)
    }
}

impl From<PublishError> for SendError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unroutable(_) => Self::NoQueue,
            other => Self::Publish(other),
        }
    }
}

/// Orders on their way.
pub struct Delivery<'a> {
    orders: &'a [Order],
    settings: &'a Settings,
    wait: bool,
    by_id: HashMap<&'a str, usize>,
    /// When the sending began.
    begun: Timestamp,
    /// How far each order has come.
    pub progress: Vec<Progress>,
    /// How many of them have come as far as they are meant to.
    done: usize,
    connected: bool,
}

impl<'a> Delivery<'a> {
    /// Orders that nobody has sent yet. With `wait` each is followed until its result is there.
    pub fn new(orders: &'a [Order], settings: &'a Settings, wait: bool) -> Self {
        let by_id = orders.iter().enumerate().map(|(index, order)| (order.command_id(), index)).collect();
        let progress = orders.iter().map(|_| Progress::Unsent).collect();
        Self { orders, settings, wait, by_id, begun: event::now(), progress, done: 0, connected: false }
    }

    /// Sends all of them, and waits for their results where that was asked for. After a lost connection what is not done is
    /// sent once more, which changes nothing but brings the results.
    ///
    /// # Errors
    /// Where the broker was never reached, refuses, or stays away.
    pub async fn carry_out(&mut self, report: &Report) -> Result<(), SendError> {
        let mut failures = 0;
        loop {
            let before = self.done;
            let Err(error) = self.over_one_connection(report).await else { return Ok(()) };
            failures = if self.done > before { 1 } else { failures + 1 };
            if !self.connected || !error.may_pass() || failures > MOST_FAILURES {
                return Err(error);
            }
            report.say(format_args!("{error}; connecting again"));
            tokio::time::sleep(retry::before_reconnecting(failures)).await;
        }
    }

    /// How many are done: answered, where results are waited for, and else sent.
    pub fn done(&self) -> usize {
        self.done
    }

    async fn over_one_connection(&mut self, report: &Report) -> Result<(), SendError> {
        let mut producer = Producer::open(self.settings, AT_ONCE.min(self.orders.len())).await?;
        let mut replies = if self.wait { Some(producer.take_replies().await?) } else { None };
        self.connected = true;
        let (confirmed, mut confirms) = mpsc::unbounded_channel();
        let sending = send_all(&producer, self.orders, self.lines_of_accounts(), confirmed);
        tokio::pin!(sending);
        let mut is_sending = true;
        let mut tell = tokio::time::interval_at(tokio::time::Instant::now() + TELL, TELL);
        while self.done < self.orders.len() {
            tokio::select! {
                sent = &mut sending, if is_sending => {
                    sent?;
                    is_sending = false;
                }
                Some(index) = confirms.recv() => self.note_sent(index),
                reply = next(&mut replies) => self.take(&reply.ok_or(SendError::Lost)?, report),
                _ = tell.tick() => report.tell(&Standing { done: self.done, all_sent: !is_sending, blocked: producer.is_blocked() }),
            }
            report.show(self.done);
        }
        producer.close().await;
        Ok(())
    }

    /// What is still to be sent, in lines: those of one account are in one, in their order.
    fn lines_of_accounts(&self) -> Vec<Vec<usize>> {
        let mut lines = vec![Vec::new(); AT_ONCE];
        for (index, order) in self.orders.iter().enumerate() {
            let is_done = match self.progress[index] {
                Progress::Unsent => false,
                Progress::Sent => !self.wait,
                Progress::Answered(_) => true,
            };
            if !is_done {
                let mut hasher = DefaultHasher::new();
                order.kf_account.hash(&mut hasher);
                lines[hasher.finish() as usize % AT_ONCE].push(index);
            }
        }
        lines
    }

    fn note_sent(&mut self, index: usize) {
        if matches!(self.progress[index], Progress::Unsent) {
            self.progress[index] = Progress::Sent;
            self.done += usize::from(!self.wait);
        }
    }

    /// Takes a reply. One that is no result of ours is nobody's.
    fn take(&mut self, reply: &[u8], report: &Report) {
        let Some(data) = event::data_of(reply) else { return };
        let Some(told) = Told::read(data) else { return };
        let Some(index) = self.by_id.get(told.command_id.as_str()).copied() else { return };
        if matches!(self.progress[index], Progress::Answered(_)) {
            return;
        }
        let answer = Answer { repeat: told.finished_at < self.begun, data: data.to_owned(), told };
        report.result(&self.orders[index], &answer);
        self.progress[index] = Progress::Answered(Box::new(answer));
        self.done += 1;
    }
}

/// Sends the lines side by side, and each line's orders one after the other.
async fn send_all(
    producer: &Producer,
    orders: &[Order],
    lines: Vec<Vec<usize>>,
    confirmed: mpsc::UnboundedSender<usize>,
) -> Result<(), PublishError> {
    let lines = lines.into_iter().map(async |line| {
        for index in line {
            let order = &orders[index];
            let sending = Sending { command_id: order.command_id(), kf_account: &order.kf_account, body: &order.body };
            producer.send(sending).await?;
            // Whoever takes them lives as long as this.
            let _ = confirmed.send(index);
        }
        Ok(())
    });
    try_join_all(lines).await.map(drop)
}

/// The next reply, where any are waited for.
async fn next(replies: &mut Option<Replies>) -> Option<Vec<u8>> {
    match replies {
        Some(replies) => replies.next().await,
        None => std::future::pending().await,
    }
}
