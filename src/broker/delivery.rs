//! One delivered message: what it says, and every way to be done with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::acknowledger::Acknowledger;
use super::direct::{DirectReplies, Reply};
use super::guard::{UNREADABLE, is_brokers_own};
use super::publisher::{Outgoing, PublishError};
use super::session::Session;
use crate::command::{Message, TraceContext};
use crate::event::{CONTENT_TYPE, Event};
use crate::metrics::Counted;
use crate::outcome::Failure;
use crate::traces::{Received, Sent, Span, Traces};

/// Sets one of a message's properties that are texts.
type SetText = fn(BasicProperties, ShortString) -> BasicProperties;

/// Written to disk by the broker.
pub(super) const PERSISTENT: u8 = 2;
/// The default exchange has no name of its own; spans give it this one.
const DEFAULT_EXCHANGE: &str = "amq.default";
/// The header of a put-off copy; its value is the ledger's id.
const PUT_OFF: &str = "kf-put-off";
/// The header of a replayed dead letter; its value is the dead letter's id.
pub(super) const REPLAY: &str = "kf-replay";
/// By this the ledger that knows the command of a dead letter recognises its replay: it stands in the dead letter.
pub const DEAD_PROOF: &str = "kf-dead-proof";
/// What a dead letter carries besides its own headers.
pub const DEAD_ID: &str = "kf-dead-id";
pub const DEAD_REASON: &str = "kf-reason";
pub const DEAD_DETAIL: &str = "kf-detail";
pub const DEAD_SINCE: &str = "kf-failed-at";

/// A message that was delivered and is not yet acknowledged. Dropped without a word, it is delivered again when its
/// session ends.
pub struct Delivery {
    pub message: Message,
    pub redelivered: bool,
    /// What is done for it, as a part of its producer's trace.
    pub span: Span,
    /// The queue that it came from.
    queue: Arc<str>,
    delivery_tag: u64,
    routing_key: ShortString,
    properties: BasicProperties,
    acknowledger: Acknowledger,
    session: Session,
    /// Counts it among those that are held.
    held: Held,
}

/// Counts a message among those of its queue, and among all, until it is dropped.
pub(super) struct Held {
    of_queue: Arc<AtomicUsize>,
    _of_all: Counted,
}

