//! Tells systemd, where it has started the worker, when commands are taken, that the worker lives, and what is the matter.
//!
//! A worker whose loop is stuck says no more that it lives, and systemd starts it afresh. Nothing is said where
//! `NOTIFY_SOCKET` isn't set.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::readiness::{NotReady, Readiness, WhyNot};

/// How often it is told of a worker that still starts, where no watchdog asks for a time of its own.
const BEAT: Duration = Duration::from_secs(10);
/// How much more time to start is asked for at a time, at least.
const MORE_TIME: Duration = Duration::from_secs(30);
/// The last words may take so long; nothing may hold up a worker that ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// systemd throws away a message of more than 4096 bytes.
const LONGEST_SENTENCE: usize = 500;
/// What is told of a worker that is well.
const WELL: &str = "taking commands";

/// Tells systemd of the worker until it is finished.
#[must_use = "the last words are lost when it isn't finished"]
pub struct Telling(Option<(CancellationToken, JoinHandle<()>)>);

/// Begins to tell systemd how the worker is.
pub fn tell(readiness: &Arc<Readiness>) -> Telling {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Telling(None);
    }
    let (readiness, watchdog, end) = (Arc::clone(readiness), sd_notify::watchdog_enabled(), CancellationToken::new());
    let until = end.clone();
    Telling(Some((end, tokio::spawn(async move { report(&readiness, watchdog, &until, send).await }))))
}

impl Telling {
    /// Tells what has not been told yet, and ends.
    pub async fn finish(self) {
        let Some((end, told)) = self.0 else { return };
        end.cancel();
        // Where that takes too long, systemd sees for itself that the process has ended.
        let _ = timeout(LAST_WORDS, told).await;
    }
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    /// Commands are taken for the first time.
    Ready,
    /// How the worker is, in a sentence.
    Status(String),
    /// The worker isn't stuck.
    Alive,
    /// The worker still starts, and needs this long until it says so again.
    MoreTime(Duration),
    Stopping,
}

/// What has been told so far.
#[derive(Debug, Clone, Default)]
struct Told {
    ready: bool,
    stopping: bool,
    status: String,
}

impl Told {
    /// What is new, and counts as told from now on.
    fn news(&mut self, why_not: Option<WhyNot>) -> Vec<News> {
        let mut news = Vec::new();
        if why_not.is_none() && !self.ready {
            self.ready = true;
            news.push(News::Ready);
        }
        if why_not.as_ref().is_some_and(|why_not| why_not.reason == NotReady::Draining) && !self.stopping {
            self.stopping = true;
            news.push(News::Stopping);
        }
        let status = why_not.map_or_else(|| WELL.to_owned(), |why_not| one_line(&why_not.to_string()));
        if status != self.status {
            self.status.clone_from(&status);
            news.push(News::Status(status));
        }
        news
    }

    fn is_starting(&self) -> bool {
        !self.ready && !self.stopping
    }
}

/// A message is made of lines: whatever a broker or a database puts into its words must not become a line of its own.
fn one_line(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_SENTENCE).collect()
}

/// Tells every change as it comes, and twice in each watchdog's interval that the worker lives, for as long as it does.
async fn report(
    readiness: &Readiness,
    watchdog: Option<Duration>,
    end: &CancellationToken,
    send: impl AsyncFn(Vec<News>) -> io::Result<()>,
) {
    let period = watchdog.map_or(BEAT, |watchdog| (watchdog / 2).max(Duration::from_millis(1)));
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut failed, mut last) = (Told::default(), false, false);
    while !last {
        let beat = tokio::select! {
            () = readiness.changed() => false,
            _ = beats.tick() => true,
            () = end.cancelled() => {
                last = true;
                false
            }
        };
        let before = told.clone();
        let mut news = told.news(readiness.why_not());
        if beat && watchdog.is_some() && !readiness.is_stuck() {
            news.push(News::Alive);
        }
        if beat && told.is_starting() {
            news.push(News::MoreTime(MORE_TIME.max(2 * period)));
        }
        if news.is_empty() {
            continue;
        }
        match send(news).await {
            Ok(()) => failed = false,
            Err(error) => {
                if !failed {
                    tracing::warn!(%error, "systemd can't be told how the worker is; it is tried again and again");
                }
                (told, failed) = (before, true);
            }
        }
    }
}

/// Sends it as one message. A service manager that doesn't read holds up a thread of its own and nobody else.
async fn send(news: Vec<News>) -> io::Result<()> {
    let sent = tokio::task::spawn_blocking(move || {
        let states: Vec<NotifyState<'_>> = news.iter().map(News::state).collect();
        sd_notify::notify(&states)
    });
    sent.await.map_err(io::Error::other)?
}

