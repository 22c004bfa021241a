//! Every command ends in one event of the documented shape, and every class of WeChat's answers in the documented fate.

use std::collections::BTreeSet;

use jiff::Timestamp;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::broker::{Message, Received};
use crate::support::stage::{Stage, add, delete, with};
use crate::support::wechat::{Answer, Endpoint, ROOM};
use crate::support::worker::Settings;

/// The dead letter of a failed command: its own body, and why.
async fn assert_kept(stage: &Stage, command: &Value, reason: &str) {
    let mut dead = stage.broker.dead().await;
    let letter = dead.next().await;
    assert_eq!(letter.bytes, command.to_string().into_bytes());
    assert_eq!(letter.headers().get("kf-reason").map(String::as_str), Some(reason));
    assert_eq!(dead.rest().await.len(), 0, "one copy");
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Which fields an event has, and how its properties repeat them.
fn assert_shape(event: &Received, data: &[&str]) {
    let json = &event.json;
    let (action, status) = event.routing_key.split_once('.').expect("<action>.<status>");
    let attributes = ["specversion", "id", "type", "source", "time", "datacontenttype", "data", "subject"];
    assert!(keys(json).is_subset(&BTreeSet::from(attributes)), "no other attribute: {json}");
    assert_eq!(json["specversion"], "1.0");
    assert_eq!(json["type"], format!("kf.{action}.{status}"));
    assert_eq!(json["source"], "kf-worker");
    assert_eq!(json.get("subject"), json["data"].get("kf_account"));
    assert_eq!(json["data"]["status"], status);
    assert_eq!(keys(&json["data"]), data.iter().copied().collect());

    assert_eq!(event.property(BasicProperties::message_id), Some(event.event_id()));
    assert_eq!(event.property(BasicProperties::correlation_id), Some(event.command_id()));
    let content_type = event.property(BasicProperties::content_type).unwrap_or_default();
    assert!(content_type.starts_with("application/cloudevents+json"), "{content_type}");
    assert_eq!(event.property(BasicProperties::kind), json["type"].as_str());
    assert_eq!(event.property(BasicProperties::app_id), Some("kf-worker"));
    assert_eq!(*event.properties.delivery_mode(), Some(2), "persistent");

    let time = |value: &Value| value.as_str().expect("a time").parse::<Timestamp>().expect("RFC 3339");
    let (received, finished) = (time(&json["data"]["received_at"]), time(&json["data"]["finished_at"]));
    assert!(received <= finished, "{received} is later than {finished}");
    assert!(json["data"]["finished_at"].as_str().is_some_and(|text| text.ends_with('Z')), "UTC");
    assert_eq!(time(&json["time"]), finished);
    let second = i64::try_from(event.properties.timestamp().expect("a timestamp")).expect("a second");
    assert_eq!(second, finished.as_second());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_has_the_documented_shape() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let command = with(with(add("c1", "anna@test", "安娜"), "revision", 3), "meta", json!({"employee": 4711, "ticket": "工单"}));
    let event = stage.outcome(&command).await;
    assert_eq!(event.routing_key, "add.succeeded");
    let common = ["command_id", "action", "kf_account", "status", "effect", "attempts", "received_at", "finished_at"];
    assert_shape(&event, &[&common[..], &["nickname", "revision", "meta"]].concat());
    for field in ["command_id", "action", "kf_account", "nickname", "revision", "meta"] {
        assert_eq!(event.field(field), &command[field], "{field} comes back as given");
    }
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);

    let event = stage.outcome(&with(delete("c2", "anna@test"), "revision", 4)).await;
    assert_eq!(event.routing_key, "delete.succeeded");
    assert_shape(&event, &[&common[..], &["revision"]].concat());
    event.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_success_has_an_error_of_the_documented_shape() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(65403));
    let common = ["command_id", "action", "kf_account", "status", "error", "attempts", "received_at", "finished_at"];
    let failed = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    assert_eq!(failed.routing_key, "add.failed");
    assert_shape(&failed, &[&common[..], &["nickname"]].concat());
    let error = failed.field("error");
    assert_eq!(keys(error), BTreeSet::from(["reason", "errcode", "errmsg", "detail"]));
    assert_eq!(error["errcode"], 65403);
    assert!(error["errmsg"].as_str().is_some_and(|text| text.contains("rid: 61725984-6126f6f9-040f19c4")), "{error}");

    stage.outcome(&with(delete("c2", "anna@test"), "revision", 2)).await.assert_succeeded("none");
    let superseded = stage.outcome(&with(delete("c3", "anna@test"), "revision", 1)).await;
    assert_eq!(superseded.routing_key, "delete.superseded");
    assert_shape(&superseded, &[&common[..], &["revision"]].concat());

    let rejected = stage.outcome(&add("c4", "anna@test", "安娜")).await;
    assert_eq!(rejected.routing_key, "add.rejected");
    assert_shape(&rejected, &[&common[..], &["nickname"]].concat());
    for event in [superseded, rejected] {
        let error = event.field("error");
        assert_eq!(keys(error), BTreeSet::from(["reason", "errcode", "errmsg", "detail"]));
        assert_eq!((&error["errcode"], &error["errmsg"]), (&Value::Null, &Value::Null), "WeChat had no part in it");
        assert_eq!(event.attempts(), 0);
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_where_it_was_asked_for() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut replies = stage.broker.replies().await;
    let queue = replies.queue.to_string();

    let asked = Message::json(&add("c1", "anna@test", "安娜")).reply_to(&queue).correlation_id("request-17");
    stage.broker.publish(asked.clone()).await;
    let (event, reply) = (stage.events.of("c1").await, replies.next().await);
    assert_eq!(reply.bytes, event.bytes, "the same event");
    assert_eq!(reply.property(BasicProperties::correlation_id), Some("request-17"));
    assert_eq!(event.property(BasicProperties::correlation_id), Some("c1"), "events are told by command");

    stage.broker.publish(Message::json(&delete("c2", "anna@test")).reply_to(&queue)).await;
    assert_eq!(replies.next().await.property(BasicProperties::correlation_id), Some("c2"));
    stage.events.of("c2").await;

    // Who repeats a command asks for its outcome once more.
    stage.broker.publish(asked).await;
    let again = replies.next().await;
    assert_eq!(again.bytes, reply.bytes);
    stage.events.of("c1").await;

    stage.broker.publish(Message::raw("no json").message_id("c3").reply_to(&queue)).await;
    replies.next().await.assert_ended("rejected", "not_a_json_object");
    stage.events.of("c3").await;
    assert_eq!(stage.settle(worker).await.len(), 0);
    assert_eq!(replies.rest().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_nobody_takes_is_no_error_and_none_goes_to_the_workers_own_queues() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let nobody = Message::json(&add("c1", "anna@test", "安娜")).reply_to("no-such-queue");
    stage.broker.publish(nobody).await;
    stage.events.of("c1").await.assert_succeeded("created");
    let own = stage.broker.name("dead").to_string();
    stage.broker.publish(Message::json(&delete("c2", "anna@test")).reply_to(&own)).await;
    stage.events.of("c2").await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
    assert_eq!(stage.broker.ready("dead").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_cloud_event_is_a_command() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let event = json!({
        "specversion": "1.0", "id": "c1", "type": "kf.add", "source": "hr", "subject": "ignored", "extension": "ignored",
        "data": {"kf_account": "anna@test", "nickname": "安娜", "revision": 1, "meta": {"ticket": 17}},
    });
    let message = Message::json(&event).content_type("application/cloudevents+json; charset=utf-8").message_id("not compared");
    stage.broker.publish(message).await;
    let outcome = stage.events.of("c1").await;
    outcome.assert_succeeded("created");
    assert_eq!(outcome.field("meta"), &json!({"ticket": 17}));
    assert_eq!(stage.wechat.nickname("anna@test").as_deref(), Some("安娜"));

    let unknown = json!({
        "specversion": "1.0", "id": "c2", "type": "kf.delete", "source": "hr",
        "data": {"kf_account": "anna@test", "surprise": 1},
    });
    stage.broker.publish(Message::json(&unknown).content_type("application/cloudevents+json")).await;
    stage.events.of("c2").await.assert_ended("rejected", "unknown_field");
    let other = json!({"specversion": "1.0", "id": "c3", "type": "kf.update", "source": "hr", "data": {"kf_account": "anna@test"}});
    stage.broker.publish(Message::json(&other).content_type("application/cloudevents+json")).await;
    stage.events.of("c3").await.assert_ended("rejected", "invalid_action");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_cloud_event_is_a_command_in_each_spelling_of_its_headers() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    for (number, prefix) in ["ce-", "cloudEvents:", "cloudEvents_"].into_iter().enumerate() {
        let command_id = format!("c{number}");
        let account = format!("anna{number}@test");
        let message = Message::raw(json!({"kf_account": account, "nickname": "安娜"}).to_string())
            .header(&format!("{prefix}specversion"), "1.0")
            .header(&format!("{prefix}id"), &command_id)
            .header(&format!("{prefix}type"), "kf.add")
            .header(&format!("{prefix}source"), "hr")
            .message_id("not compared");
        stage.broker.publish(message).await;
        stage.events.of(&command_id).await.assert_succeeded("created");
        assert!(stage.wechat.has(&account), "{prefix}");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_is_asked_as_it_documents() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.outcome(&add("c1", "test1@test", "客服1")).await.assert_succeeded("created");
    stage.outcome(&delete("c2", "test1@test")).await.assert_succeeded("deleted");
    let bodies: Vec<String> = stage.wechat.journal().into_iter().map(|call| call.body).collect();
    let parsed: Vec<Value> = bodies.iter().map(|body| serde_json::from_str(body).expect("JSON")).collect();
    assert_eq!(parsed, [json!({"kf_account": "test1@test", "nickname": "客服1"}), json!({"kf_account": "test1@test"})]);
    assert!(bodies[0].contains("客服1"), "raw UTF-8, since WeChat refuses escapes: {}", bodies[0]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wanted_state_is_a_success_without_effect() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.put("anna@test");
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("none");
    stage.outcome(&delete("c2", "ben@test")).await.assert_succeeded("none");
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(61453));
    stage.outcome(&add("c3", "carl@test", "卡尔")).await.assert_succeeded("none");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_answer_is_asked_again() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let html = Answer::Body("<html>Bad gateway</html>".to_owned());
    let no_errcode = Answer::Body("{\"ok\": true}".to_owned());
    let transient = [
        Answer::Errcode(-1),
        Answer::Errcode(61450),
        Answer::Http(502),
        Answer::Http(429),
        Answer::Http(408),
        Answer::Body(String::new()),
        html,
        no_errcode,
    ];
    for (number, answer) in transient.into_iter().enumerate() {
        let account = format!("a{number}@test");
        stage.wechat.next(Endpoint::Add, Some(&account), answer.clone());
        stage.wechat.next(Endpoint::Add, Some(&account), answer.clone());
        let event = stage.outcome(&add(&format!("c{number}"), &account, "安娜")).await;
        assert_eq!((event.status(), event.attempts()), ("succeeded", 3), "{answer:?}: {}", event.data);
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_errcode_may_come_as_text() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, None, Answer::Body("{\"errcode\": \"65406\", \"errmsg\": \"ok\"}".to_owned()));
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("none");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_and_its_effect_is_unknown() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, None, Answer::Lose);
    let added = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    added.assert_succeeded("unknown");
    assert_eq!(added.attempts(), 2);
    stage.wechat.put("ben@test");
    stage.wechat.next(Endpoint::Delete, None, Answer::Lose);
    let deleted = stage.outcome(&delete("c2", "ben@test")).await;
    deleted.assert_succeeded("unknown");
    assert_eq!(deleted.attempts(), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_given_up_and_repeated() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "500ms");
    let worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    held.work();
    let event = stage.events.of("c1").await;
    event.assert_succeeded("unknown");
    assert_eq!(event.attempts(), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_fetched_anew_once_and_the_call_repeated_at_once() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    // A call that waited for a backoff would come too late for this test.
    settings.set("retry.initial", "5m").set("retry.max_interval", "5m").set("retry.max_in_process", "8m");
    let worker = stage.worker_with(&settings).await;
    for (command_id, account) in [("c1", "anna@test"), ("c2", "ben@test")] {
        stage.outcome(&add(command_id, account, "安娜")).await.assert_succeeded("created");
    }
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 1, "one token serves them all");
    stage.wechat.end_token("test");
    let event = stage.outcome(&add("c3", "carl@test", "卡尔")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2);
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 2, "one refresh");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_commands_at_once_fetch_one_token() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let commands = (0..50).map(|number| Message::json(&add(&format!("c{number}"), &format!("a{number}@test"), "安娜")));
    stage.broker.publish_all(commands).await;
    for event in stage.events.collect(50).await {
        event.assert_succeeded("created");
    }
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_refused_at_once_fetch_one_other_token() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.outcome(&add("first", "first@test", "安娜")).await.assert_succeeded("created");
    stage.wechat.end_token("test");
    let commands = (0..50).map(|number| Message::json(&add(&format!("c{number}"), &format!("a{number}@test"), "安娜")));
    stage.broker.publish_all(commands).await;
    for event in stage.events.collect(50).await {
        event.assert_succeeded("created");
    }
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 2);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_token_serves_as_well() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.official_accounts = settings.official_accounts.replace("app_secret", "token = \"legacy\"\napp_secret");
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.wechat.calls(Endpoint::Token).len(), 1);
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_official_account_that_is_refused_is_asked_again_after_the_probe_interval() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "50ms");
    let worker = stage.worker_with(&settings).await;
    for (number, errcode) in [48001, 40164, 50002, 61007, 65400].into_iter().enumerate() {
        let account = format!("a{number}@test");
        stage.wechat.next(Endpoint::Add, Some(&account), Answer::Errcode(errcode));
        let event = stage.outcome(&add(&format!("c{number}"), &account, "安娜")).await;
        assert_eq!((event.status(), event.attempts()), ("succeeded", 2), "{errcode}: {}", event.data);
    }
    stage.wechat.next(Endpoint::Delete, Some("a0@test"), Answer::Http(404));
    let event = stage.outcome(&delete("http", "a0@test")).await;
    assert_eq!((event.status(), event.attempts()), ("succeeded", 2), "{}", event.data);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_official_account_does_not_hold_up_another() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    stage.wechat.always(Endpoint::Add, Some("anna@test"), Answer::Errcode(48001));
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.wechat.until_answered(Endpoint::Add, "anna@test", 1).await;
    stage.outcome(&add("c2", "ben@other", "本")).await.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("anna@test").len(), 1, "and its command waits");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_holds_back_one_action_of_one_official_account() {
    for errcode in [45009, 45011] {
        let mut stage = Stage::new().await;
        let worker = stage.worker().await;
        stage.wechat.always(Endpoint::Add, Some("anna@test"), Answer::Errcode(errcode));
        stage.send(&add("c1", "anna@test", "安娜")).await;
        stage.ledger().until("c1", "waiting").await;
        stage.outcome(&delete("c2", "ben@test")).await.assert_succeeded("none");
        stage.outcome(&add("c3", "carl@other", "卡尔")).await.assert_succeeded("created");
        assert_eq!(stage.ledger().entry("c1").map(|entry| entry.state).as_deref(), Some("waiting"), "{errcode}");
        assert_eq!(stage.events.rest().await.len(), 0, "{errcode}: nothing is decided");
        // What waits is picked up again by a delete, which is another action.
        stage.outcome(&delete("c4", "anna@test")).await.assert_succeeded("none");
        stage.events.of("c1").await.assert_ended("superseded", "newer_command");
        drop(worker);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appsecret_that_is_wrong_pauses_the_official_account_until_it_is_right() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "50ms");
    let worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::StableToken, None, Answer::Errcode(40125));
    stage.wechat.next(Endpoint::StableToken, None, Answer::Errcode(40164));
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 3, "no more than one fetch for each pause");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_official_account_makes_an_add_wait_for_a_delete() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    for number in 0..ROOM {
        stage.wechat.put(&format!("a{number}@test"));
    }
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.wechat.until_answered(Endpoint::Add, "anna@test", 1).await;
    stage.outcome(&delete("c2", "a0@test")).await.assert_succeeded("deleted");
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_official_account_that_stays_full_fails_the_add() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.capacity_wait", "300ms");
    let worker = stage.worker_with(&settings).await;
    for number in 0..ROOM {
        stage.wechat.put(&format!("a{number}@test"));
    }
    let command = add("c1", "anna@test", "安娜");
    let event = stage.outcome(&command).await;
    event.assert_ended("failed", "account_limit_reached");
    assert_eq!(event.field("error")["errcode"], 65405);
    assert_kept(&stage, &command, "account_limit_reached").await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_can_never_succeed_fails_at_once_and_is_kept() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let cases = [
        (65403, "nickname_refused"),
        (65404, "account_refused"),
        (65401, "account_refused"),
        (40035, "invalid_parameter"),
        (65416, "invalid_parameter"),
    ];
    let mut dead = stage.broker.dead().await;
    for (number, (errcode, reason)) in cases.into_iter().enumerate() {
        let command = add(&format!("c{number}"), &format!("a{number}@test"), "安娜");
        stage.wechat.next(Endpoint::Add, None, Answer::Errcode(errcode));
        let event = stage.outcome(&command).await;
        event.assert_ended("failed", reason);
        assert_eq!(event.attempts(), 1);
        assert_eq!(event.field("error")["errcode"], errcode);
        assert!(event.field("error")["errmsg"].as_str().is_some_and(|text| text.contains("rid: ")), "{}", event.data);
        let letter = dead.next().await;
        assert_eq!(letter.bytes, command.to_string().into_bytes());
        assert_eq!(letter.headers().get("kf-reason").map(String::as_str), Some(reason));
        // A repeat of what failed is told the same, and is not kept again.
        event.assert_repeated_by(&stage.outcome(&command).await);
    }
    assert_eq!(stage.wechat.journal().len(), cases.len());
    assert_eq!(dead.rest().await.len(), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_errcode_that_does_not_belong_to_a_delete_fails_it() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    for (command_id, errcode) in [("c1", 65406), ("c2", 65405)] {
        stage.wechat.next(Endpoint::Delete, None, Answer::Errcode(errcode));
        stage.outcome(&delete(command_id, "anna@test")).await.assert_ended("failed", "unexpected_errcode");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_calls_our_request_wrong_fails_the_command_as_the_workers_bug() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let command = add("c1", "anna@test", "安娜");
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(47001));
    let event = stage.outcome(&command).await;
    event.assert_ended("failed", "worker_bug");
    assert_eq!(event.field("error")["errcode"], 47001);
    assert_kept(&stage, &command, "worker_bug").await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undocumented_errcode_is_tried_five_times() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let command = add("c1", "anna@test", "安娜");
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(99999));
    let event = stage.outcome(&command).await;
    event.assert_ended("failed", "unknown_errcode");
    assert_eq!(event.attempts(), 5);
    assert_eq!(event.field("error")["errcode"], 99999);
    assert_kept(&stage, &command, "unknown_errcode").await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_old_to_be_tried_again_fails() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.max_age", "3s").set("retry.max_in_process", "2s");
    let worker = stage.worker_with(&settings).await;
    let command = add("c1", "anna@test", "安娜");
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(-1));
    let event = stage.outcome(&command).await;
    event.assert_ended("failed", "retries_exhausted");
    assert_eq!(event.field("error")["errcode"], -1, "WeChat's last word");
    assert!(event.attempts() > 1);
    assert_kept(&stage, &command, "retries_exhausted").await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wechat_that_cannot_be_reached_is_tried_again() {
    let mut stage = Stage::new().await;
    let mut settings: Settings = stage.settings();
    settings.set("wechat.base_url", "http://127.0.0.1:9").set("wechat.fallback_urls", json!([stage.wechat.base_url()]));
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
