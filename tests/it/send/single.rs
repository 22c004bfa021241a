//! One command from the command line.

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{ended, send, sent};
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add};
use crate::support::wechat::{Answer, Endpoint};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_sent_and_its_result_shown_and_a_repeat_is_told_as_such() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let arguments = ["add", "anna@test", "安娜", "--id", "hire-1", "--revision", "3", "--meta", r#"{"n": 1.0}"#, "--wait", "--json"];
    let first = sent(&stage, &arguments).await.with(0).json();
    assert_eq!((&first[0]["status"], &first[0]["effect"], &first[0]["repeat"]), (&"succeeded".into(), &"created".into(), &false.into()));
    assert_eq!((&first[0]["revision"], first[0]["meta"].to_string()), (&3.into(), r#"{"n":1.0}"#.to_owned()));
    assert!(first[0].get("line").is_none(), "a single command stands in no line");
    let event = stage.events.of("hire-1").await;
    assert_eq!(first[0]["finished_at"], *event.field("finished_at"), "the reply is the event");

    let again = sent(&stage, &arguments).await.with(1).says(&["--resume", "not carried out again"]).json();
    assert_eq!((&again[0]["repeat"], &again[0]["finished_at"]), (&true.into(), &first[0]["finished_at"]));
    let words = sent(&stage, &[&arguments[..10], &["--resume"]].concat()).await.with(0);
    assert!(words.stdout().contains("repeat, not carried out"), "{}", words.stdout());
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    for _ in 0..2 {
        event.assert_repeated_by(&stage.events.of("hire-1").await);
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_succeed_is_explained_and_ends_with_one() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.publisher("guest", &["add"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(65403));
    let failed = sent(&stage, &["add", "anna@test", "安娜", "--id", "c1", "--wait"]).await.with(1);
    assert!(failed.stdout().contains("add anna@test: failed (nickname_refused): "), "{}", failed.stdout());
    let reused = sent(&stage, &["add", "anna@test", "安妮", "--id", "c1", "--wait"]).await.with(1);
    assert!(reused.stdout().contains("rejected (command_id_reused)"), "{}", reused.stdout());
    // It goes by the user that the broker has validated, and nobody but the sender hears of it.
    let refused = sent(&stage, &["delete", "anna@test", "--id", "c2", "--wait"]).await.with(1);
    assert!(refused.stdout().contains("rejected (not_authorised)"), "{}", refused.stdout());
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    assert_eq!(stage.settle(worker).await.len(), 2, "the failed and the reused one");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_the_id_is_printed_and_the_command_is_carried_out() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let sent = sent(&stage, &["add", "anna@test", "安娜"]).await.with(0);
    stage.events.of(sent.stdout().trim()).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_may_end_before_the_command_does_and_loses_nothing() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    assert_eq!(worker.terminate().await, Some(0));
    // The command is in its queue, and nobody takes it.
    let arguments = ["add", "anna@test", "安娜", "--id", "c1", "--wait", "--timeout", "300ms"];
    sent(&stage, &arguments).await.with(1).says(&["the time is up", "kf-worker result 'c1'"]);

    let mut waiting = send(&stage.settings(), &["add", "bob@test", "Bob", "--id", "c2", "--wait"]);
    let mut child = waiting.stderr(std::process::Stdio::piped()).spawn().expect("the program runs");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let line = said.next_line().await.expect("it says something").expect("a line");
    assert!(line.contains("no result yet; the command is safe in its queue"), "{line}");
    let pid = child.id().expect("it is running").to_string();
    let interrupted = tokio::process::Command::new("sh").args(["-c", "kill -s INT \"$0\"", &pid]).status().await;
    assert!(interrupted.expect("a shell").success());
    assert_eq!(child.wait().await.expect("it ends").code(), Some(1));

    worker.restart().await;
    for command_id in ["c1", "c2"] {
        stage.events.of(command_id).await.assert_succeeded("created");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_sent_says_what_to_do() {
    let stage = Stage::new().await;
    let arguments = ["add", "anna@test", "安娜", "--id", "c1"];
    // No worker has been here yet.
    sent(&stage, &arguments).await.with(78).says(&["NOT_FOUND", "start `kf-worker run` once", "--id 'c1'"]);
    // Somebody has declared the exchange, and no queue for it.
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (channel, exchange) = (stage.broker.channel().await, stage.broker.name("commands"));
    let declared = channel.exchange_declare(exchange, ExchangeKind::Topic, durable, FieldTable::default());
    declared.await.expect("the exchange is declared");
    sent(&stage, &arguments).await.with(69).says(&["no queue takes commands yet: start `kf-worker run` once"]);
    let mut nobody = send(&stage.settings(), &arguments);
    nobody.env("KF_AMQP__URL", "amqp://guest:very-secret@127.0.0.1:1/%2f");
    let unreachable = ended(nobody).await.with(69).says(&["can't be reached"]);
    assert!(!unreachable.stderr().contains("very-secret"));
    let mut mistyped = send(&stage.settings(), &arguments);
    mistyped.env("KF_AMQP__PREFX", "kf");
    ended(mistyped).await.with(78).says(&["KF_AMQP__PREFX", "did you mean `amqp.prefix`"]);
    for (wrong, word) in [
        (vec!["add", "anna", "安娜"], "kf_account"),
        (vec!["add", "anna@test", "a nickname that is too long"], "16 characters"),
        (vec!["add", "anna@test", "安娜", "--meta", "[]"], "`meta` is not an object"),
        (vec!["add", "anna@test", "安娜", "--meta", "{"], "is not JSON"),
        (vec!["delete", "anna@test", "安娜"], "unexpected argument"),
        (vec!["add", "anna@test"], "<NICKNAME>"),
        (vec!["--file", "hires.xlsx"], ".csv or .jsonl"),
        (vec![], "--file"),
    ] {
        sent(&stage, &wrong).await.with(2).says(&[word]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_needs_no_broker() {
    let stage = Stage::new().await;
    let mut dry = send(&stage.settings(), &["add", "anna@test", "安娜", "--id", "c1", "--dry-run", "--json"]);
    dry.env("KF_AMQP__URL", "amqp://127.0.0.1:1/%2f");
    assert_eq!(ended(dry).await.with(0).json()[0]["command_id"], "c1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_while_a_result_is_awaited_is_waited_for() {
    let mut node = OwnNode::start();
    let mut stage = Stage::at(node.url()).await;
    let worker = stage.worker().await;
    let queues: Vec<String> = ["commands", "dead", "deferred.1s", "deferred.2s"].map(|name| stage.broker.name(name).to_string()).into();
    node.saved(&queues).await;
    stage.broker.keep_events().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    let waiting = tokio::spawn(ended(send(&stage.settings(), &["add", "anna@test", "安娜", "--id", "c1", "--wait", "--json"])));
    held.arrived().await;
    node.kill();
    held.release();
    node.start_again();
    stage.reconnect().await;
    let results = waiting.await.expect("it ends").with(0).says(&["connecting again"]).json();
    assert_eq!((results.len(), &results[0]["status"]), (1, &"succeeded".into()));
    let told = stage.events.of("c1").await;
    told.assert_repeated_by(&stage.outcome(&add("c1", "anna@test", "安娜")).await);
    for again in stage.settle(worker).await {
        told.assert_repeated_by(&again);
    }
}
