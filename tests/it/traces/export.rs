//! Spans as a collector gets them: who is whose parent, what they are named and tell, and that a collector in trouble keeps nobody waiting.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use super::{CAUSE, PRODUCER, TRACE, exporting, traced};
use crate::support::broker::Message;
use crate::support::collector::{Collector, Manner, attribute, hex};
use crate::support::ports::free_port;
use crate::support::stage::{Stage, add, adds, delete};
use crate::support::wechat::{Answer, Endpoint};

/// The spans of a name, in the order in which they began.
fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// The one span of a name.
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    match named(spans, name)[..] {
        [one] => one,
        ref several => panic!("{} of {name} in {:?}", several.len(), spans.iter().map(|span| &span.name).collect::<Vec<_>>()),
    }
}

/// The header by which a span is the parent of what is done elsewhere.
fn as_parent(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

#[track_caller]
fn assert_tells(span: &Span, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(attribute(span, name).as_deref(), Some(*value), "{name} of {span:#?}");
    }
}

#[track_caller]
fn assert_child(child: &Span, parent: &Span) {
    assert_eq!(hex(&child.parent_span_id), hex(&parent.span_id), "{} is a part of {}", child.name, parent.name);
}

fn code(span: &Span) -> StatusCode {
    span.status.as_ref().map_or(StatusCode::Unset, |status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_a_span_of_its_producers_trace_with_its_calls_and_its_event_in_it() {
    let mut stage = Stage::new().await;
    let collector = Collector::start(Manner::Usual).await;
    let mut settings = exporting(&stage, &collector);
    settings.set("traces.authorization", "Bearer 7b1f-collector-key");
    let worker = stage.worker_with(&settings).await;
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    stage.broker.publish(traced(&add("c1", "anna@test", "安娜")).correlation_id("hr-7").header("tracestate", "vendor=x")).await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");

    // The message, the token, two calls, the event.
    let spans = collector.spans_of(TRACE, 5).await;
    let commands = stage.broker.name("commands").to_string();
    let process = one(&spans, &format!("process {commands}"));
    assert_eq!((process.kind(), hex(&process.parent_span_id).as_str(), code(process)), (SpanKind::Consumer, CAUSE, StatusCode::Unset));
    assert_tells(
        process,
        &[
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", &commands),
            ("messaging.rabbitmq.destination.routing_key", "anna@test"),
            ("messaging.rabbitmq.message.delivery_tag", "1"),
            ("messaging.message.id", "c1"),
            ("messaging.message.conversation_id", "hr-7"),
            ("kf.account", "anna@test"),
            ("kf.action", "add"),
            ("kf.status", "succeeded"),
        ],
    );
    assert!(attribute(process, "messaging.message.body.size").is_some_and(|size| size.parse::<usize>().is_ok_and(|size| size > 20)));

    let calls = named(&spans, "POST /customservice/kfaccount/add");
    let headers: Vec<String> = stage.wechat.calls(Endpoint::Add).iter().map(|call| call.headers["traceparent"].clone()).collect();
    assert_eq!(headers, calls.iter().map(|call| as_parent(call)).collect::<Vec<_>>(), "each call carries a span of its own");
    for call in &calls {
        assert_child(call, process);
        let url = format!("{}/customservice/kfaccount/add", stage.wechat.base_url());
        let (_, authority) = stage.wechat.base_url().split_once("://").map(|(_, rest)| ((), rest.to_owned())).expect("a URL");
        let (host, port) = authority.split_once(':').expect("a port");
        assert_eq!(call.kind(), SpanKind::Client);
        assert_tells(call, &[("http.request.method", "POST"), ("http.response.status_code", "200"), ("url.full", &url)]);
        assert_tells(call, &[("url.path", "/customservice/kfaccount/add"), ("url.scheme", "http")]);
        assert_tells(call, &[("server.address", host), ("server.port", port)]);
        assert!(process.start_time_unix_nano <= call.start_time_unix_nano && call.end_time_unix_nano <= process.end_time_unix_nano);
    }
    assert_tells(calls[0], &[("wechat.errcode", "-1"), ("error.type", "system_busy")]);
    assert_tells(calls[1], &[("wechat.errcode", "0")]);
    assert_eq!((code(calls[0]), code(calls[1])), (StatusCode::Error, StatusCode::Unset));
    assert_child(one(&spans, "POST /cgi-bin/stable_token"), process);

    let events = stage.broker.name("events").to_string();
    let send = one(&spans, &format!("send {events}"));
    assert_child(send, process);
    assert_eq!(send.kind(), SpanKind::Producer);
    assert_tells(send, &[("messaging.operation.type", "send"), ("messaging.destination.name", &events)]);
    assert_tells(send, &[("messaging.rabbitmq.destination.routing_key", "add.succeeded"), ("messaging.message.id", event.event_id())]);
    assert_eq!(event.headers().get("traceparent"), Some(&as_parent(send)), "the consumer's trace goes on from the event");
    assert_eq!(event.headers().get("tracestate").map(String::as_str), Some("vendor=x"));

    let export = &collector.exports()[0];
    assert!(export.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", export.head);
    assert!(export.head.to_ascii_lowercase().contains("authorization: bearer 7b1f-collector-key\r\n"), "{}", export.head);
    assert!(worker.log().contains(&format!("trace_id=\"{TRACE}\"")), "{}", worker.log());
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_an_error_and_what_holds_already_is_none() {
    let mut stage = Stage::new().await;
    let collector = Collector::start(Manner::Usual).await;
    let settings = exporting(&stage, &collector);
    let mut worker = stage.worker_with(&settings).await;
    let trace = |number: u32| format!("{number:032x}");
    let with_trace =
        |number: u32, command: &Value| Message::json(command).header("traceparent", &format!("00-{}-{CAUSE}-01", trace(number)));
    stage.wechat.put("ben@test");
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(65403));
    stage.wechat.next(Endpoint::Add, Some("carl@test"), Answer::Http(503));
    stage.wechat.next(Endpoint::Add, Some("carl@test"), Answer::Lose);
    stage.broker.publish(with_trace(1, &add("c1", "anna@test", "安娜"))).await;
    stage.broker.publish(with_trace(2, &add("c2", "ben@test", "本"))).await;
    stage.broker.publish(with_trace(3, &add("c3", "carl@test", "卡"))).await;
    for command_id in ["c1", "c2", "c3"] {
        stage.events.of(command_id).await;
    }
    // What is left to be sent is sent before the end.
    assert_eq!(worker.terminate().await, Some(0));
    let process = format!("process {}", stage.broker.name("commands"));
    let add = "POST /customservice/kfaccount/add";

    let failed = collector.spans_of(&trace(1), 3).await;
    assert_eq!(code(one(&failed, &process)), StatusCode::Error);
    assert_tells(one(&failed, &process), &[("kf.status", "failed"), ("kf.reason", "nickname_refused"), ("error.type", "nickname_refused")]);
    assert_tells(one(&failed, add), &[("wechat.errcode", "65403"), ("error.type", "nickname_refused")]);

    let already = collector.spans_of(&trace(2), 3).await;
    assert_eq!((code(one(&already, &process)), code(one(&already, add))), (StatusCode::Unset, StatusCode::Unset));
    assert_tells(one(&already, add), &[("wechat.errcode", "65406")]);

    let retried = collector.spans_of(&trace(3), 5).await;
    let calls = named(&retried, add);
    assert_eq!(calls.len(), 3);
    assert_tells(calls[0], &[("http.response.status_code", "503"), ("error.type", "gateway_error")]);
    assert_tells(calls[1], &[("error.type", "answer_lost")]);
    assert_eq!(attribute(calls[1], "http.response.status_code"), None);
    assert_tells(one(&retried, &process), &[("kf.status", "succeeded")]);
    assert_eq!(stage.events.rest().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_decides_whether_its_trace_is_recorded_and_the_ratio_decides_on_the_others() {
    let mut stage = Stage::new().await;
    let collector = Collector::start(Manner::Usual).await;
    let mut settings = exporting(&stage, &collector);
    settings.set("traces.sample_ratio", 0.0);
    let mut worker = stage.worker_with(&settings).await;
    let not_recorded = PRODUCER.replace(TRACE, "11111111111111111111111111111111").replace("-01", "-00");
    stage.broker.publish(Message::json(&add("c1", "anna@test", "安娜")).header("traceparent", &not_recorded)).await;
    let event = stage.events.of("c1").await;
    stage.outcome(&add("c2", "ben@test", "本")).await;
    stage.broker.publish(traced(&delete("c3", "anna@test"))).await;
    stage.events.of("c3").await;
    assert_eq!(worker.terminate().await, Some(0));
    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "the message, the call and the event of one command");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let passed_on = event.headers()["traceparent"].clone();
    assert!(passed_on.starts_with("00-11111111111111111111111111111111-") && passed_on.ends_with("-00"), "{passed_on}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_is_away_keeps_nobody_waiting() {
    let hanging = Collector::start(Manner::Hangs).await;
    for url in [hanging.url().to_owned(), format!("http://127.0.0.1:{}", free_port())] {
        let mut stage = Stage::new().await;
        let mut settings = stage.settings();
        settings.set("traces.otlp_url", url.as_str());
        let mut worker = stage.worker_with(&settings).await;
        // More spans than wait for the collector at most.
        let commands = adds("a", "test", 1_000);
        stage.wechat.always(Endpoint::Add, None, Answer::Errcode(65406));
        stage.broker.publish_all(commands.iter().map(traced)).await;
        for command in &commands {
            stage.events.of(command["command_id"].as_str().expect("an id")).await;
        }
        let asked_at = Instant::now();
        assert_eq!(worker.terminate().await, Some(0));
        // The end waits for the last spans for two seconds; a busy machine needs some time for the rest.
        assert!(asked_at.elapsed() < Duration::from_secs(10), "ending took {:?}", asked_at.elapsed());
        assert!(worker.logged("the collector takes no spans") <= 1, "told once: {}", worker.log());
        assert!(worker.logged("the last spans could not be sent in time") + worker.logged("the collector takes no spans") >= 1);
        assert_eq!(stage.events.rest().await.len(), 0);
    }
}
