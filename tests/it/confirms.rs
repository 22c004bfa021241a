//! Many events on their way at once, and many acknowledgements: each is taken for what it is, in whatever order they end.

use std::collections::BTreeSet;
use std::sync::Arc;

use kf_worker::broker::{BrokerUrl, Deliveries, Delivery, PublishError, Session, Settings, Topology};
use kf_worker::command::{Decoded, decode};
use kf_worker::event::{History, Identity, conclude, now};
use kf_worker::metrics::Metrics;
use kf_worker::outcome::{Effect, Outcome};
use kf_worker::tls::Tls;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::Barrier;

use crate::support::broker::{Broker, Message};
use crate::support::rabbitmq;
use crate::support::stage::{add, delete};

/// So many that several are on their way on each channel.
const COMMANDS: usize = 1_000;

async fn open(prefix: &str) -> (Session, Deliveries) {
    let url = BrokerUrl::parse(rabbitmq::url()).expect("a URL");
    let (prefix, tls, window) = (prefix.to_owned(), Tls::default(), 2 * COMMANDS as u16);
    let settings = Settings { url, tls, prefix, topology: Topology::Declare, partitions: 1, alone: false, window, defer: Vec::new() };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    Session::open(&settings, &metrics, &Arc::default()).await.expect("a session")
}

/// A broker with a session at it, and so many commands taken: adds and deletes in turn.
async fn taken(commands: usize) -> (Broker, Session, Vec<Delivery>) {
    let prefix = format!("kft-{:08x}", rand::random::<u32>());
    let broker = Broker::connect(rabbitmq::url(), prefix.clone()).await;
    let (session, mut deliveries) = open(&prefix).await;
    let command = |number: usize| match number % 2 {
        0 => add(&format!("c{number}"), "a@test", "客服"),
        _ => delete(&format!("c{number}"), "a@test"),
    };
    broker.publish_all((0..commands).map(|number| Message::json(&command(number)))).await;
    let mut taken = Vec::new();
    while taken.len() < commands {
        taken.extend(deliveries.next(commands).await.expect("the session goes on"));
    }
    (broker, session, taken)
}

/// A queue for some events; where it is full, it refuses them all.
async fn event_queue(broker: &Broker, routing_key: &str, full: bool) {
    let (channel, name) = (broker.channel().await, broker.name(routing_key));
    let mut arguments = FieldTable::default();
    if full {
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    }
    channel.queue_declare(name.clone(), QueueDeclareOptions::default(), arguments).await.expect("a queue");
    let (exchange, none) = (broker.name("events"), FieldTable::default());
    channel.queue_bind(name, exchange, routing_key.into(), QueueBindOptions::default(), none).await.expect("it is bound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn of_many_events_on_their_way_at_once_each_is_known_by_its_own_confirm() {
    let (broker, session, taken) = taken(COMMANDS).await;
    event_queue(&broker, "add.*", false).await;
    event_queue(&broker, "delete.*", true).await;
    let together = Arc::new(Barrier::new(COMMANDS));
    let publishing = taken.into_iter().map(|delivery| {
        let together = Arc::clone(&together);
        tokio::spawn(async move {
            let Decoded::Command(command) = decode(&delivery.message) else { panic!("it is a command") };
            let history = History { attempts: 1, received_at: now(), finished_at: now() };
            let outcome = Outcome::Succeeded(if command.action.as_str() == "add" { Effect::Created } else { Effect::Deleted }.into());
            let event = conclude(&command.given, Identity::Generation(0), &outcome, history).event().expect("an event");
            together.wait().await;
            (command.action.as_str(), delivery.publish(&event).await)
        })
    });
    for published in futures_util::future::join_all(publishing).await {
        match published.expect("nobody panics") {
            ("add", Ok(())) | ("delete", Err(PublishError::Refused)) => {}
            (action, published) => panic!("an event of {action}: {published:?}"),
        }
    }
    session.close().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_nothing_else() {
    let (broker, session, taken) = taken(COMMANDS).await;
    // In an order in which no two neighbours follow each other, and not the first, the last, and some in the middle.
    let kept = |number: usize| number == 0 || number == COMMANDS - 1 || number.is_multiple_of(97);
    let mut taken: Vec<_> = taken.into_iter().enumerate().collect();
    taken.sort_by_key(|(number, _)| (number * 389) % COMMANDS);
    let mut expected = BTreeSet::new();
    let mut unfinished = Vec::new();
    for (number, delivery) in taken {
        if kept(number) {
            expected.insert(format!("c{number}"));
            unfinished.push(delivery);
        } else {
            delivery.acknowledge();
        }
        if number.is_multiple_of(10) {
            tokio::task::yield_now().await;
        }
    }
    session.close().await;
    drop(unfinished);
    let (session, mut deliveries) = open(&broker.prefix).await;
    let mut again = BTreeSet::new();
    while again.len() < expected.len() {
        for delivery in deliveries.next(COMMANDS).await.expect("the session goes on") {
            let Decoded::Command(command) = decode(&delivery.message) else { panic!("it is a command") };
            assert!(expected.contains(&command.given.command_id), "{} was acknowledged", command.given.command_id);
            again.insert(command.given.command_id);
            delivery.acknowledge();
        }
    }
    session.close().await;
    assert_eq!(broker.ready("commands").await, Some(0));
}
