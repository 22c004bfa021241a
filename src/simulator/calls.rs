//! Counts of the calls: by endpoint and answer, in all, for each Official Account and for each kf account, and how many overlapped.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Serialize, Serializer};

use super::request::Endpoint;

/// How a call ended; in JSON the code itself, or a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answered {
    Errcode(i32),
    HttpStatus(u16),
    Malformed,
    Reset,
    LostAnswer,
    Hang,
}

type Counts = BTreeMap<Endpoint, BTreeMap<Answered, u64>>;

/// All that was counted.
#[derive(Default)]
pub(super) struct Calls {
    counts: Counts,
    official_accounts: BTreeMap<String, Counts>,
    kf_accounts: HashMap<String, KfCalls>,
}

/// The calls that named one kf account. A call is in flight from its arrival until it is answered or, where
/// no answer is given, until what it does at WeChat is done.
#[derive(Default, Serialize)]
struct KfCalls {
    calls: Counts,
    in_flight: u32,
    highest_overlap: u32,
}

/// The counts as the control endpoint shows them.
#[derive(Serialize)]
pub(super) struct CallsView<'a> {
    calls: &'a Counts,
    /// The most calls at once that any one kf account saw.
    highest_overlap: u32,
    /// By WeChat ID; a call that tells of no Official Account is in none of these.
    official_accounts: &'a BTreeMap<String, Counts>,
    kf_accounts: BTreeMap<&'a str, &'a KfCalls>,
}

impl Calls {
    /// A call has arrived.
    pub fn begin(&mut self, kf_account: Option<&str>) {
        let Some(name) = kf_account else { return };
        if !self.kf_accounts.contains_key(name) {
            self.kf_accounts.insert(name.to_owned(), KfCalls::default());
        }
        if let Some(calls) = self.kf_accounts.get_mut(name) {
            calls.in_flight += 1;
            calls.highest_overlap = calls.highest_overlap.max(calls.in_flight);
        }
    }

    /// A call that had begun is over. Its kf account is unknown where the counts were reset meanwhile.
    pub fn end(&mut self, endpoint: Endpoint, wechat_id: Option<&str>, kf_account: Option<&str>, answered: Answered) {
        count(&mut self.counts, endpoint, answered);
        if let Some(wechat_id) = wechat_id {
            count(self.official_accounts.entry(wechat_id.to_owned()).or_default(), endpoint, answered);
        }
        if let Some(calls) = kf_account.and_then(|name| self.kf_accounts.get_mut(name)) {
            calls.in_flight = calls.in_flight.saturating_sub(1);
            count(&mut calls.calls, endpoint, answered);
        }
    }

    /// The counts so far.
    pub fn view(&self) -> CallsView<'_> {
        let overlaps = self.kf_accounts.values().map(|calls| calls.highest_overlap);
        CallsView {
            calls: &self.counts,
            highest_overlap: overlaps.max().unwrap_or_default(),
            official_accounts: &self.official_accounts,
            kf_accounts: self.kf_accounts.iter().map(|(name, calls)| (name.as_str(), calls)).collect(),
        }
    }
}

fn count(counts: &mut Counts, endpoint: Endpoint, answered: Answered) {
    *counts.entry(endpoint).or_default().entry(answered).or_default() += 1;
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errcode(errcode) => write!(f, "{errcode}"),
            Self::HttpStatus(status) => write!(f, "http_{status}"),
            Self::Malformed => f.write_str("malformed"),
            Self::Reset => f.write_str("reset"),
            Self::LostAnswer => f.write_str("lost_answer"),
            Self::Hang => f.write_str("hang"),
        }
    }
}

impl Serialize for Answered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
