//! Every label set that can be known from the start, at 0, since a rate needs something to begin from; what is not known yet is no number.

use super::Metrics;
use super::words::{self, CallClass, EventEnd, LedgerOperation};
use crate::outcome::{Action, Reason, Status};
use crate::readiness::NotReady;

impl Metrics {
    /// Makes every label set appear that can be known from the start.
    pub(super) fn start_at_zero(&self) {
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
        for gauge in [&self.ledger_size, &self.ledger_unfinished, &self.ledger_oldest_unfinished] {
            gauge.set(f64::NAN);
        }
        for reason in NotReady::ALL {
            self.not_ready.with_label_values(&[reason.as_str()]);
        }
    }
}
