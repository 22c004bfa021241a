//! Messages that are right in themselves and laid as snares: what they make the broker do with our rights, and where replies are to go.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};

use crate::support::broker::Message;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// The message with a header that has the broker put copies into further queues.
fn with_copies(mut message: Message, header: &str, queue: &str) -> Message {
    let mut headers = message.properties.headers().clone().unwrap_or_default();
    headers.insert(header.into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongString(queue.into())])));
    message.properties = message.properties.with_headers(headers);
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_copies_of_dead_letters_sent_where_they_like() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut dead = stage.broker.dead().await;
    let mut others = stage.broker.replies().await;
    let commands = stage.broker.name("commands").to_string();
    // Each would come back to the worker, or into a queue that its sender can't write to, as often as it is dead-lettered.
    for (header, queue) in [("CC", commands.as_str()), ("BCC", commands.as_str()), ("CC", others.queue.clone().as_str())] {
        stage.broker.publish(with_copies(Message::raw("no command"), header, queue)).await;
        let letter = dead.next().await;
        assert_eq!(letter.headers()["kf-reason"], "not_a_json_object");
        let headers = letter.properties.headers().clone().unwrap_or_default();
        assert!(!headers.contains_key("CC") && !headers.contains_key("BCC"), "{headers:?}");
    }
    // A failed command and its replay, likewise.
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(65403));
    stage.broker.publish(with_copies(Message::json(&add("c1", "anna@test", "安娜")), "CC", &commands)).await;
    stage.events.of("c1").await.assert_ended("failed", "nickname_refused");
    stage.outcome(&add("c2", "bob@test", "Bob")).await.assert_succeeded("created");
    assert_eq!(others.rest().await.len(), 0);
    assert_eq!(dead.rest().await.len(), 1, "that of the failed one");
    assert_eq!(worker.metric("kf_commands_received_total").await, Some(5.0), "each came once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_queue_that_refuses_holds_up_nobody() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let channel = stage.broker.channel().await;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let name = format!("{}-replies-full", stage.broker.prefix);
    channel.queue_declare(name.as_str().into(), QueueDeclareOptions::default(), full).await.expect("the queue is declared");
    for (command_id, account) in [("c1", "anna@test"), ("c2", "bob@test"), ("c3", "cleo@test")] {
        stage.broker.publish(Message::json(&add(command_id, account, "客服")).reply_to(&name)).await;
        stage.events.of(command_id).await.assert_succeeded("created");
    }
    stage.outcome(&delete("c4", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(worker.logged("trying again"), 0, "the session went on");
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
