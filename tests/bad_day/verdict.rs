//! The promises of a bad day, held against what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::figures::{PACE, Pace, show};
use crate::support::broker::Received;
use crate::table::print;
use crate::traffic::{Sent, official_account};
use crate::{CONCURRENCY, HEALTHY, LOCKED_OUT, PROBE_INTERVAL, SPENT, WHILE_WELL};

/// What cannot be called back when the first refusal comes: calls that are on their way by then. At this pace that is one or
/// two of an Official Account; a quarter of all calls leaves room for a busy machine, where answers lie for a while.
const ON_THEIR_WAY: u64 = CONCURRENCY as u64 / 4;
/// Refusals that the sums above may be wrong by: a probe at either end of the time, by the clocks of two programs.
const SPARE: u64 = 2;
/// The answers that leave a command with nothing more to do: done, exists already, does not exist.
const GOOD_ANSWERS: [&str; 3] = ["0", "65401", "65406"];

/// While the others are sick the healthy one has at least this share of its throughput…
const THROUGHPUT: f64 = 0.9;
/// … and at most so many times its 99th percentile of the latency,
const LATENCY: u32 = 2;
/// where this much more is forgiven: the programs run without optimisation, on a machine that may do other work just then.
/// Who has to wait for a sick one waits for its next probe, and that takes far longer.
const SLACK: Duration = Duration::from_millis(250);

type Broken = Vec<String>;

/// How long an Official Account was sick, and its calls from the morning until then: endpoint → answer → count.
pub struct Sickness {
    pub lasted: Duration,
    pub calls: Value,
}

/// What was seen of the day.
pub struct Evidence {
    /// Every command, in the order of publishing.
    pub sent: Vec<Sent>,
    /// Events of commands that nobody published.
    pub strange: Vec<Received>,
    /// A copy of each message that the worker put into a deferred queue.
    pub put_off: Vec<Received>,
    pub locked_out: Sickness,
    pub spent: Sickness,
    /// The kf accounts at WeChat in the end.
    pub accounts: Value,
    /// How the worker ended, each time it was asked to.
    pub exit_codes: Vec<Option<i32>>,
}

impl Evidence {
    /// Shows the figures and gives every promise that was broken.
    pub fn judge(&self) -> Broken {
        let ended =
            self.exit_codes.iter().filter(|code| **code != Some(0)).map(|code| format!("the worker ended with {code:?} after SIGTERM"));
        [ended.collect(), self.outcomes(), self.last_word(), self.refusals(), self.spents_deletes(), self.healthy()].concat()
    }

    /// Each command has one outcome, which fits it.
    fn outcomes(&self) -> Broken {
        let mut broken: Broken = self.strange.iter().map(|event| format!("nobody ordered {}", event.data)).collect();
        let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
        for sent in self.sent.iter().rev() {
            let newer = newest.insert(sent.kf_account(), sent.command_id());
            broken.extend(one_outcome(sent, newer));
        }
        let mut rows = Vec::new();
        for wechat_id in [HEALTHY, LOCKED_OUT, SPENT] {
            let of = || self.sent.iter().filter(|sent| sent.is_of(wechat_id));
            let with = |status: &str| of().filter(|sent| sent.events.first().is_some_and(|event| event.status() == status)).count();
            let counts = [of().count(), with("succeeded"), with("superseded"), with("failed"), with("rejected"), with_none(of())];
            let put_off = self.put_off_of(wechat_id).count();
            rows.push([vec![wechat_id.to_owned()], counts.into_iter().chain([put_off]).map(|count| count.to_string()).collect()].concat());
        }
        let heads = ["Official Account", "commands", "succeeded", "superseded", "failed", "rejected", "without outcome", "times put off"];
        print("Commands and what became of them", &heads, &rows);
        broken
    }

    /// In the end each kf account is what its last command asked for.
    fn last_word(&self) -> Broken {
        let last: BTreeMap<&str, bool> = self.sent.iter().map(|sent| (sent.kf_account(), sent.is_add())).collect();
        let wanted: BTreeSet<&str> = last.into_iter().filter(|(_, exists)| *exists).map(|(kf_account, _)| kf_account).collect();
        let lists = self.accounts.as_object().into_iter().flatten().filter_map(|(_, kf_accounts)| kf_accounts.as_array());
        let there: BTreeSet<&str> = lists.flatten().filter_map(|kf| kf["kf_account"].as_str()).collect();
        println!("\nAccounts at WeChat in the end: {}, as the last command of each asks for: {}", there.len(), wanted.len());
        let missing =
            wanted.difference(&there).map(|kf_account| format!("{kf_account} does not exist, though its last command was an add"));
        let extra = there.difference(&wanted).map(|kf_account| format!("{kf_account} exists, though its last command was a delete"));
        missing.chain(extra).collect()
    }

