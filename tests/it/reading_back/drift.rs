//! `kf-worker drift` and its gauges: what WeChat lists, compared with what the commands asked for, and nothing changed.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Worker, kf_worker};

/// Runs `kf-worker drift …` with a worker's configuration.
async fn drift(worker: &Worker, arguments: &[&str]) -> Output {
    let output = kf_worker().arg("--config").arg(worker.config()).arg("drift").args(arguments).output();
    output.await.expect("the program runs")
}

/// Its exit code, and what it printed.
async fn ended(worker: &Worker, arguments: &[&str]) -> (Option<i32>, String) {
    let output = drift(worker, arguments).await;
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

/// Brings about each kind of difference at `test`, and none at `other`.
async fn let_drift(stage: &mut Stage) {
    for name in ["same", "gone", "named", "left"] {
        stage.outcome(&add(name, &format!("{name}@test"), "安娜")).await.assert_succeeded("created");
    }
    stage.outcome(&add("other", "same@other", "本")).await.assert_succeeded("created");
    stage.outcome(&delete("left again", "left@test")).await.assert_succeeded("deleted");
    stage.wechat.remove("gone@test");
    stage.wechat.rename("named@test", "安妮");
    stage.wechat.put("left@test");
    stage.wechat.put("hand@test");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_told_beside_the_running_worker_and_nothing_is_changed() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let_drift(&mut stage).await;
    let before = stage.wechat.journal().len();

    let (code, text) = ended(&worker, &[]).await;
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "other: as it should be; 1 of 100 accounts, 0 with unfinished commands",
        "test: 1 missing, 2 unexpected, 1 differently named; 4 of 100 accounts",
        "  missing     gone@test",
        "  unexpected  hand@test (no command ever named it)",
        "  unexpected  left@test (deleted by its last command)",
        "  renamed     named@test (asked for: 安娜, listed: 安妮)",
    ];
    assert_eq!((code, lines), (Some(1), expected.to_vec()));

    let (code, text) = ended(&worker, &["test", "--json"]).await;
    let found: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    let expected = json!({
        "official_account": "test",
        "listed": 4,
        "missing": ["gone@test"],
        "unexpected": [{"kf_account": "hand@test", "deleted": false}, {"kf_account": "left@test", "deleted": true}],
        "renamed": [{"kf_account": "named@test", "asked_for": "安娜", "listed": "安妮"}],
        "unfinished": [],
    });
    assert_eq!((code, found), (Some(1), expected));

    assert_eq!(stage.wechat.journal().len(), before, "nothing is added or deleted");
    assert_eq!(stage.wechat.strays(), Vec::<String>::new());
    stage.outcome(&delete("last", "hand@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_how_it_went() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    let (code, text) = ended(&worker, &["test"]).await;
    assert_eq!((code, text.trim()), (Some(0), "test: as it should be; 1 of 100 accounts, 0 with unfinished commands"));
    assert_eq!(ended(&worker, &["other"]).await.0, Some(0));

    let output = drift(&worker, &["test", "nobody"]).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`nobody` is not in the configuration"));

    stage.wechat.always(Endpoint::List, Some("other"), Answer::Errcode(48001));
    let output = drift(&worker, &[]).await;
    let (found, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(69), "{errors}");
    assert!(found.starts_with("test: as it should be"), "the others are compared all the same: {found}");
    assert!(errors.contains("other: ") && errors.contains("48001"), "{errors}");
    let token = &stage.wechat.calls(Endpoint::List)[0].token;
    assert!(!found.contains(token) && !errors.contains(token));

    // What differs weighs more than what is not known.
    stage.wechat.remove("anna@test");
    assert_eq!(ended(&worker, &[]).await.0, Some(1));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_an_unfinished_command_is_not_judged() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let (code, text) = ended(&worker, &["test", "--json"]).await;
    let found: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    assert_eq!((code, &found["unfinished"], &found["missing"]), (Some(0), &json!(["anna@test"]), &json!([])));
    held.release();
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platforms_token_is_borrowed_from_the_running_worker_and_never_fetched() {
    let mut stage = Stage::new().await;
    let settings = crate::token_sources::authorised_with_ticket_file(&stage);
    let worker = stage.worker_with(&settings).await;
    let output = drift(&worker, &[]).await;
    assert_eq!(output.status.code(), Some(69), "there is none yet: {}", String::from_utf8_lossy(&output.stderr));
    let fetches = || (stage.wechat.calls(Endpoint::ComponentToken).len(), stage.wechat.calls(Endpoint::AuthorizerToken).len());
    assert_eq!((fetches(), stage.wechat.calls(Endpoint::List).len()), ((0, 0), 0));

    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(ended(&worker, &[]).await.0, Some(0));
    let fetches = (stage.wechat.calls(Endpoint::ComponentToken).len(), stage.wechat.calls(Endpoint::AuthorizerToken).len());
    assert_eq!(fetches, (1, 1), "a fetch would end the worker's");
    assert_eq!(stage.wechat.calls(Endpoint::List)[0].token, stage.wechat.calls(Endpoint::Add)[0].token);
    let event = stage.outcome(&delete("c2", "anna@test")).await;
    event.assert_succeeded("deleted");
    assert_eq!(event.attempts(), 1, "the worker's token is as good as before");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_no_fault_of_the_configuration() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    for arguments in [["drift"].as_slice(), &["result", "c1"], &["results"]] {
        let mut command = kf_worker();
        command.arg("--config").arg(worker.config()).args(arguments).env("KF_LEDGER__URL", "postgres://kf@127.0.0.1:1/kf");
        let output = command.output().await.expect("the program runs");
        assert_eq!(output.status.code(), Some(69), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_shows_what_differs_as_metrics() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("verify.enabled", true).set("verify.drift_interval", "1s");
    let worker = stage.worker_with(&settings).await;
    let_drift(&mut stage).await;
    let gauge = async |name: &str, labels: &str| worker.metric(&format!("kf_official_account_{name}{{{labels}}}")).await;
    let shows = async |wanted: [f64; 4]| {
        let mut shown = vec![gauge("kf_accounts", "official_account=\"test\"").await?];
        for kind in ["missing", "unexpected", "renamed"] {
            shown.push(gauge("drift", &format!("kind=\"{kind}\",official_account=\"test\"")).await?);
        }
        (shown == wanted).then_some(())
    };
    eventually("the gauges show what differs", async || shows([4.0, 1.0, 2.0, 1.0]).await).await;

    stage.wechat.put("gone@test");
    for account in ["gone@test", "named@test"] {
        stage.wechat.rename(account, "安娜");
    }
    for account in ["left@test", "hand@test"] {
        stage.wechat.remove(account);
    }
    eventually("and that nothing does any more", async || shows([3.0, 0.0, 0.0, 0.0]).await).await;
    assert!(stage.wechat.journal().len() == 6, "nothing is changed by looking");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