impl News {
    fn state(&self) -> NotifyState<'_> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Status(sentence) => NotifyState::Status(sentence),
            Self::Alive => NotifyState::Watchdog,
            Self::MoreTime(time) => NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)),
            Self::Stopping => NotifyState::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    const WATCHDOG: Duration = Duration::from_secs(30);

    /// A worker that tells, until it is ended, and everything that it tells.
    fn telling(readiness: &Arc<Readiness>) -> (CancellationToken, mpsc::UnboundedReceiver<News>) {
        let (sender, received) = mpsc::unbounded_channel();
        let (readiness, end) = (Arc::clone(readiness), CancellationToken::new());
        let until = end.clone();
        let send = async move |news: Vec<News>| news.into_iter().try_for_each(|news| sender.send(news)).map_err(io::Error::other);
        tokio::spawn(async move { report(&readiness, Some(WATCHDOG), &until, send).await });
        (end, received)
    }

    /// Waits for so long, and gives what was told meanwhile.
    async fn within(time: Duration, received: &mut mpsc::UnboundedReceiver<News>) -> Vec<News> {
        tokio::time::sleep(time).await;
        std::iter::from_fn(|| received.try_recv().ok()).collect()
    }

    fn status(sentence: &str) -> News {
        News::Status(sentence.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_lives_twice_in_each_interval_until_its_loop_is_stuck() {
        let readiness = Arc::new(Readiness::default());
        readiness.consuming(true);
        readiness.round();
        let (_end, mut received) = telling(&readiness);
        let told = within(Duration::from_secs(600), &mut received).await;
        assert_eq!(told[..3], [News::Ready, status(WELL), News::Alive]);
        // The loop came round at 0 s and counts as stuck after 60 s: it lived at 0, 15, 30, 45 and 60 s, and no more.
        assert_eq!(told[3..], [News::Alive, News::Alive, News::Alive, News::Alive]);
        readiness.round();
        assert_eq!(within(WATCHDOG / 2, &mut received).await, [News::Alive]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_a_broker_lives_and_says_what_it_waits_for() {
        let readiness = Arc::new(Readiness::default());
        let (_end, mut received) = telling(&readiness);
        let starting = [status("starting: not consuming yet"), News::Alive, News::MoreTime(MORE_TIME)];
        assert_eq!(within(Duration::from_secs(1), &mut received).await, starting);
        readiness.broker_trouble("connection refused".to_owned());
        assert_eq!(within(Duration::from_secs(1), &mut received).await, [status("disconnected: connection refused")]);
        assert_eq!(within(WATCHDOG / 2, &mut received).await, [News::Alive, News::MoreTime(MORE_TIME)]);
        readiness.consuming(true);
        assert_eq!(within(Duration::from_secs(1), &mut received).await, [News::Ready, status(WELL)]);
        readiness.broker_trouble("connection reset".to_owned());
        readiness.consuming(false);
        assert_eq!(within(Duration::from_secs(1), &mut received).await, [status("disconnected: connection reset")]);
        assert_eq!(within(WATCHDOG * 10, &mut received).await, vec![News::Alive; 20], "it is ready but once, and never stuck");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_told_before_the_end_is_told_last() {
        let readiness = Arc::new(Readiness::default());
        let (end, mut received) = telling(&readiness);
        within(Duration::from_secs(1), &mut received).await;
        readiness.draining();
        end.cancel();
        let mut last = Vec::new();
        while let Some(news) = received.recv().await {
            last.push(news);
        }
        assert_eq!(last, [News::Stopping, status("draining: the worker is shutting down")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_told_is_told_later() {
        let readiness = Arc::new(Readiness::default());
        readiness.consuming(true);
        let (sender, mut received) = mpsc::unbounded_channel();
        let tries = std::cell::Cell::new(0);
        let send = async |news: Vec<News>| {
            tries.set(tries.get() + 1);
            if tries.get() == 1 { Err(io::Error::other("full")) } else { sender.send(news).map_err(io::Error::other) }
        };
        let end = CancellationToken::new();
        let mut first = Vec::new();
        tokio::select! {
            () = report(&readiness, None, &end, send) => {}
            news = received.recv() => first = news.unwrap(),
            () = tokio::time::sleep(3 * BEAT) => {}
        }
        assert_eq!(first, [News::Ready, status(WELL)]);
    }

    #[test]
    fn no_word_of_a_broker_becomes_a_line_of_its_own() {
        let message = News::Status(one_line(&format!("the broker said\nREADY=1\r\nMAINPID=1{}", "x".repeat(5_000)))).state().to_string();
        assert_eq!(message.lines().count(), 1);
        assert!(message.starts_with("STATUS=the broker said READY=1  MAINPID=1x") && message.len() < 4_096);
    }
}
