//! What a real Prometheus answers to everything that dashboards and alerts ask, while it scrapes a real worker under load and in all
//! kinds of trouble, and a real RabbitMQ. Gathered once, for all tests that look at it.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::promql::selectors;
use super::values::{with_values, without_fallback};
use super::{dashboards, rule_files};
use crate::support::broker::{Broker, Message};
use crate::support::eventually;
use crate::support::prometheus::{Job, Prometheus, Series};
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add, adds, deletes};
use crate::support::wechat::{Answer, Endpoint, ROOM, WeChat};
use crate::support::worker::Worker;

/// The jobs' names that the README of the dashboards proposes.
pub const WORKER: &str = "kf-worker";
pub const RABBITMQ: &str = "rabbitmq";

/// What RabbitMQ has to be asked for, as that README says.
const FAMILIES: &[(&str, &[&str])] = &[("family", &["queue_coarse_metrics", "queue_consumer_count"])];

/// How long everything may take until there is an answer to every question; RabbitMQ and the ledger are looked at only now and then.
const LONGEST: Duration = Duration::from_secs(120);

/// What the first row of the overview has to show in the end.
pub const TRUTHS: [(&str, &[f64]); 6] = [
    ("overview / Ready workers", &[1.0, 0.0]),
    ("overview / Broker", &[1.0]),
    ("overview / Paused Official Accounts", &[3.0]),
    ("overview / Dead letters", &[2.0]),
    ("overview / Tokens ended", &[3.0, 1.0]),
    ("overview / Put off", &[2.0]),
];

/// What has to fire in the end, since it waits for nothing and looks back further than all of this lasts: alert and cause.
pub const FIRING: [(&str, &str); 2] = [("KfWorkerDeadLetters", "new"), ("KfWorkerEventsUnroutable", "")];

/// A question and its answer.
pub struct Asked {
    /// The panel, variable or alert that asks.
    pub who: String,
    pub expression: String,
    pub answer: Result<Vec<Series>, String>,
}

impl Asked {
    /// What is wrong with the answer, if anything is.
    pub fn fault(&self) -> Option<String> {
        let fault = match &self.answer {
            Err(error) => error.clone(),
            Ok(series) if series.is_empty() => "no data".to_owned(),
            Ok(series) if series.iter().all(|series| series.value.is_nan()) => "no numbers".to_owned(),
            Ok(_) => return None,
        };
        Some(format!("{}: {fault}\n    {}", self.who, self.expression))
    }
}

pub struct Evidence {
    /// What each panel asks, without what it falls back on where nothing is there.
    pub panels: Vec<Asked>,
    /// What the variables of the dashboards ask, each with the label whose values it wants.
    pub variables: Vec<(Asked, String)>,
    /// What each alert looks at: its selections of series.
    pub selections: Vec<Asked>,
    /// The alerts as Prometheus has loaded them.
    pub alerts: Vec<Value>,
    /// The metrics that were scraped from RabbitMQ.
    pub rabbitmqs: Vec<String>,
    /// The metrics that were scraped from the worker.
    pub workers: Vec<String>,
}

impl Evidence {
    /// Questions without an answer, and panels of the first row that show something else than what is.
    fn faults(&self) -> Vec<String> {
        let variables = self.variables.iter().map(|(asked, _)| asked);
        let all = self.panels.iter().chain(variables).chain(&self.selections);
        let untrue = TRUTHS.iter().filter(|(panel, values)| self.shown(panel) != *values).map(|(panel, _)| (*panel).to_owned());
        let unknown = self.alerts.iter().filter(|alert| alert["health"] == "unknown").map(|alert| alert["name"].to_string());
        let silent = FIRING.iter().filter(|alert| !self.firing().contains(alert)).map(|(name, _)| format!("{name} is silent"));
        all.filter_map(Asked::fault).chain(untrue).chain(unknown).chain(silent).collect()
    }

    /// The alerts without a wait that fire, with their causes.
    pub fn firing(&self) -> Vec<(&str, &str)> {
        let at_once = self.alerts.iter().filter(|alert| alert["duration"] == 0.0 && alert["state"] == "firing");
        at_once.map(|alert| (alert["name"].as_str().unwrap_or_default(), alert["labels"]["cause"].as_str().unwrap_or_default())).collect()
    }

    /// The numbers that a panel shows, one for each of its questions.
    pub fn shown(&self, panel: &str) -> Vec<f64> {
        let of_panel = self.panels.iter().filter(|asked| asked.who == panel);
        of_panel.filter_map(|asked| Some(asked.answer.as_ref().ok()?.first()?.value)).collect()
    }
}

/// The evidence; the first caller gathers it and the others wait.
pub fn evidence() -> &'static Evidence {
    static EVIDENCE: OnceLock<Option<Evidence>> = OnceLock::new();
    // A thread and a runtime of its own: it outlives no test's, and where it fails once no other test tries it again.
    let gathered = || thread::spawn(|| Runtime::new().expect("a runtime").block_on(gather())).join().ok();
    EVIDENCE.get_or_init(gathered).as_ref().expect("the evidence could be gathered; why not is told above")
}

