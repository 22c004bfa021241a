//! The kinds of spans, with the names that OpenTelemetry gives to what they tell. No token, secret, nickname or `meta` is in them.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::Span as SdkSpan;

use super::{CURRENT, Exporting, Traces};
use crate::command::TraceContext;

/// A part of a trace. It ends when it is dropped.
#[derive(Default)]
pub struct Span {
    /// What is passed on: its own context, or the producer's where no spans are made.
    context: Option<TraceContext>,
    open: Option<Box<Open>>,
}

struct Open {
    span: Mutex<SdkSpan>,
    exporting: Arc<Exporting>,
}

/// What is known of a message as it is taken.
pub struct Received<'a> {
    pub queue: &'a str,
    pub routing_key: &'a str,
    pub conversation: Option<&'a str>,
    pub body_size: usize,
    pub delivery_tag: u64,
}

/// What is known of an event as it is published.
pub struct Sent<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub message_id: &'a str,
    pub conversation: &'a str,
    pub body_size: usize,
}

impl Traces {
    /// What is done for one message, from taking it until it is settled. It goes on in the producer's trace.
    pub fn process(&self, producer: Option<TraceContext>, received: &Received<'_>) -> Span {
        self.begin(SpanKind::Consumer, producer, || {
            let attributes = vec![
                KeyValue::new("messaging.system", "rabbitmq"),
                KeyValue::new("messaging.operation.name", "process"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", received.queue.to_owned()),
                KeyValue::new("messaging.rabbitmq.destination.routing_key", received.routing_key.to_owned()),
                KeyValue::new("messaging.rabbitmq.message.delivery_tag", integer(received.delivery_tag)),
                KeyValue::new("messaging.message.body.size", integer(received.body_size)),
            ];
            let conversation = received.conversation.map(|id| KeyValue::new("messaging.message.conversation_id", id.to_owned()));
            (format!("process {}", received.queue).into(), attributes.into_iter().chain(conversation).collect())
        })
    }

    /// One request to WeChat's API. The query is left out: the token is in it.
    pub fn request(&self, method: &str, base_url: &str, path: &str) -> Span {
        self.begin(SpanKind::Client, CURRENT.try_with(Clone::clone).ok(), || {
            let base_url = base_url.trim_end_matches('/');
            let (scheme, host, port) = parts(base_url);
            let attributes = vec![
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("url.full", format!("{base_url}{path}")),
                KeyValue::new("url.path", path.to_owned()),
                KeyValue::new("url.scheme", scheme.to_owned()),
                KeyValue::new("server.address", host.to_owned()),
                KeyValue::new("server.port", integer(port)),
            ];
            (format!("{method} {path}").into(), attributes)
        })
    }

    /// One request to an organisation's own server. Its address may hold a secret.
    pub fn request_elsewhere(&self, method: &'static str) -> Span {
        self.begin(SpanKind::Client, CURRENT.try_with(Clone::clone).ok(), || {
            (method.into(), vec![KeyValue::new("http.request.method", method)])
        })
    }

    /// Makes a span, or where none are made, passes the parent's context on.
    fn begin(&self, kind: SpanKind, parent: Option<TraceContext>, tell: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>)) -> Span {
        let Some(exporting) = &self.0 else { return Span { context: parent, open: None } };
        let (name, attributes) = tell();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        let span = exporting.tracer.build_with_context(builder, &remote(parent.as_ref()));
        let context = context_of(span.span_context(), parent.as_ref());
        Span { context, open: Some(Box::new(Open { span: Mutex::new(span), exporting: Arc::clone(exporting) })) }
    }
}

impl Span {
    /// What is passed on to whoever is called.
    pub fn context(&self) -> Option<&TraceContext> {
        self.context.as_ref()
    }

