//! Every metric once: what it counts, under which labels, and all label sets at 0 from the start.

#[cfg(test)]
mod reference;
mod table;
mod words;

use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use table::Entry;
pub use words::{CallClass, EventEnd, LedgerOperation, NotReady};

use crate::event::Conclusion;
use crate::outcome::{Action, AttemptFailure, Reason, Status};
use table::{Kind, table};

/// How long a call to WeChat takes: from what a test does to the longest timeout that makes sense, in seconds.
const CALL: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How long a request to the ledger takes, in seconds.
const LEDGER: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// How long a command can be held, lanes and backoff included, in seconds.
const PROCESSING: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
/// How long a message can wait for a worker, in seconds; producers tell whole seconds only.
const QUEUE: [f64; 11] = [1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 172_800.0];

/// The ways in which WeChat's list can differ from what was asked for.
const DRIFT: [&str; 3] = ["missing", "unexpected", "renamed"];
/// How a command of a known Official Account can end.
const ENDS: [Status; 3] = [Status::Succeeded, Status::Failed, Status::Superseded];

table! {
    /// The worker's metrics, prefix `kf_`.
    pub struct Metrics {
        "Commands" {
            /// Messages taken from the commands queues, redeliveries and returning copies included
            pub commands_received: IntCounter = "kf_commands_received_total",
            /// Messages that the broker had delivered before
            pub commands_redelivered: IntCounter = "kf_commands_redelivered_total",
            /// Commands answered from the ledger since they had an outcome
            pub repeats: IntCounter = "kf_repeats_total",
            /// Outcomes reached, by action, status and reason (none for a success)
            results: IntCounterVec = "kf_results_total" by ["action", "status", "reason"],
            /// Time from a message's AMQP timestamp, by its producer's clock, to its being taken for the first time;
            /// only of messages that carry one
            queue_wait: Histogram = "kf_queue_wait_seconds" in QUEUE,
            /// Time from taking a message to acknowledging it, lanes and waits in between included
            pub processing: Histogram = "kf_processing_seconds" in PROCESSING,
            /// Messages taken and not yet acknowledged
            commands_held: IntGauge = "kf_commands_held",
            /// Messages taken and not yet acknowledged at most (worker.window)
            pub commands_held_limit: IntGauge = "kf_commands_held_limit",
            /// When a command was last finished and acknowledged; 0 before the first one of this process
            pub last_finished: IntGauge = "kf_last_finished_timestamp_seconds",
            /// Calls to WeChat begun, by action
            attempts: IntCounterVec = "kf_attempts_total" by ["action"],
            /// Attempts that failed and will be made again, by reason
            retries: IntCounterVec = "kf_retries_total" by ["reason"],
            /// Times that a command had to wait, after an attempt or before one, by reason
            waits: IntCounterVec = "kf_waits_total" by ["reason"],
            /// Commands moved to a deferred queue, by reason
            put_off: IntCounterVec = "kf_put_off_total" by ["reason"],
            /// Copies put into the dead letters, by reason
            dead_letters: IntCounterVec = "kf_dead_letters_total" by ["reason"],
        }
        "WeChat" {
            /// Calls to WeChat that have ended, by endpoint and by what the answer meant; unanswered where there was none
            wechat_calls: IntCounterVec = "kf_wechat_calls_total" by ["endpoint", "class"],
            /// Answers of WeChat by endpoint and errcode; other where nobody has documented the errcode
            wechat_errcodes: IntCounterVec = "kf_wechat_errcodes_total" by ["endpoint", "errcode"],
            /// Time from sending a request to WeChat to its answer
            wechat_call_seconds: HistogramVec = "kf_wechat_call_seconds" by ["endpoint"] in CALL,
            /// Requests to a host of WeChat's API, by whether an answer of WeChat's came
            wechat_host_calls: IntCounterVec = "kf_wechat_host_calls_total" by ["host", "answered"],
            /// 1 for the host of WeChat's API that is used
            wechat_host: IntGaugeVec = "kf_wechat_host" by ["host"],
            /// Times that another host of WeChat's API was taken
            pub wechat_host_changes: IntCounter = "kf_wechat_host_changes_total",
            /// Calls in flight at WeChat
            calls_in_flight: IntGauge = "kf_calls_in_flight",
            /// Calls in flight at WeChat at most (worker.concurrency)
            pub calls_in_flight_limit: IntGauge = "kf_calls_in_flight_limit",
            /// 1 while nearly every call fails and one at a time is made
            pub wechat_failing: IntGauge = "kf_wechat_failing",
        }
        "Official Accounts" {
            /// Official Accounts that are configured
            official_accounts: IntGauge = "kf_official_accounts",
            /// Official Accounts that are paused, by reason
            official_accounts_paused: IntGaugeVec = "kf_official_accounts_paused" by ["reason"],
            /// 1 while calls for an Official Account are held back for this reason; appears with its first pause
            official_account_paused: IntGaugeVec = "kf_official_account_paused" by ["official_account", "reason"],
            /// Times that an Official Account was paused, by reason
            pauses: IntCounterVec = "kf_pauses_total" by ["reason"],
            /// Outcomes reached by commands of a configured Official Account, by status
            official_account_results: IntCounterVec = "kf_official_account_results_total" by ["official_account", "status"],
            /// Commands of an Official Account that are in hand
            official_account_commands_held: IntGaugeVec = "kf_official_account_commands_held" by ["official_account"],
            /// kf accounts of an Official Account as WeChat listed them last, of 100; NaN before that
            official_account_kf_accounts: GaugeVec = "kf_official_account_kf_accounts" by ["official_account"],
            /// kf accounts that differ from what the commands asked for, as found last: missing, unexpected, renamed;
            /// NaN before they were compared
            official_account_drift: GaugeVec = "kf_official_account_drift" by ["official_account", "kind"],
            /// Fetches of access tokens by Official Account (or platform and its AppID) and result
            token_fetches: IntCounterVec = "kf_token_fetches_total" by ["official_account", "result"],
            /// When the access token that is held for an Official Account ends; 0 while none is held
            token_expiry: IntGaugeVec = "kf_token_expiry_timestamp_seconds" by ["official_account"],
        }
        "Broker" {
            /// 1 while both connections to the broker are up
            pub broker_connected: IntGauge = "kf_broker_connected",
            /// 1 while the broker takes no messages from us (an alarm)
            pub broker_blocked: IntGauge = "kf_broker_blocked",
            /// Times that the broker was connected again and consumed from
            pub broker_reconnects: IntCounter = "kf_broker_reconnects_total",
            /// Partitions assigned to this worker; it may take others for a while, until their worker does
            pub partitions: IntGauge = "kf_partitions",
            /// Result events published: confirmed, returned (confirmed, but no queue took it), nacked, or unconfirmed
            events: IntCounterVec = "kf_events_total" by ["result"],
        }
        "Ledger" {
            /// Time that a request to the ledger took, commit included
            ledger_seconds: HistogramVec = "kf_ledger_seconds" by ["operation"] in LEDGER,
            /// Requests to the ledger that failed
            ledger_failures: IntCounterVec = "kf_ledger_failures_total" by ["operation"],
            /// Size of the ledger: the file with its log, or the tables with their indexes
            pub ledger_size: IntGauge = "kf_ledger_size_bytes",
            /// Commands of the whole ledger that are accepted and have no outcome yet, those put off included
            pub ledger_unfinished: IntGauge = "kf_ledger_unfinished_commands",
            /// When the oldest command without an outcome was received first; 0 where there is none
            pub ledger_oldest_unfinished: IntGauge = "kf_ledger_oldest_unfinished_timestamp_seconds",
            /// Times that nothing could be recorded of a command, since another worker had taken its account
            pub claims_lost: IntCounter = "kf_claims_lost_total",
        }
        "Worker" {
            /// 1 while the worker is ready, as /readyz says
            ready: IntGauge = "kf_ready",
            /// 1 for the reason why the worker is not ready
            not_ready: IntGaugeVec = "kf_not_ready" by ["reason"],
            /// 1, with the version of the worker
            build_info: IntGaugeVec = "kf_build_info" by ["version"],
        }
    }
}

