//! The verdict over a run: each promise checked against events, ledger, dead letters and WeChat's own counts, told with its figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::NAME;
use crate::form::{faults_of_dead_letter, faults_of_event};
use crate::ledger::Row;
use crate::publication::Kind;
use crate::support::broker::Received;
use crate::traffic::{Published, is_outcome};

/// All that is left of a run.
pub struct Evidence {
    pub published: Published,
    pub events: Vec<Received>,
    /// Oldest first.
    pub rows: Vec<Row>,
    pub dead: Vec<Received>,
    /// Messages by queue.
    pub waiting: BTreeMap<String, u32>,
    /// The simulator's `/control/accounts` and `/control/calls`.
    pub accounts: Value,
    pub calls: Value,
    /// Deletes that no command asked for, by kf account: made once more after a claim was lost.
    pub made_once_more: BTreeMap<String, u64>,
}

/// What was broken; each a sentence that names the command.
type Violations = Vec<String>;

impl Evidence {
    /// Writes what is not in a file yet, for whoever looks into a violation.
    pub fn keep(&self, folder: &Path) {
        let line = |received: &Received| json!({"properties": format!("{:?}", received.properties), "body": received.json}).to_string();
        let lines = |all: &[Received]| all.iter().map(|received| line(received) + "\n").collect::<String>();
        std::fs::write(folder.join("events.jsonl"), lines(&self.events)).expect("the folder can be written");
        std::fs::write(folder.join("dead.jsonl"), lines(&self.dead)).expect("the folder can be written");
        let wechat = json!({"accounts": self.accounts, "calls": self.calls});
        std::fs::write(folder.join("wechat.json"), wechat.to_string()).expect("the folder can be written");
    }

    /// Every violation; the figures of each check are printed.
    pub fn judge(&self) -> Violations {
        self.summarise();
        let checks: [(&str, Violations); 9] = [
            ("each command has exactly one outcome", self.one_outcome()),
            ("each outcome is the right one for its message", self.right_outcome()),
            ("only newer commands supersede", self.superseded_rightly()),
            ("commands of an account run in the order of acceptance", self.in_order()),
            ("the accounts at WeChat equal the model's", self.accounts_equal()),
            ("calls for an account never overlap, and no repeat is called for", self.calls_counted()),
            ("the dead letters are those expected", self.dead_letters()),
            ("events and dead letters say what they must, and no secret", self.formed()),
            ("the queues are empty", self.queues_empty()),
        ];
        for (promise, violations) in &checks {
            println!("{NAME}: {} {promise}", if violations.is_empty() { "held  " } else { "BROKEN" });
        }
        checks.into_iter().flat_map(|(_, violations)| violations).collect()
    }

    /// How many messages were to bring an outcome, repeats aside.
    pub fn commands(&self) -> usize {
        self.published.messages.values().filter(|(kind, _)| kind.command_id().is_some()).count()
    }

    fn summarise(&self) {
        let Published { messages, confirmed, repeats, again } = &self.published;
        let commands = self.commands();
        let total: u64 = confirmed.values().sum();
        println!(
            "{NAME}: {total} messages: {commands} commands, {repeats} repeats, {} others; {again} sendings tried again",
            messages.len() - commands
        );
        let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
        for row in &self.rows {
            let effect = row.field("effect");
            let why = effect.as_str().unwrap_or(&row.reason);
            *outcomes.entry(format!("{} ({why})", row.status)).or_default() += 1;
        }
        println!("{NAME}: outcomes: {outcomes:?}");
        println!("{NAME}: {} events, {} dead letters, calls at WeChat: {}", self.events.len(), self.dead.len(), self.calls["calls"]);
    }

