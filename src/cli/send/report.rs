//! What people are shown while commands are sent, and at the end of it.

use std::fmt::Write;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState};

use super::order::Order;
use super::progress::{Answer, Progress};
use crate::cli::bar::bar;
use crate::cli::{self, outcomes::shown};
use crate::event::on_one_line;
use crate::outcome::{Action, Status};

/// A bar where somebody looks, and lines now and then elsewhere.
pub struct Report {
    bar: ProgressBar,
    /// Results go to a terminal: the bar makes way for them.
    shares_terminal: bool,
    wait: bool,
    json: bool,
}

/// How far it has come.
pub struct Standing {
    /// How many are answered, where results are waited for, and else sent.
    pub done: usize,
    /// Every command is in a queue.
    pub all_sent: bool,
    /// The broker takes nothing for now.
    pub blocked: bool,
}

impl Report {
    /// For so many orders. A single one needs no bar.
    pub fn new(orders: usize, wait: bool, json: bool) -> Self {
        let what = if wait { "results" } else { "sent" };
        let bar = bar(&format!("{{bar:30}} {{pos}}/{{len}} {what}  {{rate}}/s  {{eta}} left"), orders, orders > 1);
        let style = bar.style().with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            // A bar that can't be drawn is missed by nobody.
            let _ = write!(out, "{:.0}", state.per_sec());
        });
        bar.set_style(style);
        Self { bar, shares_terminal: std::io::stdout().is_terminal(), wait, json }
    }

    /// Draws how many are done.
    pub fn show(&self, done: usize) {
        self.bar.set_position(done as u64);
    }

    /// Says how far it has come, where no bar shows it, and what holds it up.
    pub fn tell(&self, standing: &Standing) {
        let Standing { done, all_sent, blocked } = *standing;
        let of = self.bar.length().unwrap_or_default();
        if blocked {
            self.say("the broker takes nothing for now: it is short of memory or disk; waiting");
        } else if of == 1 && all_sent {
            self.say("no result yet; the command is safe in its queue, waiting on (Ctrl-C ends the waiting, not the command)");
        } else if of == 1 {
            self.say("the broker has not confirmed the command yet; waiting");
        } else if self.bar.is_hidden() {
            let what = if self.wait { "have a result" } else { "are sent" };
            self.say(format_args!("{done} of {of} {what}{}", self.pace(done, of)));
        }
    }

    /// How fast they come, and how long the rest takes at that.
    fn pace(&self, done: usize, of: u64) -> String {
        let rate = done as f64 / self.bar.elapsed().as_secs_f64();
        if rate < 0.1 {
            return String::new();
        }
        let left = Duration::from_secs_f64((of as f64 - done as f64) / rate);
        format!(" ({rate:.0}/s, {} left)", HumanDuration(left))
    }

    /// Says something beside the bar.
    pub fn say(&self, line: impl std::fmt::Display) {
        self.bar.suspend(|| cli::note(line));
    }

    /// Shows a result: the data on stdout.
    pub fn result(&self, order: &Order, answer: &Answer) {
        let line = if self.json { as_json(order, answer) } else { in_words(order, answer) };
        if self.shares_terminal {
            self.bar.suspend(|| cli::print(line));
        } else {
            cli::print(line);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The event's `data` as it is, with what only the sender knows before it.
fn as_json(order: &Order, answer: &Answer) -> String {
    let line = order.line.map(|line| format!("\"line\":{line},")).unwrap_or_default();
    let data = on_one_line(&answer.data);
    let fields = data.strip_prefix('{').unwrap_or("}");
    format!("{{{line}\"repeat\":{},{fields}", answer.repeat)
}

fn in_words(order: &Order, answer: &Answer) -> String {
    let Order { line, action, kf_account, .. } = order;
    let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let told = &answer.told;
    let more = match (&told.effect, &told.error) {
        (Some(effect), _) => format!(" ({effect})"),
        (None, Some(error)) => format!(" ({}): {}", shown(&error.reason), shown(&error.detail)),
        (None, None) => String::new(),
    };
    let repeat = if answer.repeat { format!("repeat, not carried out; at {} it was: ", told.finished_at) } else { String::new() };
    format!("{line}{action} {kf_account}: {repeat}{}{more}", shown(&told.status))
}

/// How many ended how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By status, in the order of the list, and by action: added, deleted.
    ended: [[usize; 2]; 4],
    sent: [usize; 2],
    unsent: [usize; 2],
    pub repeats: usize,
}

impl Summary {
    pub fn of(orders: &[Order], progress: &[Progress]) -> Self {
        let mut summary = Self::default();
        for (order, progress) in orders.iter().zip(progress) {
            let column = usize::from(order.action == Action::Delete);
            match progress {
                Progress::Unsent => summary.unsent[column] += 1,
                Progress::Sent => summary.sent[column] += 1,
                Progress::Answered(answer) => {
                    // One that is not known here is no success.
                    let row = Status::ALL.iter().position(|status| Some(*status) == answer.status()).unwrap_or(1);
                    summary.ended[row][column] += 1;
                    summary.repeats += usize::from(answer.repeat);
                }
            }
        }
        summary
    }

    /// Whether each command came to where it was meant to.
    pub fn is_all_well(&self, wait: bool) -> bool {
        let bad = self.ended[1..].iter().chain([&self.unsent]).flatten().sum::<usize>();
        bad == 0 && (!wait || self.sent == [0, 0])
    }

    /// A table, a line for each thing that occurred.
    pub fn lines(&self, wait: bool) -> Vec<String> {
        let statuses = Status::ALL.iter().map(|status| status.as_str()).zip(self.ended);
        let sent = if wait { "no result yet" } else { "sent" };
        let rows = statuses.chain([(sent, self.sent), ("not sent", self.unsent)]);
        let mut lines = vec![format!("{:15}{:>8}{:>8}", "", "add", "delete")];
        lines.extend(rows.filter(|(_, counts)| *counts != [0, 0]).map(|(what, [adds, deletes])| format!("{what:15}{adds:>8}{deletes:>8}")));
        if self.repeats > 0 {
            lines.push(format!("{:15}{:>8} of these, not carried out: their results were there before", "repeats", self.repeats));
        }
        lines
    }
}
