//! What happens to commands, calls, events and the ledger, and where it is counted.

use std::time::Duration;

use prometheus::Histogram;

use super::words::{CallClass, EventEnd, LedgerOperation};
use super::{Counted, Metrics, observe};
use crate::outcome::{Action, AttemptFailure, Reason, Status};
use crate::readiness::NotReady;

impl Metrics {
    /// An outcome was reached: it is in the ledger, or it is none that the ledger keeps. `kf_account` as it was given.
    pub fn finished(&self, action: Option<Action>, kf_account: Option<&str>, status: Status, reason: Option<Reason>) {
        let (action, reason) = (action.map_or("unknown", Action::as_str), reason.map_or("none", Reason::as_str));
        self.results.with_label_values(&[action, status.as_str(), reason]).inc();
        if let Some((_, official_account)) = kf_account.and_then(|kf_account| kf_account.split_once('@')) {
            self.official_account_finished(official_account, status);
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
            let unknown = failure.is_some_and(|failed| failed.failure.reason == Reason::UnknownErrcode);
            let label = if unknown { "other".to_owned() } else { errcode.to_string() };
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

    /// A pause has begun.
    pub fn pause_begins(&self, reason: Reason) {
        self.pauses.with_label_values(&[reason.as_str()]).inc();
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

    /// How much the ledger has still to do, since when, in seconds since 1970, and how large it is; nothing where it can't be
    /// read.
    pub fn census(&self, census: Option<(u64, i64, u64)>) {
        // No count or time of this century is too large to be exact.
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let [unfinished, oldest, size] =
            census.map_or([f64::NAN; 3], |(unfinished, oldest, size)| [unfinished as f64, oldest as f64, size as f64]);
        self.ledger_unfinished.set(unfinished);
        self.ledger_oldest_unfinished.set(oldest);
        self.ledger_size.set(size);
    }

    /// Whether the worker is ready, and if not, why.
    pub fn readiness(&self, why_not: Option<NotReady>) {
        self.ready.set(why_not.is_none().into());
        for reason in NotReady::ALL {
            self.not_ready.with_label_values(&[reason.as_str()]).set((why_not == Some(*reason)).into());
        }
    }
}
