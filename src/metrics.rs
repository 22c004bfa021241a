//! Every metric once: what it counts, under which labels, and all label sets at 0 from the start.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::event::Conclusion;
use crate::outcome::{Action, Reason, Status};

/// The worker's metrics, prefix `kf_`.
pub struct Metrics {
    registry: Registry,
    pub commands_received: IntCounter,
    pub commands_redelivered: IntCounter,
    pub repeats: IntCounter,
    results: IntCounterVec,
    attempts: IntCounterVec,
    waits: IntCounterVec,
    put_off: IntCounterVec,
    dead_letters: IntCounterVec,
    wechat_calls: IntCounterVec,
    wechat_call_seconds: HistogramVec,
    pub command_seconds: Histogram,
    token_fetches: IntCounterVec,
    calls_in_flight: IntGauge,
    pub calls_limit: IntGauge,
    commands_held: IntGauge,
    pub broker_connected: IntGauge,
    pub broker_blocked: IntGauge,
    pub broker_sessions: IntCounter,
    pub partitions: IntGauge,
    pub events_confirmed: IntCounter,
    pub events_unroutable: IntCounter,
    pub ledger_seconds: Histogram,
    pub claims_lost: IntCounter,
    pub last_finished: IntGauge,
    paused: IntGaugeVec,
    pauses_begun: IntCounterVec,
    pub wechat_failing: IntGauge,
    wechat_host: IntGaugeVec,
    pub wechat_host_changes: IntCounter,
    kf_accounts: IntGaugeVec,
    drift: IntGaugeVec,
}

/// Latencies from half a millisecond to half a minute, in seconds.
const LATENCY: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];
/// How long a command can take, lanes and backoff included, in seconds.
const COMMAND: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

/// The ways in which WeChat's list can differ from what was asked for.
const DRIFT: [&str; 3] = ["missing", "unexpected", "renamed"];

