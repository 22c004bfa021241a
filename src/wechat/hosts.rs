//! Which host of WeChat's API is asked: the first one, unless it can't be reached; then another, for some minutes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::WeChatAnswer;
use crate::metrics::Metrics;
use crate::outcome::{AttemptFailure, Reason};

/// After this long on another host the first one is tried again.
const STICKY: Duration = Duration::from_secs(300);
/// A reset of a kept-alive connection is common and says nothing of the host; so many lost answers in a row do.
const LOST_IN_A_ROW: u32 = 3;

/// The hosts of the same API, the preferred one first.
pub struct Hosts {
    base_urls: Vec<String>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

struct State {
    current: usize,
    /// When it became the current one.
    since: Instant,
    lost_in_a_row: u32,
}

/// The host that a request is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host(usize);

impl Host {
    /// Its place among all.
    pub fn index(self) -> usize {
        self.0
    }
}

impl Hosts {
    pub fn new(base_urls: Vec<String>, metrics: Arc<Metrics>) -> Self {
        for (index, base_url) in base_urls.iter().enumerate() {
            metrics.wechat_host(name(base_url), index == 0);
        }
        Self { base_urls, state: Mutex::new(State { current: 0, since: Instant::now(), lost_in_a_row: 0 }), metrics }
    }

    /// The host for the next request.
    pub fn pick(&self) -> Host {
        let mut state = self.locked();
        if state.current != 0 && state.since.elapsed() >= STICKY {
            self.change(&mut state, 0, "it was left some minutes ago and is tried again");
        }
        Host(state.current)
    }

    pub fn base_url(&self, host: Host) -> &str {
        self.base_urls.get(host.0).map_or("", String::as_str)
    }

    /// Learns how a request to a host went. An errcode is an answer like any other: only what stands between us and
    /// WeChat is a reason to ask elsewhere.
    pub fn learn(&self, host: Host, answer: &Result<WeChatAnswer, AttemptFailure>) {
        self.metrics.wechat_host_call(name(self.base_url(host)), answer.is_ok());
        let mut state = self.locked();
        // Whoever fails first moves on; the others find it moved.
        if state.current != host.0 {
            return;
        }
        let why = match answer.as_ref().map_err(|failed| failed.failure.reason) {
            Err(Reason::Unreachable) => "the other could not be reached",
            Err(Reason::GatewayError) => "a gateway before the other failed",
            Err(Reason::AnswerLost) => {
                state.lost_in_a_row += 1;
                if state.lost_in_a_row < LOST_IN_A_ROW {
                    return;
                }
                "several answers of the other were lost in a row"
            }
            _ => {
                state.lost_in_a_row = 0;
                return;
            }
        };
        let next = (host.0 + 1) % self.base_urls.len().max(1);
        if next != host.0 {
            self.change(&mut state, next, why);
        }
    }

    fn change(&self, state: &mut State, to: usize, why: &str) {
        let host = |index: usize| self.base_urls.get(index).map_or("", |base_url| name(base_url));
        self.metrics.wechat_host(host(state.current), false);
        self.metrics.wechat_host(host(to), true);
        self.metrics.wechat_host_changes.inc();
        tracing::warn!(host = host(to), why, "another host of WeChat's API is used");
        *state = State { current: to, since: Instant::now(), lost_in_a_row: 0 };
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's name and port.
fn name(base_url: &str) -> &str {
    let authority = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    authority.split('/').next().unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Class, Failure};

    fn hosts() -> Hosts {
        let urls = ["https://a.example", "https://b.example/", "https://c.example"];
        Hosts::new(urls.map(str::to_owned).into(), Arc::new(Metrics::new().unwrap()))
    }

    fn failed(reason: Reason) -> Result<WeChatAnswer, AttemptFailure> {
        Err(AttemptFailure::new(Class::Retry, Failure::new(reason, "x")))
    }

    fn answered(errcode: i64) -> Result<WeChatAnswer, AttemptFailure> {
        Ok(WeChatAnswer { errcode, errmsg: String::new(), body: serde_json::Map::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn another_host_is_kept_for_some_minutes() {
        let hosts = hosts();
        let first = hosts.pick();
        hosts.learn(first, &failed(Reason::Unreachable));
        let second = hosts.pick();
        assert_eq!(hosts.base_url(second), "https://b.example/");
        hosts.learn(first, &failed(Reason::Unreachable));
        assert_eq!(hosts.pick(), second, "who fails late finds it moved");
        tokio::time::advance(STICKY / 2).await;
        assert_eq!(hosts.pick(), second);
        tokio::time::advance(STICKY).await;
        assert_eq!(hosts.pick(), first);
        let text = hosts.metrics.text().unwrap();
        assert!(text.contains("kf_wechat_host{host=\"a.example\"} 1") && text.contains("kf_wechat_host_changes_total 2"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_errcode_never_changes_the_host_and_one_lost_answer_does_not() {
        let hosts = hosts();
        let first = hosts.pick();
        for errcode in [-1, 40001, 45009, 50002] {
            hosts.learn(first, &answered(errcode));
        }
        for _ in 0..3 {
            hosts.learn(first, &failed(Reason::AnswerLost));
            hosts.learn(first, &failed(Reason::AnswerLost));
            hosts.learn(first, &answered(0));
        }
        hosts.learn(first, &failed(Reason::MalformedAnswer));
        assert_eq!(hosts.pick(), first);
        for _ in 0..3 {
            hosts.learn(first, &failed(Reason::AnswerLost));
        }
        assert_ne!(hosts.pick(), first);
    }
}
