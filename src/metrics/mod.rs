//! Every metric once: what it counts, under which labels, and all label sets at 0 from the start.

mod at_start;
mod official_accounts;
mod record;
#[cfg(test)]
mod reference;
mod table;
mod words;

use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use table::Entry;
pub use words::{CallClass, EventEnd, LedgerOperation};

use crate::outcome::Status;
use official_accounts::Known;
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
/// How a fetch of a token can end.
const FETCHES: [&str; 2] = ["ok", "failed"];
/// How a command of a known Official Account can end.
const ENDS: [Status; 3] = [Status::Succeeded, Status::Failed, Status::Superseded];

table! {
    /// The worker's metrics, prefix `kf_`.
    pub struct Metrics besides {
        /// Whose series there are.
        known: Known,
    } {
        "Commands" {
            /// Messages taken from the commands queues, redeliveries and returning copies included
            pub commands_received: IntCounter = "kf_commands_received_total",
            /// Messages that the broker had delivered before
            pub commands_redelivered: IntCounter = "kf_commands_redelivered_total",
            /// Commands answered from the ledger, because it had their outcome
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
            /// The most messages that are held at once (worker.window)
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
            /// The most calls that are in flight at WeChat at once (worker.concurrency)
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
            /// Commands of an Official Account that are held
            official_account_commands_held: IntGaugeVec = "kf_official_account_commands_held" by ["official_account"],
            /// kf accounts of an Official Account as WeChat listed them last, of 100; NaN before that
            official_account_kf_accounts: GaugeVec = "kf_official_account_kf_accounts" by ["official_account"],
            /// kf accounts that differ from what the commands asked for, as found last: missing, unexpected, renamed;
            /// NaN before they were compared
            official_account_drift: GaugeVec = "kf_official_account_drift" by ["official_account", "kind"],
            /// Fetches of access tokens by Official Account (or platform and its AppID) and result
            token_fetches: IntCounterVec = "kf_token_fetches_total" by ["official_account", "result"],
            /// When the access token that is held for an Official Account ends, or has ended; 0 while none is held
            token_expiry: IntGaugeVec = "kf_token_expiry_timestamp_seconds" by ["official_account"],
        }
        "Broker" {
            /// 1 while all connections to the broker are up
            pub broker_connected: IntGauge = "kf_broker_connected",
            /// 1 while the broker takes no messages from this worker (an alarm)
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
            /// Size of the ledger: the file with its log, or the tables with their indexes; NaN while it can't be read
            ledger_size: Gauge = "kf_ledger_size_bytes",
            /// Commands of the whole ledger that are accepted and have no outcome yet, those put off included; NaN while it
            /// can't be read
            ledger_unfinished: Gauge = "kf_ledger_unfinished_commands",
            /// When the oldest command without an outcome was received, or replayed last; 0 where there is none, NaN while
            /// the ledger can't be read
            ledger_oldest_unfinished: Gauge = "kf_ledger_oldest_unfinished_timestamp_seconds",
            /// Times that nothing could be recorded of a command, because another worker had taken its account
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;

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
        metrics.token_fetched("test", true);
        metrics.kf_accounts("test", 91);
        assert_eq!(series(&metrics), before, "what is learned later brings nothing back");
    }
}