impl Metrics {
    /// Makes all metrics and registers them.
    ///
    /// # Errors
    /// Where two share a name or a name is not one: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker { registry: &registry };
        let metrics = Self {
            commands_received: make
                .counter("kf_commands_received_total", "Messages taken from the commands queue, redeliveries included")?,
            commands_redelivered: make.counter("kf_commands_redelivered_total", "Messages that the broker had delivered before")?,
            repeats: make.counter("kf_repeats_total", "Commands answered from the ledger since they had an outcome")?,
            results: make.counters(
                "kf_results_total",
                "Outcomes reached, by action, status and reason (none for a success)",
                &["action", "status", "reason"],
            )?,
            attempts: make.counters("kf_attempts_total", "Calls to WeChat begun, by action", &["action"])?,
            waits: make.counters("kf_waits_total", "Times that a command had to wait, by reason", &["reason"])?,
            put_off: make.counters("kf_put_off_total", "Commands moved to a deferred queue, by reason", &["reason"])?,
            dead_letters: make.counters("kf_dead_letters_total", "Copies put into the dead letters, by reason", &["reason"])?,
            wechat_calls: make.counters(
                "kf_wechat_calls_total",
                "Answers of WeChat by endpoint and errcode, or why there was none",
                &["endpoint", "errcode"],
            )?,
            wechat_call_seconds: make.histograms(
                "kf_wechat_call_seconds",
                "Time from sending a request to WeChat to its answer",
                &["endpoint"],
                &LATENCY,
            )?,
            command_seconds: make.histogram("kf_command_seconds", "Time from taking a command's message to acknowledging it", &COMMAND)?,
            token_fetches: make.counters(
                "kf_token_fetches_total",
                "Fetches of access tokens by Official Account (or `platform` and its AppID) and result",
                &["official_account", "result"],
            )?,
            calls_in_flight: make.gauge("kf_calls_in_flight", "Calls in flight at WeChat")?,
            calls_limit: make.gauge("kf_calls_limit", "Calls in flight at WeChat at most (worker.concurrency)")?,
            commands_held: make.gauge("kf_commands_held", "Messages taken and not yet acknowledged")?,
            broker_connected: make.gauge("kf_broker_connected", "1 while both connections to the broker are up")?,
            broker_blocked: make.gauge("kf_broker_blocked", "1 while the broker takes no messages from us (an alarm)")?,
            broker_sessions: make.counter("kf_broker_sessions_total", "Times that the broker was connected and consumed from")?,
            partitions: make
                .gauge("kf_partitions", "Partitions assigned to this worker; it may take others for a while, until their worker does")?,
            events_confirmed: make.counter("kf_events_confirmed_total", "Result events confirmed by the broker")?,
            events_unroutable: make.counter("kf_events_unroutable_total", "Result events that no queue took")?,
            ledger_seconds: make.histogram("kf_ledger_seconds", "Time that a request to the ledger took, commit included", &LATENCY)?,
            claims_lost: make.counter(
                "kf_claims_lost_total",
                "Times that nothing could be recorded of a command, since another worker had taken its account",
            )?,
            last_finished: make.gauge("kf_last_finished_timestamp_seconds", "When a command was last finished and acknowledged")?,
            paused: make.gauges(
                "kf_official_account_paused",
                "1 while calls for an Official Account are held back for this reason",
                &["official_account", "reason"],
            )?,
            pauses_begun: make.counters("kf_pauses_total", "Times that an Official Account was paused, by reason", &["reason"])?,
            wechat_failing: make.gauge("kf_wechat_failing", "1 while nearly every call fails and one at a time is made")?,
            wechat_host: make.gauges("kf_wechat_host", "1 for the host of WeChat's API that is used", &["host"])?,
            wechat_host_changes: make.counter("kf_wechat_host_changes_total", "Times that another host of WeChat's API was taken")?,
            kf_accounts: make.gauges(
                "kf_official_account_kf_accounts",
                "kf accounts of an Official Account as WeChat listed them last; it holds 100",
                &["official_account"],
            )?,
            drift: make.gauges(
                "kf_official_account_drift",
                "kf accounts that differ from what the commands asked for, as found last: missing, unexpected, renamed",
                &["official_account", "kind"],
            )?,
            registry: registry.clone(),
        };
        metrics.start_at_zero();
        make.gauges("kf_build_info", "Version of the worker", &["version"])?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    fn start_at_zero(&self) {
        for action in ["add", "delete"] {
            self.attempts.with_label_values(&[action]).reset();
            self.results.with_label_values(&[action, Status::Succeeded.as_str(), "none"]).reset();
            for (status, reasons) in [(Status::Failed, Reason::FAILED), (Status::Superseded, Reason::SUPERSEDED)] {
                for reason in reasons {
                    self.results.with_label_values(&[action, status.as_str(), reason.as_str()]).reset();
                }
            }
        }
        for reason in Reason::REJECTED {
            for action in ["add", "delete", "unknown"] {
                self.results.with_label_values(&[action, Status::Rejected.as_str(), reason.as_str()]).reset();
            }
        }
        for reason in Reason::PAUSING {
            self.pauses_begun.with_label_values(&[reason.as_str()]).reset();
        }
        for reason in Reason::PAUSING.iter().chain(Reason::WAITING) {
            self.waits.with_label_values(&[reason.as_str()]).reset();
            self.put_off.with_label_values(&[reason.as_str()]).reset();
        }
        for reason in Reason::FAILED.iter().chain(Reason::DEAD) {
            self.dead_letters.with_label_values(&[reason.as_str()]).reset();
        }
        for endpoint in ["add", "delete", "list"] {
            self.wechat_call_seconds.with_label_values(&[endpoint]);
        }
    }

    /// A command has reached its outcome.
    pub fn finished(&self, conclusion: &Conclusion) {
        let action = conclusion.action.map_or("unknown", Action::as_str);
        let reason = conclusion.reason.map_or("none", Reason::as_str);
        self.results.with_label_values(&[action, conclusion.status.as_str(), reason]).inc();
    }

