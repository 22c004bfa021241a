//! What the worker declares at the broker, and what it says where it finds something else.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use crate::support::broker::Broker;
use crate::support::ports::free_port;
use crate::support::proxy::Proxy;
use crate::support::stage::{Stage, add};
use crate::support::wechat::Endpoint;

fn text(value: impl Into<String>) -> AMQPValue {
    AMQPValue::LongString(value.into().into())
}

/// A declaration that the broker takes only where the queue is exactly this already, or isn't there.
async fn declare_queue(broker: &Broker, name: &str, arguments: &[(&str, AMQPValue)]) -> Result<(), lapin::Error> {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), value.clone());
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    broker.channel().await.queue_declare(broker.name(name), durable, table).await.map(|_| ())
}

async fn declare_exchange(broker: &Broker, name: &str, kind: ExchangeKind) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    broker.channel().await.exchange_declare(broker.name(name), kind, durable, FieldTable::default()).await
}

/// The arguments of every queue.
fn common() -> [(&'static str, AMQPValue); 2] {
    [("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongInt(1_000_000))]
}

fn at_least_once() -> [(&'static str, AMQPValue); 2] {
    [("x-dead-letter-strategy", text("at-least-once")), ("x-overflow", text("reject-publish"))]
}

/// The arguments of a queue of commands.
fn commands(broker: &Broker) -> Vec<(&'static str, AMQPValue)> {
    let own = [("x-single-active-consumer", AMQPValue::Boolean(true)), ("x-dead-letter-exchange", text(""))];
    let key = [("x-dead-letter-routing-key", text(broker.name("dead").to_string()))];
    [&common()[..], &at_least_once(), &own, &key].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_what_the_contract_says() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("amqp.partitions", 2);
    let mut worker = stage.worker_with(&settings).await;
    let broker = &stage.broker;
    for queue in ["commands.0", "commands.1"] {
        assert_eq!(broker.ready(queue).await, Some(0), "{queue} is declared");
        declare_queue(broker, queue, &commands(broker)).await.unwrap_or_else(|error| panic!("{queue}: {error}"));
    }
    assert_eq!((broker.ready("commands").await, broker.ready("commands.2").await), (None, None), "and no other");
    let hash = ExchangeKind::Custom("x-consistent-hash".to_owned());
    declare_exchange(broker, "partitions", hash).await.expect("the exchange that spreads commands");
    assert_eq!(worker.terminate().await, Some(0));
    settings.set("amqp.topology", "check");
    let mut worker = stage.worker_with(&settings).await;
    assert_eq!(worker.terminate().await, Some(0));
    let channel = stage.broker.channel().await;
    channel.exchange_delete(stage.broker.name("partitions"), ExchangeDeleteOptions::default()).await.expect("it was there");
    let mut worker = stage.spawn(&settings);
    assert_eq!(worker.exit_code().await, Some(78));
    let log = worker.log();
    assert!(log.contains(&stage.broker.name("partitions").to_string()), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_and_queues_are_what_the_contract_says() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.defer", json!(["7s", "8m"]));
    let worker = stage.worker_with(&settings).await;
    let broker = &stage.broker;
    for queue in ["commands", "dead", "deferred.7s", "deferred.8m"] {
        assert_eq!(broker.ready(queue).await, Some(0), "{queue} is declared");
    }
    for (exchange, kind) in [
        ("commands", ExchangeKind::Topic),
        ("events", ExchangeKind::Topic),
        ("deferred.7s", ExchangeKind::Fanout),
        ("deferred.8m", ExchangeKind::Fanout),
    ] {
        declare_exchange(broker, exchange, kind).await.unwrap_or_else(|error| panic!("{exchange}: {error}"));
    }

    declare_queue(broker, "commands", &commands(broker)).await.expect("the queue of commands");
    declare_queue(broker, "dead", &common()).await.expect("the queue of dead letters");
    let back = [("x-dead-letter-exchange", text(broker.name("commands").to_string()))];
    for (name, delay) in [("deferred.7s", 7_000), ("deferred.8m", 480_000)] {
        let ttl = [("x-message-ttl", AMQPValue::LongInt(delay))];
        let deferred = [&common()[..], &at_least_once(), &back, &ttl].concat();
        declare_queue(broker, name, &deferred).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_with_a_ledger_file_of_its_own_is_refused() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut settings = stage.settings();
    settings.set("ledger.url", format!("sqlite:{}", stage.path("other.db").display()));
    let mut second = stage.spawn_second(&settings);
    assert_eq!(second.exit_code().await, Some(78));
    let log = second.log();
    assert!(log.contains("SQLite") && log.contains(&stage.broker.name("sqlite-owner").to_string()), "{log}");
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_on_the_same_ledger_file_is_refused() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut settings = stage.settings();
    // Another prefix, so that it is the file that refuses it.
    let prefix = format!("{}x", stage.broker.prefix);
    settings.set("amqp.prefix", prefix);
    let mut second = stage.spawn_second(&settings);
    assert_eq!(second.exit_code().await, Some(78));
    let log = second.log();
    assert!(log.contains("ledger.db"), "{log}");
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_is_waited_for() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    proxy.fall_silent();
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url());
    let mut worker = stage.spawn(&settings);
    let reason = worker.not_ready().await;
    assert!(!reason.trim().is_empty(), "it says why");
    assert!(worker.is_running());
    proxy.cut();
    worker.ready().await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_connections_is_waited_for() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port()));
    let mut worker = stage.spawn(&settings);
    worker.not_ready().await;
    assert!(worker.is_running());
    assert_eq!(worker.get("/livez").await.map(|(status, _)| status), Some(200), "alive all the same");
    assert_eq!(worker.terminate().await, Some(0), "and it can be stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_made_again() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url());
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    proxy.cut();
    worker.not_ready().await;
    held.release();
    worker.ready().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add], "the copy that came again finds the outcome");
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    for again in stage.settle(worker).await {
        event.assert_repeated_by(&again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_the_topology_names_what_is_missing() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("amqp.topology", "check");
    let mut worker = stage.spawn(&settings);
    assert_ne!(worker.exit_code().await, Some(0));
    let log = worker.log();
    assert!(log.contains(&stage.broker.name("commands").to_string()), "{log}");
    assert_eq!(stage.broker.ready("commands").await, None, "and declares nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_a_topology_that_is_there_is_enough_to_work() {
    let mut stage = Stage::new().await;
    let mut first = stage.worker().await;
    assert_eq!(first.terminate().await, Some(0));
    for topology in ["check", "none"] {
        let mut settings = stage.settings();
        settings.set("amqp.topology", topology);
        let mut worker = stage.worker_with(&settings).await;
        stage.outcome(&add(topology, "anna@test", "安娜")).await;
        assert_eq!(worker.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_kind_is_named() {
    let mut stage = Stage::new().await;
    declare_queue(&stage.broker, "commands", &[]).await.expect("a classic queue in the worker's place");
    let settings = stage.settings();
    let mut worker = stage.spawn(&settings);
    assert_ne!(worker.exit_code().await, Some(0));
    let log = worker.log();
    assert!(log.contains(&stage.broker.name("commands").to_string()), "{log}");
    declare_queue(&stage.broker, "commands", &[]).await.expect("the foreign queue is left as it was");
}
