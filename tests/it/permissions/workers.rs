//! The worker with least rights: its whole story as each of its users, and what it says when it lacks a right.

use serde_json::{Value, json};

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add};
use crate::support::vhost::{Vhost, deployed};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, Worker, kf_worker};

/// The delays of [`soon`].
const SOON: [&str; 3] = ["1s", "2s", "1h"];

/// The topology, with delays for which a test can wait.
fn soon() -> String {
    let topology = deployed("topology.json");
    topology.replace(".1m\"", ".1s\"").replace(": 60000,", ": 1000,").replace(".10m\"", ".2s\"").replace(": 600000,", ": 2000,")
}

/// The settings of a worker that comes as this user, with rules for the three producers.
fn settings(stage: &Stage, vhost: &Vhost, user: &str, topology: &str) -> Settings {
    let mut settings = stage.settings();
    settings
        .set("amqp.url", vhost.url(user))
        .set("amqp.topology", topology)
        .set("retry.defer", json!(SOON))
        .set("retry.max_interval", "500ms")
        .set("retry.max_in_process", "1s")
        .set("retry.probe_interval", "1s")
        .publisher("hr-onboarding", &["add"], &["*@test"])
        .publisher("hr-offboarding", &["delete"], &["*@test"])
        .publisher("hr-desk", &["add", "delete"], &["*@test"]);
    settings
}

/// An add with a reply, a delete, a dead letter and a command that is put off, each by the user whose work that is.
async fn does_all_its_work(vhost: &Vhost, stage: &mut Stage, worker: Worker) {
    let checked = kf_worker().arg("--config").arg(worker.config()).args(["check", "--connect"]).output().await.expect("the program runs");
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && !told.contains("unproven  permission to"), "its rights suffice to prove them: {told}");

    let mut results = vhost.client("hr-results").await.inbox("hr-results").await;
    let replied = vhost.printed("hr-desk", &["send", "add", "anna@test", "安娜", "--id", "c1", "--wait", "--json"]).await;
    let replied: Value = serde_json::from_str(&replied).expect("JSON");
    assert_eq!((&replied["status"], &replied["effect"]), (&json!("succeeded"), &json!("created")));
    results.of("c1").await.assert_succeeded("created");
    vhost.printed("hr-offboarding", &["send", "delete", "anna@test", "--id", "c2"]).await;
    results.of("c2").await.assert_succeeded("deleted");

    let hr = vhost.client("hr-onboarding").await;
    let mut dead = vhost.client("kf-operator").await.dead().await;
    hr.publish(Message::json(&add("c3", "ben@test", "本"))).await;
    assert_eq!(dead.next().await.headers()["kf-reason"], "not_authorised");
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(48001));
    hr.publish(Message::json(&add("c4", "carl@test", "卡尔")).user_id("hr-onboarding")).await;
    let put_off = results.of("c4").await;
    put_off.assert_succeeded("created");
    assert_eq!(put_off.attempts(), 2);
    assert!(worker.log().contains("a command was put off"), "it went through a queue");
    let told: Vec<String> = stage.settle(worker).await.iter().map(|event| event.command_id().to_owned()).collect();
    assert_eq!(told, ["c1", "c2", "c4"], "nothing else was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_declares_does_all_its_work() {
    let vhost = Vhost::new().await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let worker = stage.worker_with(&settings(&stage, &vhost, "kf-worker", "declare")).await;
    does_all_its_work(&vhost, &mut stage, worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_declares_four_partitions_does_all_its_work() {
    let vhost = Vhost::new().await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let mut settings = settings(&stage, &vhost, "kf-worker", "declare");
    settings.set("amqp.partitions", 4);
    let worker = stage.worker_with(&settings).await;
    does_all_its_work(&vhost, &mut stage, worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_only_checks_does_all_its_work() {
    let vhost = Vhost::new().await;
    vhost.import(&soon()).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let worker = stage.worker_with(&settings(&stage, &vhost, "kf-worker-checked", "check")).await;
    does_all_its_work(&vhost, &mut stage, worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_only_checks_does_all_its_work_after_the_other_one_has_changed_the_number_of_partitions() {
    let vhost = Vhost::new().await;
    vhost.import(&soon()).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let mut settings = settings(&stage, &vhost, "kf-worker-checked", "check");
    let config = stage.path("before.toml");
    std::fs::write(&config, settings.text()).expect("the configuration can be written");
    vhost.printed("kf-worker", &["--config", config.to_str().expect("a plain path"), "partitions", "set", "4"]).await;
    settings.set("amqp.partitions", 4);
    let worker = stage.worker_with(&settings).await;
    let parked_done = async || stage.broker.ready("parked").await.is_none().then_some(());
    eventually("what was parked is taken, and its queue deleted", parked_done).await;
    does_all_its_work(&vhost, &mut stage, worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_the_topology_alone_does_all_its_work() {
    let vhost = Vhost::new().await;
    vhost.import(&soon()).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let worker = stage.worker_with(&settings(&stage, &vhost, "kf-worker-checked", "none")).await;
    does_all_its_work(&vhost, &mut stage, worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_declares_finds_the_imported_topology_as_it_would_make_it() {
    let vhost = Vhost::new().await;
    vhost.import(&deployed("topology.json")).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let mut settings = settings(&stage, &vhost, "kf-worker", "declare");
    settings.unset("retry.defer");
    let worker = stage.worker_with(&settings).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_ends_the_worker_with_the_name_of_what_it_is_missing_on() {
    let vhost = Vhost::new().await;
    vhost.import(&soon()).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let settings = settings(&stage, &vhost, "kf-worker-checked", "check");
    let all = (
        r"^kf\.(sqlite-owner|parked|parked-owner)$",
        r"^(kf\.(events|dead)|kf\.deferred\..+|amq\.default)$",
        r"^kf\.(commands(\.0)?|parked|parking)$",
    );
    for (configure, read, missing) in
        [(r"^kf\.(parked|parked-owner)$", all.2, "kf.sqlite-owner"), (all.0, r"^kf\.(commands\.0|parked|parking)$", "kf.commands")]
    {
        vhost.permit("kf-worker-checked", configure, all.1, read);
        let mut worker = stage.spawn(&settings);
        assert_eq!(worker.exit_code().await, Some(78), "{missing}");
        let (log, name) = (worker.log(), format!("`{missing}`"));
        let last = log.lines().rfind(|line| line.contains(&name)).unwrap_or_else(|| panic!("{missing} is not named in:\n{log}"));
        assert!(last.contains("grant it"), "{last}");
    }
    vhost.permit("kf-worker-checked", all.0, all.1, all.2);
    let worker = stage.worker_with(&settings).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_for_results_alone_is_told_and_loses_no_command() {
    let vhost = Vhost::new().await;
    vhost.import(&soon()).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let (configure, read) = (r"^kf\.(sqlite-owner|parked|parked-owner)$", r"^kf\.(commands(\.0)?|events|parked|parking)$");
    vhost.permit("kf-worker-checked", configure, r"^(kf\.dead|kf\.deferred\..+|amq\.default)$", read);
    let worker = stage.worker_with(&settings(&stage, &vhost, "kf-worker-checked", "check")).await;
    vhost.printed("hr-onboarding", &["send", "add", "anna@test", "安娜", "--id", "c1"]).await;
    worker.not_ready_because(&["ACCESS_REFUSED", "exchange 'kf.events'"]).await;
    vhost.permit("kf-worker-checked", configure, r"^(kf\.(events|dead)|kf\.deferred\..+|amq\.default)$", read);
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add], "it was done once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
