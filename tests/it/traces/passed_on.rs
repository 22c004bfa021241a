//! Where no spans are exported, a producer's trace is passed on as it came.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use serde_json::json;

use super::{PRODUCER, traced};
use crate::support::broker::{Message, Received};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// The headers by which a trace goes on.
fn trace_of(headers: &BTreeMap<String, String>) -> [Option<&str>; 2] {
    ["traceparent", "tracestate"].map(|name| headers.get(name).map(String::as_str))
}

fn trace_of_event(event: &Received) -> [Option<String>; 2] {
    trace_of(&event.headers()).map(|value| value.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_unchanged_into_every_call_the_event_and_the_reply() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut replies = stage.broker.replies().await;
    let state = "vendor=00f067aa0ba902b7,other=t61rcWkgMzE";
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    let command = traced(&add("c1", "anna@test", "安娜")).header("tracestate", state).reply_to(replies.queue.as_str());
    stage.broker.publish(command).await;
    let expected = [Some(PRODUCER.to_owned()), Some(state.to_owned())];
    assert_eq!(trace_of_event(&stage.events.of("c1").await), expected);
    assert_eq!(trace_of_event(&replies.next().await), expected);
    let calls = stage.wechat.calls(Endpoint::Add);
    assert_eq!(calls.len(), 2, "the first one failed");
    for call in calls {
        assert_eq!(trace_of(&call.headers), [Some(PRODUCER), None], "the state stays in the house");
    }
    // The command that the token was fetched for.
    assert_eq!(trace_of(&stage.wechat.calls(Endpoint::StableToken)[0].headers), [Some(PRODUCER), None]);

    stage.broker.publish(traced(&delete("c2", "anna@test"))).await;
    assert_eq!(trace_of_event(&stage.events.of("c2").await), [Some(PRODUCER.to_owned()), None]);
    let deletes = stage.wechat.calls(Endpoint::Delete);
    assert_eq!(trace_of(&deletes[0].headers), [Some(PRODUCER), None]);

    let untraced = stage.outcome(&add("c3", "anna@test", "安娜")).await;
    assert!(untraced.property(BasicProperties::message_id).is_some() && untraced.properties.headers().is_none());
    assert_eq!(trace_of(&stage.wechat.calls(Endpoint::Add)[2].headers), [None, None], "one command's trace is no other's");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_events_trace_goes_on_and_one_that_cannot_be_read_is_ignored() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let structured = json!({"specversion": "1.0", "id": "c1", "type": "kf.add", "source": "hr", "traceparent": PRODUCER,
        "data": {"kf_account": "anna@test", "nickname": "安娜"}});
    let binary = ["specversion=1.0", "id=c2", "type=kf.delete", "source=hr"].map(|pair| pair.split_once('=').expect("a pair"));
    let binary = binary
        .into_iter()
        .fold(Message::raw(r#"{"kf_account":"ben@test"}"#), |message, (name, value)| message.header(&format!("cloudEvents:{name}"), value));
    stage.broker.publish(Message::raw(structured.to_string()).content_type("application/cloudevents+json")).await;
    stage.broker.publish(binary.header("cloudEvents:traceparent", PRODUCER)).await;
    for command_id in ["c1", "c2"] {
        assert_eq!(trace_of_event(&stage.events.of(command_id).await)[0].as_deref(), Some(PRODUCER), "{command_id}");
    }
    assert_eq!(trace_of(&stage.wechat.calls(Endpoint::Add)[0].headers)[0], Some(PRODUCER));
    assert_eq!(trace_of(&stage.wechat.calls(Endpoint::Delete)[0].headers)[0], Some(PRODUCER));

    for (number, wrong) in [&PRODUCER.to_uppercase(), &PRODUCER.replace("00-", "01-"), "x", ""].into_iter().enumerate() {
        let id = format!("wrong-{number}");
        stage.broker.publish(Message::json(&delete(&id, "carl@test")).header("traceparent", wrong)).await;
        let event = stage.events.of(&id).await;
        event.assert_succeeded("none");
        assert_eq!(trace_of_event(&event), [None, None], "{wrong}");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_put_off_or_kept_for_a_person_keep_the_trace() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut dead = stage.broker.dead().await;
    // A pause that is longer than a delivery waits for: the command comes back through a deferred queue.
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(45009));
    stage.wechat.always(Endpoint::Add, Some("ben@other"), Answer::Errcode(65403));
    stage.broker.publish(traced(&add("c1", "ben@other", "本"))).await;
    let failed = stage.events.of("c1").await;
    failed.assert_ended("failed", "nickname_refused");
    assert_eq!(trace_of_event(&failed)[0].as_deref(), Some(PRODUCER));
    assert_eq!(trace_of_event(&dead.next().await)[0].as_deref(), Some(PRODUCER));
    stage.broker.publish(traced(&add("c2", "anna@test", "安娜"))).await;
    crate::support::eventually("the command is put off", async || (worker.logged("a command was put off") > 0).then_some(())).await;
    // A delete of the same account supersedes it, and the copy that comes back is told so.
    stage.outcome(&delete("c3", "anna@test")).await.assert_succeeded("none");
    let superseded = stage.events.of("c2").await;
    superseded.assert_ended("superseded", "newer_command");
    assert_eq!(trace_of_event(&superseded)[0].as_deref(), Some(PRODUCER));
    assert_eq!(stage.settle(worker).await.len(), 0);
}