    /// Publishing an event, as a part of this.
    pub fn send(&self, sent: &Sent<'_>) -> Self {
        let traces = Traces(self.open.as_ref().map(|open| Arc::clone(&open.exporting)));
        traces.begin(SpanKind::Producer, self.context.clone(), || {
            let attributes = vec![
                KeyValue::new("messaging.system", "rabbitmq"),
                KeyValue::new("messaging.operation.name", "send"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.destination.name", sent.exchange.to_owned()),
                KeyValue::new("messaging.rabbitmq.destination.routing_key", sent.routing_key.to_owned()),
                KeyValue::new("messaging.message.id", sent.message_id.to_owned()),
                KeyValue::new("messaging.message.conversation_id", sent.conversation.to_owned()),
                KeyValue::new("messaging.message.body.size", integer(sent.body_size)),
            ];
            (format!("send {}", sent.exchange).into(), attributes)
        })
    }

    /// The command that a message turned out to be.
    pub fn command(&self, command_id: &str, kf_account: Option<&str>, action: Option<&'static str>) {
        self.change(|span| {
            span.set_attribute(KeyValue::new("messaging.message.id", command_id.to_owned()));
            set(span, "kf.account", kf_account.map(|account| account.to_owned().into()));
            set(span, "kf.action", action.map(Value::from));
        });
    }

    /// The outcome of the command.
    pub fn outcome(&self, status: &'static str, reason: Option<&'static str>, failed: bool) {
        self.change(|span| {
            span.set_attribute(KeyValue::new("kf.status", status));
            set(span, "kf.reason", reason.map(Value::from));
            if failed {
                fail(span, reason.unwrap_or(status).into());
            }
        });
    }

    /// Why there is no outcome (yet).
    pub fn reason(&self, reason: &'static str) {
        self.change(|span| span.set_attribute(KeyValue::new("kf.reason", reason)));
    }

    /// How a request was answered.
    pub fn answered(&self, status: u16) {
        self.change(|span| span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status))));
    }

    /// The number in WeChat's answer.
    pub fn errcode(&self, errcode: i64) {
        self.change(|span| span.set_attribute(KeyValue::new("wechat.errcode", errcode)));
    }

    /// It failed, in this way.
    pub fn fail(&self, error_type: impl Into<Cow<'static, str>>) {
        self.change(|span| fail(span, error_type.into()));
    }

    fn change(&self, change: impl FnOnce(&mut SdkSpan)) {
        if let Some(open) = &self.open {
            change(&mut open.span.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn set(span: &mut SdkSpan, key: &'static str, value: Option<Value>) {
    if let Some(value) = value {
        span.set_attribute(KeyValue::new(key, value));
    }
}

fn fail(span: &mut SdkSpan, error_type: Cow<'static, str>) {
    span.set_attribute(KeyValue::new("error.type", error_type));
    span.set_status(Status::error(""));
}

fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Scheme, host and port of an address that has no path.
fn parts(base_url: &str) -> (&str, &str, u16) {
    let (scheme, authority) = base_url.split_once("://").unwrap_or(("https", base_url));
    let authority = authority.split('/').next().unwrap_or(authority);
    let usual = if scheme == "http" { 80 } else { 443 };
    match authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (scheme, host, port),
        None => (scheme, authority, usual),
    }
}

/// The parent of a span, for the tracer.
fn remote(parent: Option<&TraceContext>) -> Context {
    let read = |parent: &TraceContext| {
        Some(SpanContext::new(
            TraceId::from_hex(parent.trace_id()).ok()?,
            SpanId::from_hex(parent.span_id()).ok()?,
            TraceFlags::new(u8::from_str_radix(parent.flags(), 16).ok()?),
            true,
            parent.state().and_then(|state| state.parse().ok()).unwrap_or_default(),
        ))
    };
    match parent.and_then(read) {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    }
}

/// A span's context as it is passed on, with the state that its parent came with.
fn context_of(span: &SpanContext, parent: Option<&TraceContext>) -> Option<TraceContext> {
    let text = format!("00-{:032x}-{:016x}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags());
    TraceContext::new(&text, parent.and_then(TraceContext::state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_whether_it_says_so_or_not() {
        assert_eq!(parts("https://api.weixin.qq.com"), ("https", "api.weixin.qq.com", 443));
        assert_eq!(parts("http://127.0.0.1:9300"), ("http", "127.0.0.1", 9300));
        assert_eq!(parts("http://[::1]"), ("http", "[::1]", 80));
        assert_eq!(parts("https://[::1]:8443/x"), ("https", "[::1]", 8443));
    }

    #[test]
    fn a_context_survives_the_way_through_the_tracer() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::new(text, Some("vendor=x")).unwrap();
        let span = remote(Some(&context)).span().span_context().clone();
        assert_eq!(context_of(&span, Some(&context)), Some(context));
    }

    #[test]
    fn where_nothing_is_exported_the_parents_context_is_passed_on() {
        let producer = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", None);
        let received = Received { queue: "kf.commands", routing_key: "a@test", conversation: None, body_size: 2, delivery_tag: 1 };
        let span = Traces::default().process(producer.clone(), &received);
        assert_eq!(span.context(), producer.as_ref());
        assert!(span.open.is_none());
        assert!(Traces::default().process(None, &received).context().is_none());
    }
}
