//! Pairs of the table tried out: a world in which each has an Official Account of its own, and one worker that meets them all.

use std::collections::BTreeMap;

use serde_json::Value;

use super::table::{Fate, Pair};
use crate::support::broker::{Message, Received};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Call, Endpoint, errmsg};
use crate::support::worker::Worker;

/// How a command stands when the first answer has been dealt with.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// With this effect.
    Succeeded(&'static str),
    /// For this reason.
    Failed(&'static str),
    /// Unfinished, for this reason.
    Waits(&'static str),
}

/// What a fate looks like from outside.
pub struct Expected {
    pub ending: Ending,
    /// Calls for the command: what its event tells, and as many as WeChat has seen.
    pub attempts: u64,
    /// Fetches of the Official Account's token.
    pub fetches: usize,
}

impl Pair {
    /// An account of the pair's Official Account. Its name is also the id of its only command.
    pub fn account(&self, name: &str) -> String {
        format!("{name}@{}", self.wechat_id)
    }

    /// The column's own action, with which the fetch of a token begins as well.
    pub fn command(&self, name: &str) -> Value {
        if self.column == Endpoint::Delete { self.delete(name) } else { self.add(name) }
    }

    /// The other action.
    pub fn other_command(&self, name: &str) -> Value {
        if self.column == Endpoint::Delete { self.add(name) } else { self.delete(name) }
    }

    /// A delete of an account of the pair's Official Account.
    pub fn delete(&self, name: &str) -> Value {
        delete(&self.account(name), &self.account(name))
    }

    fn add(&self, name: &str) -> Value {
        add(&self.account(name), &self.account(name), "安娜")
    }

    /// The effect of a call that does its work.
    pub fn effect(&self) -> &'static str {
        if self.column == Endpoint::Delete { "deleted" } else { "created" }
    }

    /// What the pair's fate looks like from outside.
    pub fn expected(&self) -> Expected {
        use Ending::{Failed, Succeeded, Waits};
        // A fetch of a token is no call for the command.
        let once = u64::from(self.column != Endpoint::StableToken);
        let (ending, attempts, fetches) = match self.fate {
            Fate::Never => panic!("{self:?} never happens"),
            Fate::Done => (Succeeded(self.effect()), 1, 1),
            Fate::Already => (Succeeded("none"), 1, 1),
            Fate::Retry if once == 0 => (Succeeded(self.effect()), 1, 2),
            Fate::Retry => (Succeeded(self.effect()), 2, 1),
            Fate::LostDone => (Succeeded("unknown"), 2, 1),
            Fate::Token => (Succeeded(self.effect()), 2, 2),
            Fate::Permanent(reason) => (Failed(reason), once, 1),
            Fate::Bug => (Failed("worker_bug"), once, 1),
            Fate::Unknown => (Failed("unknown_errcode"), 5, 1),
            Fate::Minute => (Waits("minute_quota"), once, 1),
            Fate::Day => (Waits("day_quota"), once, 1),
            Fate::Account(reason) => (Waits(reason), once, 1),
            Fate::Administrator(_) => (Waits("awaiting_administrator"), once, 1),
            Fate::Capacity => (Waits("account_limit_reached"), once, 1),
        };
        Expected { ending, attempts, fetches }
    }
}

/// A world in which each of some pairs has an Official Account of its own, and its worker.
pub struct Trial {
    /// Before the stage, so that it is also dropped before: it uses what the stage cleans up.
    worker: Worker,
    pub stage: Stage,
    app_ids: BTreeMap<String, String>,
}

impl Trial {
    /// Scripts the answer of every pair and starts the worker.
    pub async fn start(pairs: &[Pair], settings: &[(&str, Value)]) -> Self {
        let wechat_ids: Vec<&str> = pairs.iter().map(|pair| pair.wechat_id.as_str()).collect();
        let mut stage = Stage::with_official_accounts(&wechat_ids).await;
        let mut all = stage.settings();
        all.env("KF_LOG_FORMAT", "json");
        for (key, value) in settings {
            all.set(key, value.clone());
        }
        let app_ids = stage.wechat.official_accounts().into_iter().map(|official| (official.wechat_id, official.app_id)).collect();
        let worker = stage.worker_with(&all).await;
        let trial = Self { worker, stage, app_ids };
        trial.script(pairs);
        trial
    }

    fn script(&self, pairs: &[Pair]) {
        let wechat = &self.stage.wechat;
        for pair in pairs {
            let (subject, answer) = (self.subject(pair), pair.answer.clone());
            match pair.fate {
                // These are met for as long as the command is tried.
                Fate::Unknown | Fate::Minute | Fate::Day => wechat.always(pair.column, Some(&subject), answer),
                _ => wechat.next(pair.column, Some(&subject), answer),
            }
            // There must be something to delete, where a delete shall do its work.
            if pair.column == Endpoint::Delete && matches!(pair.fate, Fate::Retry | Fate::LostDone | Fate::Token) {
                wechat.put(&pair.account("first"));
            }
        }
    }

    /// Whom the first call of a pair's column is about, as the journal names it.
    pub fn subject(&self, pair: &Pair) -> String {
        if pair.column == Endpoint::StableToken { self.app_ids[&pair.wechat_id].clone() } else { pair.account("first") }
    }

    /// Publishes commands in this order.
    pub async fn send(&self, commands: impl IntoIterator<Item = Value>) {
        self.stage.broker.publish_all(commands.into_iter().map(|command| Message::json(&command))).await;
    }

    /// Waits until the first command of a pair stands as its fate says.
    pub async fn check_first(&mut self, pair: &Pair) {
        let Expected { ending, attempts, .. } = pair.expected();
        let command_id = pair.account("first");
        let (errcode, words) = (pair.errcode(), pair.errcode().map(errmsg));
        match ending {
            Ending::Waits(reason) => {
                let entry = self.stage.ledger().until(&command_id, "waiting").await;
                let told = (entry.trouble.as_deref(), entry.errcode, entry.errmsg.as_deref());
                assert_eq!(told, (Some(reason), errcode, words), "{pair:?}");
            }
            Ending::Succeeded(effect) => {
                let event = self.stage.events.of(&command_id).await;
                assert_eq!((event.status(), event.effect(), event.attempts()), ("succeeded", effect, attempts), "{pair:?}");
            }
            Ending::Failed(reason) => {
                let event = self.stage.events.of(&command_id).await;
                assert_eq!((event.status(), event.reason(), event.attempts()), ("failed", reason, attempts), "{pair:?}");
                let error = event.field("error");
                assert_eq!((&error["errcode"], &error["errmsg"]), (&Value::from(errcode), &Value::from(words)), "{pair:?}");
            }
        }
    }

    /// Every call so far, by the account or, for fetches of a token, the WeChat ID that it was about.
    pub fn journal(&self) -> BTreeMap<String, Vec<Call>> {
        let wechat_ids: BTreeMap<&String, &String> = self.app_ids.iter().map(|(wechat_id, app_id)| (app_id, wechat_id)).collect();
        let mut journal: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        let columns = [Endpoint::Add, Endpoint::Delete, Endpoint::StableToken];
        for call in columns.into_iter().flat_map(|column| self.stage.wechat.calls(column)) {
            let subject = wechat_ids.get(&call.account).map_or_else(|| call.account.clone(), |wechat_id| (*wechat_id).clone());
            journal.entry(subject).or_default().push(call);
        }
        journal
    }

    /// How long the worker said that it pauses an Official Account.
    pub fn logged_pause(&self, wechat_id: &str) -> u64 {
        let log = self.worker.log();
        let lines = log.lines().filter(|line| line.contains("the Official Account is paused"));
        let mut fields = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|mut line| line["fields"].take());
        let found = fields.find(|fields| fields["official_account"] == wechat_id);
        found.and_then(|fields| fields["pause_s"].as_u64()).unwrap_or_else(|| panic!("no pause of {wechat_id} was logged"))
    }

    /// Ends the worker in order, with commands waiting as they may, and gives the events that nobody has read. One
    /// dead letter is there for each command that failed, and none for any other.
    pub async fn end(mut self, pairs: &[Pair]) -> Vec<Received> {
        assert_eq!(self.worker.terminate().await, Some(0), "the worker ends in order");
        assert_eq!(self.stage.wechat.overlaps(), Vec::<String>::new(), "one call at a time for each account");
        assert_eq!(self.stage.wechat.strays(), Vec::<String>::new(), "no call but WeChat's");
        let failed = pairs.iter().filter_map(|pair| match pair.expected().ending {
            Ending::Failed(reason) => Some((pair.account("first"), reason.to_owned())),
            Ending::Succeeded(_) | Ending::Waits(_) => None,
        });
        let mut failed: Vec<(String, String)> = failed.collect();
        failed.sort();
        let letters = self.stage.broker.dead().await.rest().await;
        let letter = |letter: Received| {
            let command_id = letter.json["command_id"].as_str().map(str::to_owned);
            (command_id.expect("the command's own body"), letter.headers()["kf-reason"].clone())
        };
        let mut letters: Vec<(String, String)> = letters.into_iter().map(letter).collect();
        letters.sort();
        assert_eq!(letters, failed, "one dead letter for each command that failed");
        self.stage.events.rest().await
    }
}