    /// A call to WeChat begins; it is in flight until the answer is dropped, also where it is given up.
    pub fn attempt(&self, action: Action) -> Counted {
        self.attempts.with_label_values(&[action.as_str()]).inc();
        Counted::new(&self.calls_in_flight)
    }

    /// Messages taken and not yet acknowledged.
    pub fn held(&self) -> i64 {
        self.commands_held.get()
    }

    /// A message was taken; it is held until the answer is dropped.
    pub fn hold(&self) -> Counted {
        Counted::new(&self.commands_held)
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

    /// WeChat answered, or did not. Codes that nobody has documented share one label, since WeChat can invent any number.
    pub fn wechat_call(&self, endpoint: &str, answer: Result<i64, Reason>) {
        let label = match answer {
            Ok(errcode @ (-1 | 0 | 40_000..=50_100 | 61_000..=61_500 | 65_400..=65_420 | 89_500..=89_510)) => errcode.to_string(),
            Ok(_) => "other".to_owned(),
            Err(reason) => reason.as_str().to_owned(),
        };
        self.wechat_calls.with_label_values(&[endpoint, &label]).inc();
    }

    pub fn wechat_call_seconds(&self, endpoint: &str) -> Histogram {
        self.wechat_call_seconds.with_label_values(&[endpoint])
    }

    pub fn token_fetched(&self, official_account: &str, well: bool) {
        self.token_fetches.with_label_values(&[official_account, if well { "ok" } else { "failed" }]).inc();
    }

    /// Makes the series of an Official Account appear before its first fetch.
    pub fn knows_official_account(&self, official_account: &str) {
        for result in ["ok", "failed"] {
            self.token_fetches.with_label_values(&[official_account, result]).reset();
        }
    }

    /// Removes the series of an Official Account that is configured no more.
    pub fn forgets_official_account(&self, official_account: &str) {
        // What was never there need not be removed.
        for result in ["ok", "failed"] {
            let _ = self.token_fetches.remove_label_values(&[official_account, result]);
        }
        for reason in Reason::PAUSING {
            let _ = self.paused.remove_label_values(&[official_account, reason.as_str()]);
        }
        for kind in DRIFT {
            let _ = self.drift.remove_label_values(&[official_account, kind]);
        }
        let _ = self.kf_accounts.remove_label_values(&[official_account]);
    }

    /// Whether an Official Account is paused for a reason.
    pub fn paused(&self, official_account: &str, reason: Reason, yes: bool) {
        self.paused.with_label_values(&[official_account, reason.as_str()]).set(yes.into());
    }

    /// A pause has begun.
    pub fn pause_begins(&self, reason: Reason) {
        self.pauses_begun.with_label_values(&[reason.as_str()]).inc();
    }

    /// A host of WeChat's API is used, or not.
    pub fn wechat_host(&self, host: &str, used: bool) {
        self.wechat_host.with_label_values(&[host]).set(used.into());
    }

    /// WeChat listed so many kf accounts.
    pub fn kf_accounts(&self, official_account: &str, used: usize) {
        self.kf_accounts.with_label_values(&[official_account]).set(used.try_into().unwrap_or(i64::MAX));
    }

    /// So many kf accounts are missing, unexpected, and differently named.
    pub fn drift(&self, official_account: &str, counts: [usize; 3]) {
        for (kind, count) in DRIFT.into_iter().zip(counts) {
            self.drift.with_label_values(&[official_account, kind]).set(count.try_into().unwrap_or(i64::MAX));
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

/// Makes metrics and registers them.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        self.registry.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec, prometheus::Error> {
        let histograms = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.registry.register(Box::new(histograms.clone()))?;
        Ok(histograms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_few() {
        let metrics = Metrics::new().unwrap();
        metrics.knows_official_account("test");
        let text = metrics.text().unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(text.contains("kf_results_total{action=\"delete\",reason=\"newer_command\",status=\"superseded\"} 0"), "{text}");
        assert!(text.contains("kf_token_fetches_total{official_account=\"test\",result=\"ok\"} 0"));
        assert!(series < 500, "{series}");
    }
}