async fn gather() -> Evidence {
    let node = OwnNode::start_with_metrics();
    let mut stage = Stage::at(node.url()).await;
    stage.wechat = WeChat::start(&["test", "other", "full", "broken"]).await;
    for number in 0..ROOM {
        stage.wechat.put(&format!("f{number}@full"));
    }
    // The default, of which the alerts speak; nobody else is at this node.
    stage.broker = Broker::connect(node.url(), "kf".to_owned()).await;
    stage.events = stage.broker.events().await;
    // Another host of the same API.
    let door = stage.wechat.open_door().await;
    let mut settings = stage.settings();
    settings.set("wechat.fallback_urls", json!([door.base_url()])).set("verify.enabled", true).set("verify.drift_interval", "1s");
    settings.set("retry.probe_interval", "1h").set("retry.defer", json!(["10m"]));
    // So soon that a token ends while the test looks.
    stage.wechat.set_expires_in(2);
    let mut worker = stage.worker_with(&settings).await;
    die_in_the_middle(&stage, &mut worker).await;
    let listening = settings.get("admin.listen").and_then(Value::as_str).expect("the worker listens").to_owned();
    let jobs = [
        Job { name: WORKER, target: listening, path: "/metrics", parameters: &[] },
        Job { name: RABBITMQ, target: node.metrics(), path: "/metrics/detailed", parameters: FAMILIES },
    ];
    let prometheus = Prometheus::start(&jobs, &rule_files());
    prometheus.scraped(jobs.len()).await;
    // Every counter was seen at 0 by now, so that its increase is seen too.
    make_trouble(&stage, &worker).await;
    let end = Instant::now() + LONGEST;
    let mut round = 0;
    loop {
        load(&stage, round).await;
        let evidence = ask_all(&prometheus).await;
        if evidence.faults().is_empty() || Instant::now() > end {
            return evidence;
        }
        round += 1;
        // There is nothing new before the next scrape.
        sleep(Duration::from_secs(1)).await;
    }
}

/// The worker dies during a call, and RabbitMQ delivers the command again to its next life.
async fn die_in_the_middle(stage: &Stage, worker: &mut Worker) {
    let mut held = stage.wechat.hold(Endpoint::Add, "r0@test");
    stage.send_all(&adds("r", "test", 1)).await;
    held.arrived().await;
    worker.kill().await;
    worker.restart().await;
    until_at_least(worker, "kf_commands_redelivered_total", 1.0).await;
}

async fn until_at_least(worker: &Worker, metric: &str, value: f64) {
    eventually(metric, async || worker.metric(metric).await.filter(|now| *now >= value)).await;
}

/// Everything that the contract knows to go wrong, save what takes the whole worker away.
async fn make_trouble(stage: &Stage, worker: &Worker) {
    let wechat = &stage.wechat;
    // The AppSecret of one is no longer good, and its token ends; another lacks a permission; a third holds its 100 accounts.
    wechat.always(Endpoint::StableToken, Some(&wechat.official_account("broken").app_id), Answer::Errcode(40125));
    until_at_least(worker, "kf_token_fetches_total{official_account=\"broken\",result=\"failed\"}", 1.0).await;
    wechat.always(Endpoint::Add, Some("o0@other"), Answer::Errcode(48001));
    for (wechat_id, name) in [("broken", "b"), ("other", "o"), ("full", "g")] {
        stage.send_all(&adds(name, wechat_id, 1)).await;
    }
    until_at_least(worker, "kf_official_accounts_paused{reason=\"misconfigured\"}", 2.0).await;
    until_at_least(worker, "kf_official_accounts_paused{reason=\"account_limit_reached\"}", 1.0).await;
    // Nobody asks for another token of theirs meanwhile.
    wechat.set_expires_in(7200);
    // One call has to be made again, one gets no answer, and one is refused for good.
    wechat.next(Endpoint::Add, Some("s0@test"), Answer::Errcode(-1));
    wechat.next(Endpoint::Add, Some("s1@test"), Answer::Http(502));
    wechat.always(Endpoint::Add, Some("s2@test"), Answer::Errcode(65403));
    stage.send_all(&adds("s", "test", 3)).await;
    // A repeat, a message that nobody can read, and a command that breaks the rules.
    stage.send_all(&adds("s", "test", 1)).await;
    stage.broker.publish(Message::raw("no command")).await;
    stage.send(&add("wrong", "wrong@test", "")).await;
    // Nobody reads the results any more.
    let channel = stage.broker.channel().await;
    let (queue, exchange) = (stage.events.queue.clone(), stage.broker.name("events"));
    channel.queue_unbind(queue, exchange, "#".into(), FieldTable::default()).await.expect("the queue is unbound");
}

/// What a healthy day brings.
async fn load(stage: &Stage, round: usize) {
    let name = format!("l{round}x");
    let now = Timestamp::now().as_second().unsigned_abs();
    let commands = [adds(&name, "test", 3), deletes(&name, "test", 3)].concat();
    stage.broker.publish_all(commands.iter().map(|command| Message::json(command).timestamp(now))).await;
}

async fn ask_all(prometheus: &Prometheus) -> Evidence {
    let ask = async |who: String, expression: String| {
        let answer = prometheus.query(&expression).await;
        Asked { who, expression, answer }
    };
    let mut evidence = Evidence {
        panels: Vec::new(),
        variables: Vec::new(),
        selections: Vec::new(),
        alerts: prometheus.alerts().await,
        workers: prometheus.names(WORKER).await,
        rabbitmqs: prometheus.names(RABBITMQ).await,
    };
    for dashboard in dashboards() {
        for target in dashboard.targets() {
            evidence.panels.push(ask(target.panel, with_values(without_fallback(&target.expression))).await);
        }
        for (target, label) in dashboard.variable_queries() {
            evidence.variables.push((ask(target.panel, with_values(target.expression)).await, label));
        }
    }
    for alert in &evidence.alerts {
        let name = alert["name"].as_str().unwrap_or_default();
        for selector in selectors(alert["query"].as_str().unwrap_or_default()) {
            evidence.selections.push(ask(format!("alert {name}"), selector.text()).await);
        }
    }
    evidence
}
