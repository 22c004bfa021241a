//! `kf-worker check --connect`: what a worker would find, told before it runs, without changing anything.

use std::collections::BTreeMap;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, kf_worker};

/// What was told of each thing, and the exit code.
struct Told {
    lines: Vec<Value>,
    exit: Option<i32>,
}

impl Told {
    /// What was told of one thing, all of it where it was told of more than once.
    fn of(&self, what: &str) -> Vec<(&str, &str)> {
        let lines = self.lines.iter().filter(|line| line["check"] == what);
        lines.map(|line| (line["result"].as_str().expect("a result"), line["detail"].as_str().expect("a detail"))).collect()
    }

    /// Fails where it was told otherwise of one thing, or not with these words.
    #[track_caller]
    fn assert(&self, what: &str, result: &str, words: &str) {
        let told = self.of(what);
        assert!(told.iter().any(|(found, detail)| *found == result && detail.contains(words)), "{what}: {told:?} of {:#?}", self.lines);
    }

    /// How many things there were with each result.
    fn results(&self) -> BTreeMap<&str, usize> {
        let mut results = BTreeMap::new();
        for line in &self.lines {
            *results.entry(line["result"].as_str().expect("a result")).or_default() += 1;
        }
        results
    }

    /// What was found wrong or could not be reached.
    fn faults(&self) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["result"] == "wrong" || line["result"] == "unreachable").collect()
    }
}

async fn check(stage: &Stage, settings: &Settings) -> Told {
    let path = stage.path("checked.toml");
    std::fs::write(&path, settings.text()).expect("the configuration can be written");
    let output = kf_worker().args(["check", "--connect", "--json", "--config"]).arg(&path).output().await.expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for secret in stage.wechat.official_accounts().into_iter().map(|official| official.app_secret).chain(["hunter2".to_owned()]) {
        assert!(!printed.contains(&secret), "a secret is shown: {printed}");
    }
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    Told { lines, exit: output.status.code() }
}

