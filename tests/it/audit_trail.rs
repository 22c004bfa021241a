//! `kf-worker results`: what was done, to whom, when and with which end, read from the ledger beside the running worker.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::broker::{Message, Received};
use crate::support::stage::{Stage, add, delete, with};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Worker, kf_worker};

/// Runs `kf-worker results …` with a worker's configuration.
async fn results(worker: &Worker, arguments: &[&str]) -> Output {
    let output = kf_worker().arg("results").args(arguments).arg("--config").arg(worker.config()).output();
    output.await.expect("the program runs")
}

/// What it printed, where it ended well and had nothing to complain of.
async fn printed(worker: &Worker, arguments: &[&str]) -> String {
    let output = results(worker, arguments).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A worker that has brought five commands to their ends, whose events stand here in that order.
async fn busy_day(stage: &mut Stage) -> (Worker, Vec<Received>) {
    let worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, Some("ben_1@test"), Answer::Errcode(65403));
    let hired = with(with(add("=c1", "anna@test", "安娜"), "meta", json!({"employee": "4711"})), "revision", 7);
    // A person's own spelling, line break included.
    let refused = "{\"command_id\":\"c2\",\"action\":\"add\",\"kf_account\":\"ben_1@test\",\"nickname\":\"=本\",\"meta\":{\n  \"a\": 1}}";
    let hostile = json!({"command_id": "c3", "action": "add", "kf_account": "\u{202e}x\u{1b}[2Jtset@b", "nickname": "n"});
    let messages = [
        Message::json(&hired),
        Message::raw(refused),
        Message::json(&hostile),
        Message::json(&delete("c4", "ben_1@test")),
        Message::json(&delete("c5", "carl@other")),
    ];
    let mut events = Vec::new();
    for message in messages {
        stage.broker.publish(message).await;
        events.push(stage.events.next().await);
    }
    (worker, events)
}

/// What there is to see, whichever database holds it.
async fn the_trail_tells_every_outcome(mut stage: Stage) {
    let (worker, events) = busy_day(&mut stage).await;
    let lines: Vec<String> = printed(&worker, &["--json"]).await.lines().map(str::to_owned).collect();
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    assert!(data[1].contains("\n  \"a\": 1"), "the event keeps the producer's spelling: {}", data[1]);
    assert_eq!(lines, data.iter().map(|data| data.replace('\n', " ")).collect::<Vec<_>>());

    let ids = async |arguments: &[&str]| {
        let arguments = [&["--json"], arguments].concat();
        let lines = printed(&worker, &arguments).await;
        let id = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["command_id"].as_str().map(str::to_owned);
        lines.lines().map(|line| id(line).expect("an id")).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["--limit", "2"]).await, ["c4", "c5"]);
    assert_eq!(ids(&["--account", "ben_1@test"]).await, ["c2", "c4"]);
    assert_eq!(ids(&["--account", "*@test", "--limit", "2"]).await, ["c2", "c4"]);
    assert_eq!(ids(&["--status", "failed"]).await, ["c2"]);
    assert_eq!(ids(&["--action", "delete"]).await, ["c4", "c5"]);
    assert_eq!(ids(&["--since", "1h"]).await.len(), 5);
    let third = events[2].field("finished_at").as_str().expect("a time");
    assert_eq!(ids(&["--since", third]).await, ["c3", "c4", "c5"], "from then on");
    assert_eq!(ids(&["--until", third]).await, ["=c1", "c2"], "before then");

    let table = printed(&worker, &[]).await;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 6, "a head and a line for each: {table}");
    for (row, words) in rows.iter().zip([
        "finished at status effect or reason attempts command id",
        "add anna@test succeeded created 1 =c1",
        "add ben_1@test failed nickname_refused 1 c2",
        r"add \u{202e}x\u{1b}[2Jtset@b rejected invalid_kf_account 0 c3",
        "delete ben_1@test succeeded none 1 c4",
        "delete carl@other succeeded none 1 c5",
    ]) {
        assert!(words.split(' ').all(|word| row.contains(word)), "{words}: {row}");
        assert_eq!(row.rfind("  "), rows[0].rfind("  "), "the ids stand below one another: {table}");
        assert!(!row.contains('\u{1b}') && !row.contains('\u{202e}'), "nothing that a terminal would obey: {row:?}");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_a_file_tells_every_outcome() {
    the_trail_tells_every_outcome(Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_a_database_tells_every_outcome() {
    the_trail_tells_every_outcome(Stage::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spreadsheet_gets_columns_and_no_formula() {
    let mut stage = Stage::new().await;
    let (worker, events) = busy_day(&mut stage).await;
    let text = printed(&worker, &["--csv"]).await;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = "finished_at,received_at,command_id,action,kf_account,nickname,revision,status,effect,reason,errcode,attempts,detail";
    assert_eq!(reader.headers().expect("a header").iter().collect::<Vec<_>>().join(","), header);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 5);
    let cells = |row: usize, columns: std::ops::Range<usize>| columns.map(|column| rows[row][column].to_owned()).collect::<Vec<_>>();
    assert_eq!(cells(0, 2..12), ["'=c1", "add", "anna@test", "安娜", "7", "succeeded", "created", "", "", "1"]);
    assert_eq!(cells(1, 4..12), ["ben_1@test", "'=本", "", "failed", "", "nickname_refused", "65403", "1"]);
    assert_eq!(&rows[1][12], events[1].field("error")["detail"].as_str().expect("a detail"));
    assert_eq!(&rows[1][0], events[1].field("finished_at").as_str().expect("a time"));
    assert!(!text.contains("4711"), "meta is for programs alone: {text}");
    let none = results(&worker, &["--csv", "--since", "2h", "--until", "1h"]).await;
    assert_eq!(String::from_utf8_lossy(&none.stdout).trim_end(), header, "the columns are there, whatever was found");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_is_no_error_and_is_said() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    for arguments in [&["--account", "nobody@test"][..], &["--json"], &["--limit", "3"]] {
        let output = results(&worker, arguments).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no outcome in the ledger is one of these"), "{output:?}");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_meant_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (arguments, word) in [
        (&["--account", "a?@test"][..], "'*@test'"),
        (&["--since", "yesterday"], "2026-01-31"),
        (&["--since", "1h", "--until", "2h"], "nothing lies between"),
        (&["--status", "fine"], "superseded"),
        (&["--action", "remove"], "delete"),
        (&["--limit", "0"], "--limit"),
        (&["--json", "--csv"], "--csv"),
    ] {
        let output = kf_worker().arg("results").args(arguments).current_dir(folder.path()).output().await.expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(word) && output.stdout.is_empty(), "{arguments:?}: {told}");
    }
    let missing = kf_worker().arg("results").current_dir(folder.path()).output().await.expect("it runs");
    assert_eq!(missing.status.code(), Some(78), "there is no ledger: {missing:?}");
}