impl Metrics {
    /// Makes all metrics and registers them.
    ///
    /// # Errors
    /// Where two share a name or a name is not one: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let metrics = Self::registered(registry)?;
        metrics.start_at_zero();
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// Makes every label set appear that can be known from the start.
    fn start_at_zero(&self) {
        for action in Action::ALL {
            self.attempts.with_label_values(&[action.as_str()]);
            self.results.with_label_values(&[action.as_str(), Status::Succeeded.as_str(), "none"]);
            for (status, reasons) in [(Status::Failed, Reason::FAILED), (Status::Superseded, Reason::SUPERSEDED)] {
                for reason in reasons {
                    self.results.with_label_values(&[action.as_str(), status.as_str(), reason.as_str()]);
                }
            }
        }
        for reason in Reason::REJECTED {
            for action in ["add", "delete", "unknown"] {
                self.results.with_label_values(&[action, Status::Rejected.as_str(), reason.as_str()]);
            }
        }
        for reason in Reason::PAUSING {
            for counter in [&self.pauses, &self.retries] {
                counter.with_label_values(&[reason.as_str()]);
            }
            self.official_accounts_paused.with_label_values(&[reason.as_str()]);
        }
        for reason in Reason::PAUSING.iter().chain(Reason::WAITING) {
            for counter in [&self.waits, &self.put_off] {
                counter.with_label_values(&[reason.as_str()]);
            }
        }
        for reason in Reason::FAILED.iter().chain(Reason::DEAD) {
            self.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for endpoint in words::ENDPOINTS {
            self.wechat_call_seconds.with_label_values(&[endpoint]);
            for class in CallClass::ALL {
                self.wechat_calls.with_label_values(&[endpoint, class.as_str()]);
            }
        }
        for end in EventEnd::ALL {
            self.events.with_label_values(&[end.as_str()]);
        }
        for operation in LedgerOperation::ALL {
            self.ledger_seconds.with_label_values(&[operation.as_str()]);
            self.ledger_failures.with_label_values(&[operation.as_str()]);
        }
        for reason in NotReady::ALL {
            self.not_ready.with_label_values(&[reason.as_str()]);
        }
    }

    /// A command has reached its outcome. The Official Account is told where it is configured, since anybody can invent
    /// others.
    pub fn finished(&self, conclusion: &Conclusion, official_account: Option<&str>) {
        let action = conclusion.action.map_or("unknown", Action::as_str);
        let reason = conclusion.reason.map_or("none", Reason::as_str);
        let status = conclusion.status;
        self.results.with_label_values(&[action, status.as_str(), reason]).inc();
        if let Some(official_account) = official_account.filter(|_| ENDS.contains(&status)) {
            self.official_account_results.with_label_values(&[official_account, status.as_str()]).inc();
        }
    }

    /// A message was taken for the first time, so long after it was sent.
    pub fn waited_in_queue(&self, waited: Duration) {
        observe(&self.queue_wait, waited);
    }

    /// A call to WeChat begins; it is in flight until the answer is dropped, also where it is given up.
    pub fn attempt(&self, action: Action) -> Counted {
        self.attempts.with_label_values(&[action.as_str()]).inc();
        Counted::new(&self.calls_in_flight)
    }

    /// Calls in flight at WeChat.
    pub fn in_flight(&self) -> i64 {
        self.calls_in_flight.get()
    }

    /// Messages taken and not yet acknowledged.
    pub fn held(&self) -> i64 {
        self.commands_held.get()
    }

    /// A message was taken; it is held until the answer is dropped.
    pub fn hold(&self) -> Counted {
        Counted::new(&self.commands_held)
    }

    /// An attempt has failed and will be made again.
    pub fn retried(&self, reason: Reason) {
        self.retries.with_label_values(&[reason.as_str()]).inc();
    }

    /// A command has to wait.
    pub fn waits(&self, reason: Reason) {
        self.waits.with_label_values(&[reason.as_str()]).inc();
    }

    /// A command was moved to a deferred queue.
    pub fn put_off(&self, reason: Reason) {
        self.put_off.with_label_values(&[reason.as_str()]).inc();
    }

    /// A copy was put into the dead letters.
    pub fn dead_letter(&self, reason: Reason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// A call has ended, with this errcode where WeChat answered one, and this failure where it did not reach its end.
    /// Errcodes that nobody has documented share one label, since WeChat can invent any number.
    pub fn wechat_call(&self, endpoint: &str, errcode: Option<i64>, failure: Option<&AttemptFailure>) {
        let class = CallClass::of(failure);
        self.wechat_calls.with_label_values(&[endpoint, class.as_str()]).inc();
        if let Some(errcode) = errcode {
            let label = if class == CallClass::Unknown { "other".to_owned() } else { errcode.to_string() };
            self.wechat_errcodes.with_label_values(&[endpoint, &label]).inc();
        }
    }

    /// How long calls of an endpoint take.
    pub fn wechat_call_seconds(&self, endpoint: &str) -> Histogram {
        self.wechat_call_seconds.with_label_values(&[endpoint])
    }

    /// Makes the series of a host of WeChat's API appear; it is used, or not.
    pub fn wechat_host(&self, host: &str, used: bool) {
        self.wechat_host.with_label_values(&[host]).set(used.into());
        for answered in ["true", "false"] {
            self.wechat_host_calls.with_label_values(&[host, answered]);
        }
    }

    /// A request to a host of WeChat's API has ended.
    pub fn wechat_host_call(&self, host: &str, answered: bool) {
        self.wechat_host_calls.with_label_values(&[host, if answered { "true" } else { "false" }]).inc();
    }

    /// A token was fetched, or could not be.
    pub fn token_fetched(&self, official_account: &str, well: bool) {
        self.token_fetches.with_label_values(&[official_account, if well { "ok" } else { "failed" }]).inc();
    }

    /// Makes the series of an Official Account appear. What is not known yet is no number.
    pub fn knows_official_account(&self, official_account: &str) {
        for result in ["ok", "failed"] {
            self.token_fetches.with_label_values(&[official_account, result]);
        }
        for status in ENDS {
            self.official_account_results.with_label_values(&[official_account, status.as_str()]);
        }
        self.official_account_commands_held.with_label_values(&[official_account]);
        self.token_expiry.with_label_values(&[official_account]);
        self.official_account_kf_accounts.with_label_values(&[official_account]).set(f64::NAN);
        for kind in DRIFT {
            self.official_account_drift.with_label_values(&[official_account, kind]).set(f64::NAN);
        }
    }

    /// Removes the series of an Official Account that is configured no more.
    pub fn forgets_official_account(&self, official_account: &str) {
        // What was never there need not be removed.
        for result in ["ok", "failed"] {
            let _ = self.token_fetches.remove_label_values(&[official_account, result]);
        }
        for status in ENDS {
            let _ = self.official_account_results.remove_label_values(&[official_account, status.as_str()]);
        }
        for reason in Reason::PAUSING {
            let _ = self.official_account_paused.remove_label_values(&[official_account, reason.as_str()]);
        }
        for kind in DRIFT {
            let _ = self.official_account_drift.remove_label_values(&[official_account, kind]);
        }
        let _ = self.official_account_kf_accounts.remove_label_values(&[official_account]);
        for gauge in [&self.official_account_commands_held, &self.token_expiry] {
            let _ = gauge.remove_label_values(&[official_account]);
        }
    }

    /// Shows how many Official Accounts there are, and how many of them are paused for each reason.
    pub fn official_accounts(&self, configured: usize, paused: impl Fn(Reason) -> usize) {
        self.official_accounts.set(gauge(configured));
        for reason in Reason::PAUSING {
            self.official_accounts_paused.with_label_values(&[reason.as_str()]).set(gauge(paused(*reason)));
        }
    }

    /// Shows how many commands of an Official Account are in hand.
    pub fn official_account_commands_held(&self, official_account: &str, held: usize) {
        self.official_account_commands_held.with_label_values(&[official_account]).set(gauge(held));
    }

    /// Shows when the token that is held for an Official Account ends, in seconds since 1970; 0 where none is held.
    pub fn token_expiry(&self, official_account: &str, ends_at: i64) {
        self.token_expiry.with_label_values(&[official_account]).set(ends_at);
    }

    /// Whether an Official Account is paused for a reason.
    pub fn paused(&self, official_account: &str, reason: Reason, yes: bool) {
        self.official_account_paused.with_label_values(&[official_account, reason.as_str()]).set(yes.into());
    }

    /// A pause has begun.
    pub fn pause_begins(&self, reason: Reason) {
        self.pauses.with_label_values(&[reason.as_str()]).inc();
    }

    /// WeChat listed so many kf accounts.
    pub fn kf_accounts(&self, official_account: &str, used: usize) {
        self.official_account_kf_accounts.with_label_values(&[official_account]).set(small(used));
    }

    /// So many kf accounts are missing, unexpected, and differently named.
    pub fn drift(&self, official_account: &str, counts: [usize; 3]) {
        for (kind, count) in DRIFT.into_iter().zip(counts) {
            self.official_account_drift.with_label_values(&[official_account, kind]).set(small(count));
        }
    }

    /// A result event was published, or was to be.
    pub fn event(&self, end: EventEnd) {
        self.events.with_label_values(&[end.as_str()]).inc();
    }

    /// A request to the ledger took so long, and went well or not.
    pub fn ledger(&self, operation: LedgerOperation, took: Duration, well: bool) {
        observe(&self.ledger_seconds.with_label_values(&[operation.as_str()]), took);
        if !well {
            self.ledger_failures.with_label_values(&[operation.as_str()]).inc();
        }
    }

    /// Whether the worker is ready, and if not, why.
    pub fn readiness(&self, why_not: Option<NotReady>) {
        self.ready.set(why_not.is_none().into());
        for reason in NotReady::ALL {
            self.not_ready.with_label_values(&[reason.as_str()]).set((why_not == Some(*reason)).into());
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// Where a metric can't be written: a mistake in this file.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

/// Something that is under way, and counted as such until it is dropped.
pub struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Observes how long something took.
pub fn observe(histogram: &Histogram, took: Duration) {
    histogram.observe(took.as_secs_f64());
}

fn gauge(count: usize) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// A number of kf accounts; an Official Account holds 100.
fn small(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text().unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    }

    #[test]
    fn every_series_is_there_from_the_start_and_few() {
        let metrics = Metrics::new().unwrap();
        metrics.knows_official_account("test");
        metrics.wechat_host("api.weixin.qq.com", true);
        let text = metrics.text().unwrap();
        assert!(text.contains("kf_results_total{action=\"delete\",reason=\"newer_command\",status=\"superseded\"} 0"), "{text}");
        assert!(text.contains("kf_token_fetches_total{official_account=\"test\",result=\"ok\"} 0"));
        assert!(text.contains("kf_official_account_kf_accounts{official_account=\"test\"} NaN"));
        let series = series(&metrics);
        // A worker adds an errcode now and then, and the pauses that it has met.
        assert!(series.len() < 440, "{}", series.len());
    }

    #[test]
    fn an_official_account_adds_a_handful_of_series_and_takes_them_away_again() {
        let metrics = Metrics::new().unwrap();
        let before = series(&metrics);
        metrics.knows_official_account("test");
        metrics.paused("test", Reason::DayQuota, true);
        metrics.kf_accounts("test", 90);
        assert_eq!(series(&metrics).len() - before.len(), 12);
        metrics.forgets_official_account("test");
        assert_eq!(series(&metrics), before);
    }

    #[test]
    fn a_metric_that_is_not_known_yet_is_in_the_list_all_the_same() {
        let names: Vec<&str> = Metrics::ALL.iter().map(|entry| entry.name).collect();
        let text = Metrics::new().unwrap();
        for line in text.text().unwrap().lines().filter_map(|line| line.strip_prefix("# TYPE kf_")) {
            let name = format!("kf_{}", line.split(' ').next().unwrap());
            assert!(names.contains(&name.as_str()), "{name}");
        }
    }
}