    /// All events of a command carry the same id and the same bytes, and say what the ledger says.
    fn one_outcome(&self) -> Violations {
        let mut violations = Violations::new();
        let mut events: BTreeMap<&str, Vec<&Received>> = BTreeMap::new();
        for event in self.events.iter().filter(|event| is_outcome(event)) {
            events.entry(event.command_id()).or_default().push(event);
        }
        let by_id = self.by_id();
        for command_id in self.expected_ids() {
            match by_id.get(command_id) {
                None => violations.push(format!("{command_id} is not in the ledger")),
                Some(row) if row.state != "finished" => violations.push(format!("{} is {} in the ledger", row.name(), row.state)),
                Some(row) => {
                    let event_id = format!("{command_id}/result/0");
                    let of_command = events.get(command_id).map(Vec::as_slice).unwrap_or_default();
                    if of_command.is_empty() {
                        violations.push(format!("{} has no event", row.name()));
                    }
                    for event in of_command.iter().filter(|event| event.event_id() != event_id || event.data != row.data) {
                        violations.push(format!("{} has an event {} with other data: {}", row.name(), event.event_id(), event.data));
                    }
                }
            }
        }
        let expected: BTreeSet<&str> = self.expected_ids().collect();
        let strangers = events.keys().filter(|id| !expected.contains(*id));
        violations.extend(strangers.map(|id| format!("an event names {id}, which nobody sent")));
        let unknown = self.rows.iter().filter(|row| !expected.contains(row.command_id.as_str()));
        violations.extend(unknown.map(|row| format!("{} is in the ledger, and nobody sent it", row.name())));
        violations
    }

    /// Wrong messages are refused, strangers fail, and what can be done is done or superseded.
    fn right_outcome(&self) -> Violations {
        let mut violations = Violations::new();
        let by_id = self.by_id();
        for (kind, _) in self.published.messages.values() {
            if let Kind::Reused { command_id } = kind {
                let answered = self.events.iter().any(|event| !is_outcome(event) && event.command_id() == command_id);
                if !answered {
                    violations.push(format!("the other use of {command_id} was not answered"));
                }
            }
            let Some(row) = kind.command_id().and_then(|id| by_id.get(id)) else { continue };
            let expected = match kind {
                Kind::Command(command) => {
                    let fields = ["action", "kf_account", "nickname", "revision", "meta"];
                    let same = fields.iter().all(|field| row.field(field) == command[field]);
                    // Poison is what was alone under way at three deaths.
                    same && (["succeeded", "superseded"].contains(&row.status.as_str()) || row.reason == "poison")
                }
                Kind::Wrong { .. } => row.status == "rejected",
                Kind::Stranger { .. } => row.reason == "unknown_official_account",
                Kind::Reused { .. } | Kind::Nameless => true,
            };
            if !expected {
                violations.push(format!("{} was sent as {kind:?}", row.name()));
            }
        }
        violations
    }

