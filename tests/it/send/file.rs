//! Files of commands.

use std::fmt::Write as _;

use super::{ended, send, sent, text};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

const HEADER: &str = "action,kf_account,nickname,command_id,revision\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_sent_as_a_whole_and_what_failed_can_be_mended_and_sent() {
    let mut stage = Stage::with_official_accounts(&["test", "other", "third"]).await;
    let worker = stage.worker().await;
    let (hires, failed) = (stage.path("hires.csv"), stage.path("not-hired.csv"));
    let mut table = HEADER.to_owned();
    for number in 0..200 {
        let official = ["test", "other", "third"][number % 3];
        let _ = writeln!(table, "add,a{number}@{official},客服{number},,");
    }
    std::fs::write(&hires, &table).expect("the file can be written");
    stage.wechat.next(Endpoint::Add, Some("a7@other"), Answer::Errcode(65403));
    let arguments = ["--file", text(&hires), "--wait", "--json", "--failed", text(&failed)];
    let first = sent(&stage, &arguments).await.with(1).says(&["succeeded", "199", "failed", "1 commands that did not succeed are in"]);
    let results = first.json();
    assert_eq!(results.len(), 200);
    let of_line_9 = results.iter().find(|result| result["line"] == 9).expect("each line has its result");
    assert_eq!((&of_line_9["kf_account"], &of_line_9["error"]["reason"]), (&"a7@other".into(), &"nickname_refused".into()));
    assert_eq!(stage.wechat.calls(Endpoint::Add).len(), 200);

    // The same file again repeats its commands and doubles none.
    let again = sent(&stage, &arguments).await.with(1).says(&["repeats", "200", "not carried out"]);
    assert!(again.json().iter().all(|result| result["repeat"] == true));
    assert_eq!(stage.wechat.calls(Endpoint::Add).len(), 200);

    let nowhere = ["--file", text(&hires), "--wait", "--resume", "--failed", "/proc/kf-worker.csv"];
    sent(&stage, &nowhere).await.with(1).says(&["/proc/kf-worker.csv can't be written"]);

    // What failed is sent as it was written, since it was mended at WeChat.
    let written = std::fs::read_to_string(&failed).expect("the file was written");
    let lines: Vec<&str> = written.lines().collect();
    assert!(lines.len() == 2 && lines[1].starts_with("add,a7@other,客服7,,,") && lines[1].contains("nickname_refused"), "{written}");
    sent(&stage, &["--file", text(&failed), "--wait"]).await.with(0);
    assert_eq!(stage.wechat.nickname("a7@other").as_deref(), Some("客服7"));
    stage.settle(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_with_a_fault_nothing_is_sent_and_every_fault_is_told() {
    let stage = Stage::new().await;
    let path = stage.path("hires.csv");
    std::fs::write(&path, format!("{HEADER}add,anna@test,安娜,c1,\nadd,bob,Bob,c2,\ndelete,cleo@test,Cleo,c3,\n")).expect("a file");
    let faults = sent(&stage, &["--file", text(&path), "--wait"]).await.with(1);
    let faults = faults.says(&["nothing was sent", "2 faults", "hires.csv:3: `kf_account`", "hires.csv:4: A `delete` takes no `nickname`"]);
    assert_eq!(faults.stdout(), "");
    sent(&stage, &["--file", text(&path), "--dry-run"]).await.with(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_one_account_keep_the_order_of_the_file() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let path = stage.path("moves.jsonl");
    let mut lines = String::new();
    for round in 0..20 {
        for (number, name) in ["anna", "bob", "cleo"].into_iter().enumerate() {
            let account = format!("{name}@test");
            let id = format!("{name}-{round}");
            let command = if round % 2 == number % 2 { add(&id, &account, "客服") } else { delete(&id, &account) };
            let _ = writeln!(lines, "{command}");
        }
    }
    std::fs::write(&path, lines).expect("the file can be written");
    let results = sent(&stage, &["--file", text(&path), "--wait", "--json"]).await.with(0).json();
    assert_eq!(results.len(), 60);
    assert!(!stage.wechat.has("anna@test") && stage.wechat.has("bob@test") && !stage.wechat.has("cleo@test"));
    assert_eq!(stage.wechat.changes("bob@test").len(), 20, "none went before another");
    stage.settle(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_file_goes_on_where_it_was() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    let path = stage.path("leavers.jsonl");
    let lines: String = (0..50).map(|n| format!("{{\"action\":\"delete\",\"kf_account\":\"a{n}@test\"}}\n")).collect();
    std::fs::write(&path, lines).expect("the file can be written");
    let mut held = stage.wechat.hold(Endpoint::Delete, "a49@test");
    let mut first = send(&stage.settings(), &["--file", text(&path), "--batch", "2026-03", "--wait"]);
    let mut child = first.stdout(std::process::Stdio::null()).spawn().expect("the program runs");
    held.arrived().await;
    stage.events.of("2026-03/1").await.assert_succeeded("none");
    child.kill().await.expect("it was running");
    held.release();
    let arguments = ["--file", text(&path), "--batch", "2026-03", "--wait", "--resume", "--json"];
    let results = sent(&stage, &arguments).await.with(0).json();
    assert_eq!(results.len(), 50);
    assert!(results.iter().any(|result| result["repeat"] == true) && results.iter().any(|result| result["command_id"] == "2026-03/50"));
    assert_eq!(stage.wechat.calls(Endpoint::Delete).len(), 50, "none was carried out twice");

    // Without a worker what was sent is confirmed, and waits.
    assert_eq!(worker.terminate().await, Some(0));
    let mut more = send(&stage.settings(), &["--file", text(&path)]);
    more.env("KF_LOG_FORMAT", "json");
    let sent = ended(more).await.with(0).says(&["\"message\":\"sent", "50"]);
    assert_eq!(sent.stdout(), "");
    assert_eq!(stage.broker.ready("commands").await, Some(50));
}
