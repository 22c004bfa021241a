//! What WeChat says goes on as it was said to whoever reads data, and never as a line, an order to a terminal or a formula.

use serde_json::Value;

use super::flood::assert_shows_nothing_to_obey;
use crate::support::broker::Received;
use crate::support::stage::{Stage, add};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Worker, kf_worker};

/// Each begins with what another reader obeys.
const WORDS: [&str; 6] = [
    "no\r\n2026-01-01T00:00:00Z ERROR kf_worker: forged line",
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m",
    "\u{202e}tset@nab\u{2066}\u{200b}\u{2028}",
    "=HYPERLINK(\"http://evil.example\")",
    "\"}\n{\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"}}",
    "\u{0}<script>alert(1)</script> rid: 1-2-3",
];

/// Each of the words comes with an errcode that fails a command, and one that pauses the Official Account.
async fn told(stage: &mut Stage) -> Vec<Received> {
    let said = |errcode: i64, words: &str| Answer::Body(serde_json::json!({ "errcode": errcode, "errmsg": words }).to_string());
    let mut events = Vec::new();
    for (number, words) in WORDS.iter().enumerate() {
        let account = format!("w{number}@test");
        stage.wechat.next(Endpoint::Add, Some(&account), said(65_403, words));
        events.push(stage.outcome(&add(&format!("c{number}"), &account, "好")).await);
    }
    for (number, words) in WORDS.iter().enumerate() {
        stage.wechat.next(Endpoint::Add, Some(&format!("p{number}@other")), said(48_001, words));
        stage.outcome(&add(&format!("p{number}"), &format!("p{number}@other"), "好")).await.assert_succeeded("created");
    }
    events
}

/// A worker that writes its log so, and looks again soon where an Official Account is paused.
async fn worker(stage: &mut Stage, format: &str) -> Worker {
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "20ms").env("KF_LOG_FORMAT", format).env("RUST_LOG", "kf_worker=debug");
    stage.worker_with(&settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wechat_says_stands_in_the_event_as_it_was_said_and_makes_no_line_of_text() {
    let mut stage = Stage::new().await;
    let worker = worker(&mut stage, "text").await;
    for (event, words) in told(&mut stage).await.iter().zip(WORDS) {
        event.assert_ended("failed", "nickname_refused");
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(data["error"]["errmsg"], words);
    }
    assert_shows_nothing_to_obey(&worker.log());
    assert!(worker.logged("forged") >= 2 && worker.logged("forged line") == worker.logged("kf_worker: forged line"), "they were logged");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wechat_says_makes_no_line_of_json() {
    let mut stage = Stage::new().await;
    let worker = worker(&mut stage, "json").await;
    told(&mut stage).await;
    let log = worker.log();
    let messages: Vec<String> = log
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            line["fields"]["message"].as_str().expect("each line has a message").to_owned()
        })
        .collect();
    assert!(log.contains("forged") && !messages.iter().any(|message| message.contains("forged")), "{messages:?}");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_terminal_obeys_what_wechat_says_to_the_program() {
    let mut stage = Stage::with_official_accounts(&["test"]).await;
    let worker = stage.worker().await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    let asked = async |arguments: &[&str]| {
        let output = kf_worker().arg("--config").arg(worker.config()).args(arguments).output().await.expect("the program runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    for words in WORDS {
        for arguments in [&["drift"][..], &["check", "--connect"]] {
            let answer = serde_json::json!({ "errcode": 48_001, "errmsg": words }).to_string();
            stage.wechat.next(Endpoint::List, Some("test"), Answer::Body(answer));
            let shown = asked(arguments).await;
            assert!(shown.contains("48001"), "{arguments:?}: {shown}");
            assert_shows_nothing_to_obey(&shown);
        }
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}