    /// A superseded command had a successor that may supersede it.
    fn superseded_rightly(&self) -> Violations {
        let mut violations = Violations::new();
        for rows in self.by_account().values() {
            for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.status == "superseded") {
                let (older, newer) = (&rows[..at], &rows[at + 1..]);
                let revision = row.field("revision").as_i64();
                let rightly = match row.reason.as_str() {
                    // Those decided on arrival never took their turn, so they supersede nobody.
                    "newer_command" => {
                        newer.iter().filter(|row| took_turn(row)).any(|newer| newer.action == "delete" || row.action == "add")
                    }
                    "stale_revision" => older.iter().filter(|row| took_turn(row)).any(|older| older.field("revision").as_i64() >= revision),
                    "sent_before_delete" => row.action == "add" && older.iter().any(|older| older.action == "delete"),
                    _ => false,
                };
                if !rightly {
                    violations.push(format!("{} was superseded by nobody", row.name()));
                }
            }
            // A delete is superseded by a newer delete alone, so the last one stands.
            let last_delete = rows.iter().rfind(|row| row.action == "delete" && took_turn(row));
            if let Some(row) = last_delete.filter(|row| row.status == "superseded") {
                violations.push(format!("{} was the account's last delete", row.name()));
            }
        }
        violations
    }

    /// Position order is the order in which commands were finished, and revisions rise with it.
    fn in_order(&self) -> Violations {
        let mut violations = Violations::new();
        for rows in self.by_account().values() {
            let done: Vec<_> = rows.iter().filter(|row| row.status == "succeeded").collect();
            for pair in done.windows(2).filter(|pair| pair[0].finished_at > pair[1].finished_at) {
                violations.push(format!("{} was finished after {}", pair[0].name(), pair[1].name()));
            }
            let accepted: Vec<_> = rows.iter().filter(|row| took_turn(row) && row.field("revision").is_i64()).collect();
            for pair in accepted.windows(2).filter(|pair| pair[0].field("revision").as_i64() >= pair[1].field("revision").as_i64()) {
                violations.push(format!("{} was accepted after {} in spite of its revision", pair[1].name(), pair[0].name()));
            }
        }
        violations
    }

    /// Replays the outcomes of each account by position: each effect must fit the state before it, and the last state
    /// must be WeChat's.
    fn accounts_equal(&self) -> Violations {
        let mut violations = Violations::new();
        let at_wechat: BTreeSet<&str> =
            self.accounts.as_object().into_iter().flatten().flat_map(|(_, kf_accounts)| names(kf_accounts)).collect();
        let accounts = self.by_account();
        for (kf_account, rows) in &accounts {
            // `None` where a command that did not get to its end may have changed it.
            let mut exists = Some(false);
            for row in rows {
                let wanted = row.action == "add";
                if row.status != "succeeded" {
                    if row.attempts > 0 && exists != Some(wanted) {
                        exists = None;
                    }
                    continue;
                }
                let effect = row.field("effect");
                let fits = match effect.as_str().unwrap_or_default() {
                    "created" | "deleted" => exists != Some(wanted),
                    "none" => exists != Some(!wanted),
                    "unknown" => row.attempts > 1,
                    _ => false,
                };
                if !fits {
                    violations.push(format!("{} says {effect}, and before it the account existed: {exists:?}", row.name()));
                }
                exists = Some(wanted);
            }
            if exists.is_some_and(|exists| exists != at_wechat.contains(kf_account)) {
                let last = rows.iter().rfind(|row| row.status == "succeeded").map(|row| row.name());
                violations.push(format!("{kf_account} should exist: {exists:?}, and WeChat says otherwise; its last was {last:?}"));
            }
        }
        violations.extend(
            at_wechat.iter().filter(|name| !accounts.contains_key(*name)).map(|name| format!("{name} exists, and nobody added it")),
        );
        println!("{NAME}: {} accounts, {} of them exist", accounts.len(), at_wechat.len());
        violations
    }

    /// Every call is one of a command's attempts. Attempts without a call are those of workers that died before it, and
    /// those that did not reach WeChat.
    fn calls_counted(&self) -> Violations {
        let mut violations = Violations::new();
        let (mut calls_in_all, mut attempts_in_all) = (0, 0);
        let accounts = self.by_account();
        for (kf_account, calls) in self.calls["kf_accounts"].as_object().into_iter().flatten() {
            if calls["highest_overlap"] != 1 {
                violations.push(format!("{kf_account} saw {} calls at once", calls["highest_overlap"]));
            }
            for (endpoint, action) in [("add", "add"), ("del", "delete")] {
                let rows = accounts.get(kf_account.as_str()).map(Vec::as_slice).unwrap_or_default();
                let attempts: u64 = rows.iter().filter(|row| row.action == action).filter_map(|row| row.field("attempts").as_u64()).sum();
                let calls: u64 = calls["calls"][endpoint].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
                let once_more = self.made_once_more.get(kf_account).copied().filter(|_| action == "delete").unwrap_or_default();
                if calls > attempts + once_more {
                    violations.push(format!("{kf_account} saw {calls} calls to {action}, and its commands tell of {attempts}"));
                }
                (calls_in_all, attempts_in_all) = (calls_in_all + calls, attempts_in_all + attempts);
            }
        }
        println!(
            "{NAME}: {calls_in_all} calls for {attempts_in_all} attempts, at most {} at once for one account",
            self.calls["highest_overlap"]
        );
        let counted_later = self.rows.iter().filter(|row| row.field("attempts") != row.attempts);
        violations.extend(counted_later.map(|row| format!("{} was tried after its outcome: {}", row.name(), row.data)));
        violations
    }

    /// One for each failed command and for each message that nobody can be answered for, copies of the same aside.
    fn dead_letters(&self) -> Violations {
        let mut violations = Violations::new();
        let of_rows = self.rows.iter().filter(|row| row.status == "failed").map(|row| row.command_id.as_str());
        let of_wrong = self.published.messages.values().filter_map(|(kind, _)| match kind {
            Kind::Wrong { command_id, dead_letter: true } => Some(command_id.as_str()),
            _ => None,
        });
        let expected: BTreeSet<String> = of_rows.chain(of_wrong).map(|id| format!("{id}/dead/0")).collect();
        let mut nameless: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (place, (_, message)) in self.published.messages.iter().filter(|(_, (kind, _))| matches!(kind, Kind::Nameless)) {
            nameless.insert(&message.body, self.published.confirmed.get(place).copied().unwrap_or_default());
        }
        let mut found: BTreeSet<String> = BTreeSet::new();
        for dead in &self.dead {
            let id = dead.headers().get("kf-dead-id").cloned().unwrap_or_default();
            match nameless.get_mut(dead.bytes.as_slice()) {
                Some(left) if !expected.contains(&id) => *left = left.saturating_sub(1),
                _ if expected.contains(&id) => drop(found.insert(id)),
                _ => violations.push(format!("nobody expects the dead letter {id}: {}", String::from_utf8_lossy(&dead.bytes))),
            }
        }
        violations.extend(expected.difference(&found).map(|id| format!("there is no dead letter {id}")));
        let missing = nameless.into_iter().filter(|(_, left)| *left > 0);
        violations.extend(missing.map(|(body, left)| format!("{left} dead letters are missing for {}", String::from_utf8_lossy(body))));
        violations
    }

    fn formed(&self) -> Violations {
        self.events.iter().flat_map(faults_of_event).chain(self.dead.iter().flat_map(faults_of_dead_letter)).collect()
    }

    fn queues_empty(&self) -> Violations {
        let full = self.waiting.iter().filter(|(_, count)| **count > 0).map(|(queue, count)| format!("{queue} holds {count} messages"));
        full.chain(self.waiting.is_empty().then(|| "the queues could not be counted".to_owned())).collect()
    }

    /// The ids that must have an outcome.
    fn expected_ids(&self) -> impl Iterator<Item = &str> {
        self.published.messages.values().filter_map(|(kind, _)| kind.command_id())
    }

    fn by_id(&self) -> BTreeMap<&str, &Row> {
        self.rows.iter().map(|row| (row.command_id.as_str(), row)).collect()
    }

    /// The commands of each account that could be read, oldest first.
    fn by_account(&self) -> BTreeMap<&str, Vec<&Row>> {
        let mut accounts: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        let readable = self.rows.iter().filter(|row| row.status != "rejected" && row.reason != "unknown_official_account");
        for row in readable {
            accounts.entry(&row.kf_account).or_default().push(row);
        }
        accounts
    }
}

/// Whether a command was accepted for its turn, and not decided on arrival.
fn took_turn(row: &Row) -> bool {
    !["stale_revision", "sent_before_delete", "revision_required"].contains(&row.reason.as_str())
}

fn names(kf_accounts: &Value) -> impl Iterator<Item = &str> {
    kf_accounts.as_array().into_iter().flatten().filter_map(|kf| kf["kf_account"].as_str())
}
