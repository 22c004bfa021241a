//! Commands that are spread over several queues: taken by one worker, shared among several, and spread anew.

mod change;
mod interrupted;
mod sharing;

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::support::broker::Received;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, account, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::Settings;

/// The settings of a worker with so many partitions, to whom nothing is slow: on a busy machine it would put commands off,
/// and newer ones would supersede them.
fn settings(stage: &Stage, partitions: usize) -> Settings {
    let mut settings = stage.settings();
    settings.set("amqp.partitions", partitions).set("worker.slow_after", "5m").set("worker.window_percent", 100);
    settings
}

/// For each of so many accounts an add and a delete in turn, the accounts mingled.
fn rounds(accounts: usize, rounds: std::ops::Range<usize>) -> Vec<Value> {
    let command = |round: usize, number: usize| {
        let (id, account) = (format!("c{round}-{number}"), format!("a{number}@test"));
        if round.is_multiple_of(2) { add(&id, &account, "客服") } else { delete(&id, &account) }
    };
    rounds.flat_map(|round| (0..accounts).map(move |number| command(round, number))).collect()
}

/// Each command has had one outcome and one call, those of an account in the order in which they were sent.
fn assert_done_in_order(stage: &Stage, commands: &[Value], events: impl IntoIterator<Item = Received>) {
    let mut outcomes: HashMap<String, Received> = HashMap::new();
    for event in events {
        match outcomes.get(event.command_id()) {
            Some(first) => first.assert_repeated_by(&event),
            None => drop(outcomes.insert(event.command_id().to_owned(), event)),
        }
    }
    let mut sent: HashMap<&str, Vec<Endpoint>> = HashMap::new();
    for command in commands {
        let event = &outcomes[command["command_id"].as_str().expect("an id")];
        assert_eq!((event.status(), event.attempts()), ("succeeded", 1), "{}", event.data);
        let endpoint = if command["action"] == "add" { Endpoint::Add } else { Endpoint::Delete };
        sent.entry(account(command)).or_default().push(endpoint);
    }
    assert_eq!(outcomes.len(), commands.len(), "an outcome for each command and no other");
    for (account, order) in sent {
        assert_eq!(stage.wechat.changes(account), order, "{account}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_takes_all_partitions_and_keeps_the_order_of_each_account() {
    let mut stage = Stage::new().await;
    let settings = settings(&stage, 4);
    let worker = stage.worker_with(&settings).await;
    let commands = rounds(80, 0..6);
    stage.send_all(&commands).await;
    let events = stage.events.collect(commands.len()).await;
    assert_done_in_order(&stage, &commands, events);
    assert_eq!(worker.metric("kf_partitions").await, Some(4.0));
    for queue in stage.command_queues() {
        let declared = stage.broker.ready(&queue).await;
        assert_eq!(declared, Some(0), "{queue}");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_spread_over_all_partitions_by_account() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker_with(&settings(&stage, 4)).await;
    assert_eq!(worker.terminate().await, Some(0));
    let commands = rounds(60, 0..2);
    stage.send_all(&commands).await;
    let mut in_all = 0;
    for queue in stage.command_queues() {
        let count = stage.broker.ready(&queue).await.expect("it exists");
        assert!(count > 0 && count % 2 == 0, "both commands of an account are in one partition: {queue} has {count}");
        in_all += count;
    }
    assert_eq!(in_all as usize, commands.len());
    worker.restart().await;
    let events = stage.events.collect(commands.len()).await;
    assert_done_in_order(&stage, &commands, events);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_comes_back_to_its_partition() {
    let mut stage = Stage::new().await;
    let mut settings = settings(&stage, 3);
    settings.set("retry.max_in_process", "100ms").set("retry.initial", "50ms");
    let worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(-1));
    let commands = rounds(6, 0..1);
    stage.send_all(&commands).await;
    for command in &commands {
        let id = command["command_id"].as_str().expect("an id");
        stage.ledger().until(id, "waiting").await;
    }
    let put_off = async || (worker.metric("kf_put_off_total{reason=\"system_busy\"}").await? >= 6.0).then_some(());
    crate::support::eventually("all are put off", put_off).await;
    stage.wechat.recover();
    for (_, event) in stage.settle_each(worker, &commands).await {
        event.assert_succeeded("created");
    }
}

/// Starts a worker that must refuse, and gives what it said.
async fn refusal(stage: &mut Stage, settings: &Settings) -> String {
    let mut worker = stage.spawn_second(settings);
    assert_eq!(worker.exit_code().await, Some(78));
    worker.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_than_the_queues_are_made_for_is_refused() {
    for (there, told) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        let mut stage = Stage::new().await;
        let right = settings(&stage, there);
        let mut worker = stage.worker_with(&right).await;
        assert_eq!(worker.terminate().await, Some(0));
        for topology in ["declare", "check"] {
            let mut wrong = settings(&stage, told);
            wrong.set("amqp.topology", topology);
            let log = refusal(&mut stage, &wrong).await;
            assert!(log.contains(&format!("kf-worker partitions set {told}")), "{there} are there, {told} were told: {log}");
        }
        let stray = if told == 1 { "commands".to_owned() } else { format!("commands.{}", told - 1) };
        assert!(there >= told && told > 1 || stage.broker.ready(&stray).await.is_none(), "nothing was declared");
        let worker = stage.worker_with(&right).await;
        assert_eq!(stage.settle(worker).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_first_declaration_is_taken_up_again() {
    let mut stage = Stage::new().await;
    let settings = settings(&stage, 4);
    let mut worker = stage.worker_with(&settings).await;
    assert_eq!(worker.terminate().await, Some(0));
    // As it is when the last queue and the exchange, which comes after it, were not declared yet.
    let channel = stage.broker.channel().await;
    channel.queue_delete(stage.broker.name("commands.3"), Default::default()).await.expect("it was there");
    channel.exchange_delete(stage.broker.name("partitions"), Default::default()).await.expect("it was there");
    worker.restart().await;
    let commands = rounds(40, 0..1);
    stage.send_all(&commands).await;
    let events = stage.events.collect(commands.len()).await;
    assert_done_in_order(&stage, &commands, events);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_plugin_several_partitions_are_refused_with_its_name() {
    let node = OwnNode::start();
    // What disabling the plugin does to the broker's list of exchange types.
    node.control(&["eval", "rabbit_registry:unregister(exchange, <<\"x-consistent-hash\">>)."]);
    let mut stage = Stage::at(node.url()).await;
    let several = settings(&stage, 2);
    let log = refusal(&mut stage, &several).await;
    assert!(log.contains("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"), "{log}");

    let one = settings(&stage, 1);
    let mut other = one.clone();
    other.set("amqp.prefix", format!("{}x", stage.broker.prefix)).set("retry.defer", json!(["1s"]));
    let mut worker = stage.spawn_second(&other);
    worker.ready().await;
    let output = change::partitions(&worker, &["set", "2"]).await;
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("rabbitmq-plugins enable"), "{text}");
    let shown = change::show(&worker).await;
    assert_eq!((&shown["partitions"], &shown["parking"]), (&json!(1), &json!(false)), "nothing was begun");
    assert_eq!(worker.terminate().await, Some(0));
}
