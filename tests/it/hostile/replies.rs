//! Replies to names that only the broker can read: a real one arrives, and one that was made up costs the worker no connection it needs.

use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::Scene;
use crate::support::DEADLINE;
use crate::support::raw_amqp::Properties;
use crate::support::stage::{add, delete};

/// Names that no broker has given: none at all, no base64, no term, another term, a process of a node that is not there.
const MADE_UP: [&str; 5] = [
    "amq.rabbitmq.reply-to.",
    "amq.rabbitmq.reply-to.!!!.???",
    "amq.rabbitmq.reply-to.Zm9v.YmFy",
    "amq.rabbitmq.reply-to.g2EB.YmFy",
    "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAyNzc5NjQyMAAAC1oAAAAAZo4bIw==.+Uvn1EmAp0ZA+oQx2yoQFA==",
];

/// Orders an account as a producer that waits on its own channel, and gives what comes there.
async fn reply_to(scene: &Scene, command: serde_json::Value) -> serde_json::Value {
    let channel = scene.stage.broker.channel().await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume("amq.rabbitmq.reply-to".into(), "".into(), options, FieldTable::default()).await;
    let mut consumer = consumer.expect("the broker has direct replies");
    let properties = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into());
    let (exchange, body) = (scene.stage.broker.name("commands"), command.to_string());
    let sent = channel.basic_publish(exchange, "anna@test".into(), BasicPublishOptions::default(), body.as_bytes(), properties).await;
    sent.expect("the command is sent");
    let reply = timeout(DEADLINE, consumer.next()).await.expect("a reply comes in time").expect("the channel lives");
    serde_json::from_slice(&reply.expect("the channel lives").data).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_reply_arrives_and_one_to_a_name_that_was_made_up_costs_no_connection() {
    let mut scene = Scene::new().await;
    assert_eq!(reply_to(&scene, add("c1", "anna@test", "安娜")).await["data"]["effect"], "created");
    scene.stage.events.of("c1").await.assert_succeeded("created");
    for (number, name) in MADE_UP.into_iter().enumerate() {
        let command_id = format!("made-up-{number}");
        scene.publish(&Properties::default().reply_to(name.as_bytes()), &delete(&command_id, "nobody@test").to_string()).await;
        scene.stage.events.of(&command_id).await.assert_succeeded("none");
    }
    // RabbitMQ 3 and 4.0 close the connection over some of them. The next reply waits behind them.
    assert_eq!(reply_to(&scene, delete("c2", "anna@test")).await["data"]["effect"], "deleted");
    scene.stage.events.of("c2").await.assert_succeeded("deleted");
    scene.end().await;
}