impl Held {
    pub(super) fn new(of_queue: &Arc<AtomicUsize>, of_all: Counted) -> Self {
        of_queue.fetch_add(1, Ordering::Relaxed);
        Self { of_queue: Arc::clone(of_queue), _of_all: of_all }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of_queue.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Delivery {
    pub(super) fn new(
        delivery: lapin::message::Delivery,
        queue: Arc<str>,
        acknowledger: Acknowledger,
        session: Session,
        held: Held,
    ) -> Self {
        let lapin::message::Delivery { data, properties, routing_key, redelivered, delivery_tag, .. } = delivery;
        let message = message(data, &properties);
        let span = Span::default();
        Self { message, redelivered, span, queue, delivery_tag, routing_key, properties, acknowledger, session, held }
    }

    /// Goes on with the producer's trace from now on.
    pub fn begin(&mut self, traces: &Traces) {
        let received = Received {
            queue: &self.queue,
            routing_key: self.routing_key.as_str(),
            conversation: self.properties.correlation_id().as_ref().map(ShortString::as_str),
            body_size: self.message.body.len(),
            delivery_tag: self.delivery_tag,
        };
        self.span = traces.process(TraceContext::of(&self.message), &received);
    }

    /// The session that it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The id of the ledger whose worker has put it off, where it says that it is such a copy.
    pub fn put_off_by(&self) -> Option<&str> {
        self.message.headers.get(PUT_OFF).map(String::as_str)
    }

    /// The dead letter that it says it is the replay of: its id, and the proof that stood in it.
    pub fn replay_of(&self) -> Option<(&str, &str)> {
        let header = |name| self.message.headers.get(name).map(String::as_str);
        header(REPLAY).map(|dead_id| (dead_id, header(DEAD_PROOF).unwrap_or_default()))
    }

    /// Publishes a result event, and a copy to the message's `reply_to`.
    ///
    /// # Errors
    /// Where the broker has not confirmed.
    pub async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        let exchange = self.session.names().events();
        let sending = self.sending((&exchange, &event.routing_key), event, &event.command_id);
        let properties = event_properties(event, &event.command_id, sending.context());
        let outgoing = Outgoing { exchange: &exchange, routing_key: &event.routing_key, properties, body: &event.body };
        noted(sending, self.session.publisher().event(outgoing).await)?;
        self.reply(event).await.map(drop)
    }

    /// Publishes a result to the message's `reply_to` alone, where it has one. Answers whether it has.
    ///
    /// # Errors
    /// Where the broker has not confirmed.
    pub async fn reply(&self, event: &Event) -> Result<bool, PublishError> {
        let reply_to = self.properties.reply_to().as_ref().map(ShortString::as_str);
        let Some(reply_to) = reply_to.filter(|name| !name.is_empty() && !self.session.names().owns(name)) else { return Ok(false) };
        let correlation_id = self.properties.correlation_id().as_ref().map_or(event.command_id.as_str(), ShortString::as_str);
        let sending = self.sending((DEFAULT_EXCHANGE, reply_to), event, correlation_id);
        let properties = event_properties(event, correlation_id, sending.context());
        if DirectReplies::takes(reply_to) {
            self.session.direct_replies().send(Reply { to: reply_to.to_owned(), properties, body: event.body.clone() });
            return Ok(true);
        }
        let outgoing = Outgoing { exchange: "", routing_key: reply_to, properties, body: &event.body };
        noted(sending, self.session.publisher().reply(outgoing).await).map(|()| true)
    }

    fn sending(&self, (exchange, routing_key): (&str, &str), event: &Event, conversation: &str) -> Span {
        let sent = Sent { exchange, routing_key, message_id: &event.id, conversation, body_size: event.body.len() };
        self.span.send(&sent)
    }

    /// Puts a copy into the dead letters, with why, and with the proof by which its replay is recognised.
    ///
    /// # Errors
    /// Where the broker has not confirmed that the queue has it.
    pub async fn dead_letter(&self, dead_id: &str, proof: &str, failure: &Failure) -> Result<(), PublishError> {
        let now = Timestamp::now();
        let mut headers = own_headers(&self.properties);
        let now = now.to_string();
        let notes = [
            (DEAD_ID, dead_id),
            (DEAD_REASON, failure.reason.as_str()),
            (DEAD_DETAIL, failure.detail.as_str()),
            (DEAD_SINCE, now.as_str()),
            (DEAD_PROOF, proof),
        ];
        for (name, value) in notes {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let queue = self.session.names().dead();
        let properties = copied(&self.properties, headers);
        self.session.publisher().surely(Outgoing { exchange: "", routing_key: &queue, properties, body: &self.message.body }).await
    }

    /// Puts a copy into the deferred queue of a delay, from where it comes back with the same routing key.
    ///
    /// # Errors
    /// Where the broker has not confirmed that the queue has it.
    pub async fn put_off(&self, delay: &str, ledger_id: &str) -> Result<(), PublishError> {
        let mut headers = own_headers(&self.properties);
        headers.insert(PUT_OFF.into(), AMQPValue::LongString(ledger_id.into()));
        let exchange = self.session.names().deferred(delay);
        let properties = copied(&self.properties, headers);
        let routing_key = self.routing_key.as_str();
        self.session.publisher().surely(Outgoing { exchange: &exchange, routing_key, properties, body: &self.message.body }).await
    }

    /// Has the broker told that we are done with it.
    pub fn acknowledge(self) {
        self.acknowledger.done(self.delivery_tag, self.held);
    }
}

/// A message as the rest of the worker sees it.
pub(crate) fn message(body: Vec<u8>, properties: &BasicProperties) -> Message {
    let text = |value: &Option<ShortString>| value.as_ref().map(|value| value.as_str().to_owned());
    let headers = properties.headers().as_ref().map(text_headers).unwrap_or_default();
    Message {
        body,
        content_type: text(properties.content_type()),
        message_id: text(properties.message_id()),
        user_id: text(properties.user_id()),
        timestamp: *properties.timestamp(),
        unreadable: headers.get(UNREADABLE).cloned(),
        headers,
    }
}

/// The headers by which whoever publishes a message has the broker put copies into further queues. On a message of ours they
/// would do so with our rights: into queues of the producer's choice, and in a circle.
const ROUTING: [&str; 2] = ["CC", "BCC"];

/// The message's own headers, without the traces of its way through the queues, which only grow, and without what would
/// send it elsewhere.
pub(crate) fn own_headers(properties: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if !ROUTING.contains(&name.as_str()) && !is_brokers_own(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// The message's own properties with other headers. Not its `user_id`, which the broker takes from nobody but the
/// user itself, and not its expiration, which would lose it.
pub(crate) fn copied(own: &BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut copy = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
    let texts: [(&Option<ShortString>, SetText); 7] = [
        (own.content_type(), BasicProperties::with_content_type),
        (own.content_encoding(), BasicProperties::with_content_encoding),
        (own.correlation_id(), BasicProperties::with_correlation_id),
        (own.reply_to(), BasicProperties::with_reply_to),
        (own.message_id(), BasicProperties::with_message_id),
        (own.kind(), BasicProperties::with_type),
        (own.app_id(), BasicProperties::with_app_id),
    ];
    for (value, set) in texts {
        if let Some(value) = value {
            copy = set(copy, value.clone());
        }
    }
    match own.timestamp() {
        Some(timestamp) => copy.with_timestamp(*timestamp),
        None => copy,
    }
}

/// Ends the span of a publish, with how it went.
fn noted(sending: Span, published: Result<(), PublishError>) -> Result<(), PublishError> {
    if let Err(error) = &published {
        sending.fail(error.kind());
    }
    published
}

fn event_properties(event: &Event, correlation_id: &str, trace: Option<&TraceContext>) -> BasicProperties {
    let mut properties = BasicProperties::default();
    if let Some(trace) = trace {
        let mut headers = FieldTable::default();
        for (name, value) in trace.headers() {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        properties = properties.with_headers(headers);
    }
    properties
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(event.id.as_str().into())
        .with_correlation_id(correlation_id.into())
        .with_type(event.kind.as_str().into())
        .with_timestamp(event.time.as_second().try_into().unwrap_or_default())
        .with_app_id("kf-worker".into())
}

fn text_headers(headers: &FieldTable) -> std::collections::BTreeMap<String, String> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    headers.inner().iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect()
}
