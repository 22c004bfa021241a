//! The number of partitions is changed under load, by the command line.

use std::fs::File;
use std::process::Output;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{assert_done_in_order, rounds, settings};
use crate::support::broker::{Broker, Message, Received};
use crate::support::stage::{Stage, add};
use crate::support::wechat::Endpoint;
use crate::support::worker::{Worker, kf_worker};
use crate::support::{DEADLINE, eventually, rabbitmq};

/// Runs `kf-worker partitions …` with a worker's configuration.
pub async fn partitions(worker: &Worker, arguments: &[&str]) -> Output {
    let output = kf_worker().arg("--config").arg(worker.config()).arg("partitions").args(arguments).output();
    output.await.expect("the program runs")
}

/// What `kf-worker partitions show --json` says.
pub async fn show(worker: &Worker) -> Value {
    let output = partitions(worker, &["show", "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Sets the number, which must work as soon as the broker knows that whoever has just ended is gone.
pub async fn set(worker: &Worker, number: usize) {
    let output = partitions(worker, &["set", &number.to_string(), "--wait", "30s"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sets the number, which must be refused; gives the words.
async fn refused(worker: &Worker, number: usize) -> String {
    let output = partitions(worker, &["set", &number.to_string()]).await;
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until a worker holds nothing and its queues are empty.
pub async fn emptied(stage: &Stage, worker: &Worker) {
    let empty = async || {
        for queue in stage.command_queues() {
            if stage.broker.ready(&queue).await? > 0 {
                return None;
            }
        }
        (worker.metric("kf_commands_held").await? == 0.0).then_some(())
    };
    eventually("the worker has emptied its queues", empty).await;
}

/// Ends the worker once each command has an outcome and nothing is left, and gives all events: a command that was published
/// while the way of commands changed may have come twice.
pub async fn all_events(stage: &mut Stage, worker: Worker, commands: &[Value]) -> Vec<Received> {
    let mut events = Vec::new();
    for command in commands {
        events.push(stage.events.of(command["command_id"].as_str().expect("an id")).await);
    }
    emptied(stage, &worker).await;
    events.extend(stage.settle(worker).await);
    events
}

/// Publishes rounds of commands, one after the other, until it is told to stop; gives what it has published.
fn produce(prefix: &str, accounts: usize) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Vec<Value>>) {
    let (stop, mut stopped) = oneshot::channel();
    let prefix = prefix.to_owned();
    let producer = tokio::spawn(async move {
        let broker = Broker::connect(rabbitmq::url(), prefix).await;
        let mut sent = Vec::new();
        for round in 0.. {
            let commands = rounds(accounts, round..round + 1);
            // One at a time, as a producer that waits for its confirm does: there is never a moment without a publish.
            for command in commands {
                broker.publish(Message::json(&command)).await;
                sent.push(command);
            }
            if stopped.try_recv().is_ok() {
                break;
            }
        }
        sent
    });
    (stop, producer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_changes_from_one_to_four_to_two_while_commands_come() {
    let mut stage = Stage::new().await;
    let one = settings(&stage, 1);
    let mut worker = stage.worker_with(&one).await;
    let (stop, producer) = produce(&stage.broker.prefix, 30);
    for number in [4, 2] {
        let text = refused(&worker, number).await;
        assert!(text.contains("not free") && text.contains("consumers"), "the worker still runs: {text}");
        emptied(&stage, &worker).await;
        assert_eq!(worker.terminate().await, Some(0));
        set(&worker, number).await;
        let settings = settings(&stage, number);
        worker = stage.worker_with(&settings).await;
        let parked_done = async || stage.broker.ready("parked").await.is_none().then_some(());
        eventually("the parked commands are done and their queue is gone", parked_done).await;
    }
    stop.send(()).expect("the producer runs");
    let commands = producer.await.expect("the producer ends well");
    let shown = show(&worker).await;
    assert_eq!(shown["partitions"], 2);
    let events = all_events(&mut stage, worker, &commands).await;
    assert_done_in_order(&stage, &commands, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_something_is_held_the_number_stays_and_what_comes_is_parked() {
    let mut stage = Stage::new().await;
    let one = settings(&stage, 1);
    let mut worker = stage.worker_with(&one).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let text = refused(&worker, 2).await;
    let queue = stage.broker.name("commands").to_string();
    assert!(text.contains(&queue) && text.contains("run `kf-worker partitions set 2` again"), "{text}");
    stage.send(&add("c2", "ben@test", "本")).await;
    let shown = show(&worker).await;
    assert_eq!((&shown["partitions"], &shown["parking"]), (&json!(1), &json!(true)));
    assert_eq!(shown["parked"]["messages"], 1);
    assert_eq!(shown["queues"][0]["consumers"], 1);

    // Another worker of the same number neither undoes the parking nor takes what is parked.
    held.release();
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(worker.terminate().await, Some(0));
    worker.restart().await;
    stage.send(&add("c3", "carl@test", "卡尔")).await;
    let parked = async || (show(&worker).await["parked"]["messages"] == 2).then_some(());
    eventually("it is parked as well", parked).await;
    assert_eq!(stage.wechat.changes("ben@test").len() + stage.wechat.changes("carl@test").len(), 0);

    // The way back, which waits for that worker to end.
    let words = stage.path("words");
    let mut command = kf_worker();
    command.arg("--config").arg(worker.config()).args(["partitions", "set", "1", "--wait", "40s"]);
    let mut waiting = command.stderr(File::create(&words).expect("a file")).spawn().expect("the program starts");
    let told = async || std::fs::read_to_string(&words).ok()?.contains("waiting for").then_some(());
    eventually("it says that it waits", told).await;
    worker.signal("TERM").await;
    let ended = timeout(DEADLINE, waiting.wait()).await.expect("it ends in time").expect("it can be waited for");
    assert!(ended.success(), "{}", std::fs::read_to_string(&words).unwrap_or_default());
    assert_eq!(worker.exit_code().await, Some(0));
    let shown = show(&worker).await;
    assert_eq!((&shown["partitions"], &shown["parking"], &shown["parked"]["messages"]), (&json!(1), &json!(false), &json!(2)));
    worker.restart().await;
    stage.events.of("c2").await.assert_succeeded("created");
    stage.events.of("c3").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_commands_of_the_last_change_come_before_the_next_one() {
    let mut stage = Stage::new().await;
    let one = settings(&stage, 1);
    let mut worker = stage.worker_with(&one).await;
    assert!(refused(&worker, 2).await.contains("not free"));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    assert_eq!(worker.terminate().await, Some(0));
    set(&worker, 2).await;
    assert!(refused(&worker, 3).await.contains("parked by the last change"));
    let settings = settings(&stage, 2);
    worker = stage.worker_with(&settings).await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