    /// A sick Official Account is left in peace, but for a probe now and then.
    fn refusals(&self) -> Broken {
        let (locked_out, spent) = (&self.locked_out, &self.spent);
        let cases = [
            // One fetch at a time is the rule for tokens, so that none is on its way beside a probe.
            (LOCKED_OUT, "the token endpoint", locked_out.refused(&["token"]), locked_out.probes() + SPARE, locked_out),
            (LOCKED_OUT, "add and del", locked_out.refused(&["add", "del"]), ON_THEIR_WAY + locked_out.probes() + SPARE, locked_out),
            (SPENT, "add", spent.refused(&["add"]), ON_THEIR_WAY + spent.probes() + SPARE, spent),
            (SPENT, "del", spent.refused(&["del"]), 0, spent),
        ];
        let (mut rows, mut broken) = (Vec::new(), Broken::new());
        for (wechat_id, place, refused, most, sickness) in cases {
            let lasted = format!("{:.1} s", sickness.lasted.as_secs_f64());
            rows.push(vec![format!("`{wechat_id}` by {place}"), lasted, refused.to_string(), most.to_string()]);
            if refused > most {
                broken.push(format!(
                    "`{wechat_id}` was refused {refused} times by {place} while it was sick, and {most} are the most that may be"
                ));
            }
        }
        let none = [(LOCKED_OUT, locked_out.refused(&["token"])), (SPENT, spent.refused(&["add"]))];
        let never_sick =
            none.into_iter().filter(|(_, refused)| *refused == 0).map(|(wechat_id, _)| format!("`{wechat_id}` was never sick"));
        broken.extend(never_sick);
        let heads = ["refused", "sick for", "calls", "at most"];
        print("Calls in vain from falling sick until the weather cleared", &heads, &rows);
        broken
    }

    /// What a used up quota of adds leaves alone.
    fn spents_deletes(&self) -> Broken {
        let deletes = |sent: &[Sent]| Pace::of(sent.iter().filter(|sent| sent.is_of(SPENT) && !sent.is_add()));
        let (well, sick) = self.sent.split_at(WHILE_WELL);
        show_both("The deletes of `spent`, whose adds are over for the day", &deletes(well), &deletes(sick));
        let put_off = self.put_off_of(SPENT).filter(|copy| copy.json["action"] == "delete").count();
        (put_off > 0)
            .then(|| format!("deletes of `{SPENT}` were put off {put_off} times, though only its adds have to wait"))
            .into_iter()
            .collect()
    }

    /// The healthy one does as well as when all are well.
    fn healthy(&self) -> Broken {
        let (well, sick) = self.sent.split_at(WHILE_WELL);
        let of_healthy = |sent: &[Sent]| Pace::of(sent.iter().filter(|sent| sent.is_of(HEALTHY)));
        let (well, sick) = (of_healthy(well), of_healthy(sick));
        show_both("`healthy`, to which nothing happens", &well, &sick);
        let mut broken = Broken::new();
        if sick.per_second < well.per_second * THROUGHPUT {
            broken.push(format!(
                "`{HEALTHY}` got {:.1} commands a second done while others were sick, and {:.1} before",
                sick.per_second, well.per_second
            ));
        }
        let most = well.p99 * LATENCY + SLACK;
        if sick.p99 > most {
            broken.push(format!("the p99 of `{HEALTHY}` was {} while others were sick; at most {} may be", show(sick.p99), show(most)));
        }
        let unlike = self.sent.iter().filter(|sent| sent.is_of(HEALTHY) && sent.events.iter().any(|event| event.status() != "succeeded"));
        broken.extend(unlike.map(|sent| format!("{} is a command of `{HEALTHY}` and did not succeed", sent.command_id())));
        let put_off = self.put_off_of(HEALTHY).count();
        broken.extend((put_off > 0).then(|| format!("commands of `{HEALTHY}` were put off {put_off} times")));
        broken
    }

    fn put_off_of(&self, wechat_id: &str) -> impl Iterator<Item = &Received> {
        let of = move |copy: &&Received| official_account(copy.json["kf_account"].as_str().unwrap_or_default()) == wechat_id;
        self.put_off.iter().filter(of)
    }
}

impl Sickness {
    /// How many calls were made in vain at these endpoints. Before it fell sick none was.
    fn refused(&self, endpoints: &[&str]) -> u64 {
        let answers = endpoints.iter().filter_map(|endpoint| self.calls[endpoint].as_object()).flatten();
        answers.filter(|(answer, _)| !GOOD_ANSWERS.contains(&answer.as_str())).filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// How many probes there were time for.
    fn probes(&self) -> u64 {
        (self.lasted.as_secs_f64() / PROBE_INTERVAL.as_secs_f64()).ceil() as u64
    }
}

/// One event id, always with the same data; superseded only by a newer command of its account.
fn one_outcome(sent: &Sent, newer: Option<&str>) -> Option<String> {
    let (id, Some(first)) = (sent.command_id(), sent.events.first()) else { return Some(format!("{} has no outcome", sent.command_id())) };
    if let Some(other) = sent.events.iter().find(|event| event.event_id() != first.event_id() || event.data != first.data) {
        return Some(format!("{id} has two outcomes: {} and {}", first.data, other.data));
    }
    match (first.status(), newer) {
        ("succeeded", _) | ("superseded", Some(_)) => None,
        ("superseded", None) => Some(format!("{id} is superseded, and no newer command of its account was published")),
        (status, _) => Some(format!("{id} is {status}: {}", first.data)),
    }
}

fn with_none<'a>(sent: impl Iterator<Item = &'a Sent>) -> usize {
    sent.filter(|sent| sent.events.is_empty()).count()
}

fn show_both(title: &str, well: &Pace, sick: &Pace) {
    let row = |name: &str, pace: &Pace| [vec![name.to_owned()], pace.cells()].concat();
    let rows = [row("all are well", well), row("others are sick", sick)];
    print(&format!("{title}: from publishing to the event"), &[["published while"].as_slice(), &PACE].concat(), &rows);
}