/// Before the first worker, and beside one that runs.
async fn nothing_is_wrong(mut stage: Stage) {
    let settings = stage.settings();
    let before = check(&stage, &settings).await;
    assert_eq!((before.exit, before.faults().len()), (Some(0), 0), "{:#?}", before.lines);
    let prefix = stage.broker.prefix.clone();
    for what in ["exchange {}.commands", "queue {}.commands", "queue {}.dead", "exchange {}.deferred.1s", "queue {}.deferred.2s"] {
        before.assert(&what.replace("{}", &prefix), "missing", "will be declared by `kf-worker run`");
    }
    before.assert("ledger", "missing", "kf-worker run");
    before.assert("permission to configure", "ok", "exclusive queue");
    before.assert("permission to write", "ok", "the default exchange");
    before.assert("admin port", "ok", "is free");
    before.assert("Official Account test", "ok", "no kf account yet");
    assert_eq!(stage.broker.ready("commands").await, None, "nothing was declared");

    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    let beside = check(&stage, &settings).await;
    assert_eq!((beside.exit, beside.faults().len(), beside.results().get("missing")), (Some(0), 0, None), "{:#?}", beside.lines);
    for (permission, on) in [
        ("read", format!("exchange `{prefix}.commands`")),
        ("read", format!("queue `{prefix}.commands`")),
        ("write", format!("exchange `{prefix}.events`")),
        ("write", format!("exchange `{prefix}.deferred.1s`")),
        ("write", format!("queue `{prefix}.deferred.1s`")),
        ("write", format!("queue `{prefix}.commands`")),
    ] {
        beside.assert(&format!("permission to {permission}"), "ok", &on);
    }
    beside.assert("ledger", "ok", "0 unfinished commands");
    beside.assert("admin port", "ok", "a worker answers");
    beside.assert("Official Account test", "ok", "1 of 100 kf accounts");
    beside.assert("what nobody can prove before", "unproven", "topic permissions");
    // Whatever it has bound, looked at or sent: nobody got any of it.
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_worker_and_beside_one_nothing_is_wrong() {
    nothing_is_wrong(Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_with_a_ledger_in_a_database() {
    nothing_is_wrong(Stage::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_that_waits_is_taken() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    assert_eq!(worker.terminate().await, Some(0));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    let told = check(&stage, &stage.settings()).await;
    assert_eq!(told.exit, Some(0), "{:#?}", told.lines);
    told.assert("permission to read", "ok", &format!("queue `{}.commands`", stage.broker.prefix));
    assert_eq!(stage.broker.ready("commands").await, Some(1));
    worker.restart().await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_do_is_told_with_what_to_grant() {
    let node = OwnNode::start();
    let mut stage = Stage::at(node.url()).await;
    let mut worker = stage.worker().await;
    assert_eq!(worker.terminate().await, Some(0));
    let prefix = stage.broker.prefix.clone();
    node.control(&["add_user", "kf", "hunter2"]);
    let mut settings = stage.settings();
    settings.set("amqp.url", format!("amqp://kf:hunter2@{}/%2f", node.address()));

    let refused = check(&stage, &settings).await;
    assert_eq!(refused.exit, Some(78), "{:#?}", refused.lines);
    refused.assert("broker", "wrong", "access to vhost");

    let (own, all) = (format!("^{}\\..*", prefix.replace('.', "\\.")), ".*");
    node.control(&["set_permissions", "kf", "^$", all, all]);
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(78), "{:#?}", told.lines);
    told.assert("permission to configure", "wrong", "Grant the user `kf` the permission configure");
    settings.set("amqp.topology", "check");
    // Its ledger is in a file, so that it declares the queue of the one that has it.
    check(&stage, &settings).await.assert("permission to configure", "wrong", "Grant the user `kf`");
    // Who has all the rights that it needs, and no other, lacks nothing.
    node.control(&["set_permissions", "kf", &format!("^{prefix}\\.sqlite-owner$"), all, all]);
    let told = check(&stage, &settings).await;
    assert_eq!((told.exit, told.faults().len()), (Some(0), 0), "{:#?}", told.lines);
    told.assert("permission to configure", "unproven", "to have it proven, grant the user `kf` configure and write");
    settings.set("amqp.topology", "declare");

    let but_events = format!("^(amq\\.default|{prefix}\\.(commands|dead|deferred|check|sqlite).*)$");
    node.control(&["set_permissions", "kf", &own, &but_events, &format!("^{prefix}\\.(commands$|check.*)")]);
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(78), "{:#?}", told.lines);
    told.assert("permission to write", "wrong", &format!("Grant the user `kf` the permission write on exchange `{prefix}.events`"));
    told.assert("permission to write", "ok", &format!("exchange `{prefix}.deferred.1s`"));
    assert_eq!(told.faults().len(), 1, "that alone: {:#?}", told.lines);

    node.control(&["set_permissions", "kf", &own, all, "^$"]);
    let told = check(&stage, &settings).await;
    told.assert("permission to read", "wrong", &format!("Grant the user `kf` the permission read on queue `{prefix}.commands`"));
    told.assert("permission to read", "wrong", &format!("exchange `{prefix}.commands`"));

    let bindings = node.control(&["list_bindings", "routing_key"]);
    assert!(!bindings.contains("kf-worker-check"), "nothing stays: {bindings}");

    settings.set("amqp.url", format!("amqp://kf:wrong@{}/%2f", node.address()));
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(78));
    told.assert("broker", "wrong", "refuses the login");
    settings.set("amqp.url", format!("amqp://kf:hunter2@{}/nowhere", node.address()));
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(78));
    told.assert("broker", "wrong", "nowhere");
    // What stands at the broker is told, and all the others too.
    told.assert("Official Account test", "ok", "there is a token");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_must_be_made_where_no_worker_declares_it() {
    let stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("amqp.topology", "check");
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(78));
    told.assert(&format!("queue {}.dead", stage.broker.prefix), "wrong", "make it by hand");
    settings.set("amqp.topology", "none");
    let told = check(&stage, &settings).await;
    told.assert("permissions", "unproven", "`amqp.topology` is \"none\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_told() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut settings = stage.settings();
    settings.set("amqp.partitions", 3);
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(78));
    told.assert("partitions", "wrong", "`amqp.partitions` is 3");
    told.assert("other workers", "ok", "a worker with a SQLite ledger is connected");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_official_account_is_told_with_what_to_do() {
    let stage = Stage::with_official_accounts(&["test", "other", "third", "fourth"]).await;
    let app_id = |wechat_id: &str| stage.wechat.official_account(wechat_id).app_id;
    let unknown = json!({"errcode": 40164, "errmsg": "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 6172-61"});
    stage.wechat.always(Endpoint::StableToken, Some(&app_id("test")), Answer::Body(unknown.to_string()));
    stage.wechat.always(Endpoint::StableToken, Some(&app_id("other")), Answer::Errcode(40125));
    stage.wechat.put_for("third", "anna@test");
    stage.wechat.put("ben@fourth");
    let told = check(&stage, &stage.settings()).await;
    assert_eq!(told.exit, Some(78), "{:#?}", told.lines);
    told.assert("Official Account test", "wrong", "put 203.0.113.7 on the whitelist of `test`");
    told.assert("Official Account other", "wrong", "The AppSecret is wrong");
    told.assert("Official Account third", "wrong", "belong to another Official Account (`test`)");
    told.assert("Official Account fourth", "ok", "1 of 100 kf accounts, all of `fourth`");
    stage.wechat.recover();
    stage.wechat.always(Endpoint::StableToken, Some(&app_id("test")), Answer::Errcode(-1));
    stage.wechat.remove("anna@test");
    let busy = check(&stage, &stage.settings()).await;
    busy.assert("Official Account test", "unreachable", "WeChat is busy");
    assert_eq!(busy.exit, Some(69), "it may pass: {:#?}", busy.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_token_ends() {
    let stage = Stage::with_official_accounts(&["test"]).await;
    let mut settings = stage.settings();
    settings.official_accounts = settings.official_accounts.replace("app_id", "token = \"legacy\"\napp_id");
    let told = check(&stage, &settings).await;
    assert_eq!(told.exit, Some(0), "{:#?}", told.lines);
    told.assert("Official Account test", "unproven", "to fetch one here would end the worker's");
    assert_eq!(stage.wechat.journal().len(), 0, "WeChat was not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_reached_or_had_is_told_and_everything_else_too() {
    let stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", "amqp://guest:hunter2@127.0.0.1:1/%2f").set("wechat.base_url", "http://127.0.0.1:1");
    let away = check(&stage, &settings).await;
    assert_eq!(away.exit, Some(69), "{:#?}", away.lines);
    away.assert("broker", "unreachable", "can't be reached");
    away.assert("Official Account other", "unreachable", "there is no access token (unreachable)");
    away.assert("admin port", "ok", "is free");

    let lines = kf_worker().args(["check", "--connect", "--config"]).arg(stage.path("checked.toml")).output().await.expect("it runs");
    let lines = String::from_utf8(lines.stdout).expect("text");
    assert!(lines.starts_with("The configuration is sound.\n"), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("FAILED    broker: the broker can't be reached")), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("ok        admin port: ")), "{lines}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    settings.set("admin.listen", taken.local_addr().expect("it is bound").to_string());
    settings.set("ledger.url", format!("sqlite:{}", stage.path("nowhere").join("ledger.db").display()));
    let wrong = check(&stage, &settings).await;
    assert_eq!(wrong.exit, Some(78), "an operator comes first: {:#?}", wrong.lines);
    wrong.assert("admin port", "wrong", "in use by another program");
    wrong.assert("ledger", "wrong", "make the folder");
    settings.set("ledger.url", "postgres://kf:hunter2@127.0.0.1:1/kf?sslmode=disable");
    check(&stage, &settings).await.assert("ledger", "unreachable", "127.0.0.1:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_configuration_are_lines_as_well() {
    let stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("worker.concurency", 3).set("worker.window", 0);
    let told = check(&stage, &settings).await;
    assert_eq!((told.exit, told.lines.len()), (Some(78), 2), "nothing is connected to: {:#?}", told.lines);
    told.assert("configuration", "wrong", "did you mean `worker.concurrency`?");
    assert!(told.lines[1]["where"].as_str().is_some_and(|at| at.contains("checked.toml:")), "{:#?}", told.lines);
}
