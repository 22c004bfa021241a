//! The verdict over the calls that the witness saw: one at a time for each kf account, in order, and none for what is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::Row;
use crate::members::Deed;
use crate::plan::nickname;
use crate::witness::Call;

/// Calls of a worker that was stopped between looking at its claim and writing its request come when it goes on: they come
/// within this time, and there can only be a few.
const WAKING: Duration = Duration::from_millis(500);
const MOST_LATE: usize = 3;
/// The ledger tells whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

/// What is held against each other.
pub struct Order<'a> {
    pub calls: &'a [Call],
    pub rows: &'a [Row],
    /// Deletes that were made once more after a claim was lost, by kf account.
    pub made_once_more: &'a BTreeMap<String, u64>,
    /// When a worker was woken that had been stopped.
    pub woken: Deed,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    pub overlaps: Vec<String>,
    pub disorder: Vec<String>,
    /// What a stopped worker has called late.
    pub late: BTreeSet<String>,
}

/// What a call can only have been made for, and in which span.
struct Span<'a> {
    row: &'a Row,
    from: Duration,
    to: Duration,
}

impl Order<'_> {
    pub fn judge(&self) -> Found {
        let mut found = Found::default();
        let mut spans: BTreeMap<&str, Vec<Span<'_>>> = BTreeMap::new();
        for row in self.rows {
            spans.entry(&row.kf_account).or_default().push(Span::of(row));
        }
        let mut calls: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
        for call in self.calls {
            calls.entry(&call.kf_account).or_default().push(call);
        }
        for (kf_account, mut calls) in calls {
            calls.sort_by_key(|call| call.begun);
            self.look_for_overlaps(&calls, &mut found);
            self.look_for_disorder(&calls, spans.get(kf_account).map_or(&[], Vec::as_slice), &mut found);
        }
        if found.late.len() > MOST_LATE {
            found.disorder.push(format!("the worker that was stopped has called late for {:?}", found.late));
        }
        found
    }

    fn is_late(&self, call: &Call) -> bool {
        let since = call.begun.checked_sub(self.woken.at);
        call.worker == self.woken.worker && since.is_some_and(|since| since < WAKING)
    }

    fn look_for_overlaps(&self, calls: &[&Call], found: &mut Found) {
        for (at, call) in calls.iter().enumerate() {
            let end = call.ended.unwrap_or(Duration::MAX);
            for next in calls[at + 1..].iter().take_while(|next| next.begun < end) {
                if self.is_late(call) || self.is_late(next) {
                    found.late.insert(format!("{call:?} {next:?}"));
                } else {
                    found.overlaps.push(format!("a call began before another had ended: {call:?} {next:?}"));
                }
            }
        }
    }

    /// Each call must be one of a command's that was unfinished then, and never of an older one than the call before it.
    fn look_for_disorder(&self, calls: &[&Call], spans: &[Span<'_>], found: &mut Found) {
        let mut latest = 0;
        let mut once_more = calls.first().and_then(|call| self.made_once_more.get(&call.kf_account)).copied().unwrap_or_default();
        for call in calls {
            // Deletes do not tell whose they are: the oldest that it may be leaves most room for what follows.
            let of = spans.iter().find(|span| span.row.position >= latest && span.may_have_made(call));
            match of {
                Some(span) => latest = span.row.position,
                None if !call.is_add && once_more > 0 => once_more -= 1,
                None if self.is_late(call) => drop(found.late.insert(format!("{call:?}"))),
                None => {
                    let belongs = spans.iter().find(|span| call.is_add && call.nickname == nickname(&span.row.command_id));
                    let whose = belongs.map_or("no unfinished delete's".to_owned(), |span| span.row.name());
                    found.disorder.push(format!("a call is {whose}, out of its time or its turn (after position {latest}): {call:?}"));
                }
            }
        }
    }
}

impl<'a> Span<'a> {
    fn of(row: &'a Row) -> Self {
        let received = row.field("received_at").as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let from = received.and_then(|received| u64::try_from(received.as_millisecond()).ok()).map(Duration::from_millis);
        let to = Duration::from_millis(row.finished_at.unsigned_abs());
        Self { row, from: from.unwrap_or_default(), to: to + GRAIN }
    }

    fn may_have_made(&self, call: &Call) -> bool {
        let named = !call.is_add || call.nickname == nickname(&self.row.command_id);
        named && call.is_add == (self.row.action == "add") && (self.from..=self.to).contains(&call.begun) && self.row.attempts > 0
    }
}
