//! Whatever stands beside a message, the broker's own traces included: the copy that is put off or kept says the same as the message,
//! goes nowhere else, and never expires.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::choices::Choices;
use crate::broker::delivery::{copied, message, own_headers};
use crate::command::{Decoded, TraceContext, decode};

/// What the broker or the worker knows of, and what looks like it.
const NAMES: [&str; 20] = [
    "x-death",
    "x-first-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
    "CC",
    "BCC",
    "cc",
    "kf-put-off",
    "kf-replay",
    "kf-dead-id",
    "kf-dead-proof",
    "traceparent",
    "tracestate",
    "ce-id",
    "ce-type",
    "ce-time",
    "cloudEvents:type",
    "cloudEvents_id",
    "X-Death",
];
/// Values that mean something to somebody.
const TEXTS: [&str; 5] = ["kf.add", "c1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "2026-03-02T08:00:00Z", "1.0"];
/// Nobody nests deeper.
const DEEPEST: u8 = 8;

pub fn holds(input: &[u8]) -> bool {
    let choices = &mut Choices(input);
    let properties = properties(choices);
    // The rest is the body.
    let body = choices.0;
    let original = message(body.to_vec(), &properties);
    let copy = copied(&properties, own_headers(&properties));
    assert_headers(&headers(&properties), &headers(&copy));
    assert_eq!((copy.expiration(), copy.user_id(), copy.delivery_mode()), (&None, &None, &Some(2)));
    assert_eq!((copy.reply_to(), copy.correlation_id()), (properties.reply_to(), properties.correlation_id()));
    let said = message(body.to_vec(), &copy);
    assert_eq!(said.timestamp, original.timestamp);
    assert_eq!(TraceContext::of(&said), TraceContext::of(&original));
    assert_eq!(meaning(&decode(&said)), meaning(&decode(&original)));
    assert_eq!(copied(&copy, own_headers(&copy)), copy, "a copy of a copy is the copy");
    true
}

/// Nothing of the broker's is copied, and all of the producer's is.
fn assert_headers(own: &FieldTable, copied: &FieldTable) {
    for (name, value) in copied.inner() {
        let name = name.as_str();
        assert!(!name.starts_with("x-death") && !name.starts_with("x-first-death-") && name != "CC" && name != "BCC", "{name}");
        assert_eq!(own.inner().get(name), Some(value));
    }
    let brokers = |name: &str| ["x-death", "x-first-", "x-last-", "x-delivery-", "x-acquired-"].iter().any(|own| name.starts_with(own));
    let lost = own
        .inner()
        .keys()
        .find(|name| !copied.inner().contains_key(name.as_str()) && !brokers(name.as_str()) && !matches!(name.as_str(), "CC" | "BCC"));
    assert_eq!(lost, None);
}

/// What of a decoded message decides what becomes of it.
fn meaning(decoded: &Decoded) -> String {
    match decoded {
        Decoded::Command(command) => format!("{} {:?} {:?}", command.given.command_id, command.content, command.sent_at),
        Decoded::Refused(refused) => format!("{} {:?} {:?}", refused.given.command_id, refused.content, refused.failure),
        Decoded::Unreadable(failure) => format!("{failure:?}"),
    }
}

fn headers(properties: &BasicProperties) -> FieldTable {
    properties.headers().clone().unwrap_or_default()
}

fn properties(choices: &mut Choices<'_>) -> BasicProperties {
    let mut properties = BasicProperties::default().with_headers(table(choices, 0));
    let setters: [fn(BasicProperties, ShortString) -> BasicProperties; 6] = [
        BasicProperties::with_content_type,
        BasicProperties::with_message_id,
        BasicProperties::with_correlation_id,
        BasicProperties::with_reply_to,
        BasicProperties::with_expiration,
        BasicProperties::with_user_id,
    ];
    for set in setters {
        if let Some(text) = choices.maybe(Choices::text) {
            properties = set(properties, text.into());
        }
    }
    if let Some(timestamp) = choices.maybe(Choices::number) {
        properties = properties.with_timestamp(timestamp);
    }
    match choices.maybe(Choices::byte) {
        Some(priority) => properties.with_priority(priority),
        None => properties,
    }
}

fn table(choices: &mut Choices<'_>, depth: u8) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in choices.list(|choices| (name(choices), value(choices, depth))) {
        table.insert(name, value);
    }
    table
}

fn name(choices: &mut Choices<'_>) -> ShortString {
    match choices.maybe(Choices::text) {
        Some(name) => name.into(),
        None => NAMES[usize::from(choices.of(20))].into(),
    }
}

fn value(choices: &mut Choices<'_>, depth: u8) -> AMQPValue {
    match choices.of(11) {
        0 => AMQPValue::LongString(TEXTS[usize::from(choices.of(5))].into()),
        1 => AMQPValue::LongString(choices.bytes().to_vec().into()),
        2 => AMQPValue::ShortString(choices.text().into()),
        3 => AMQPValue::Boolean(choices.flag()),
        4 => AMQPValue::LongLongInt(choices.number().cast_signed()),
        // What is no number is not even equal to itself.
        5 => AMQPValue::Double(Some(f64::from_bits(choices.number())).filter(|number| !number.is_nan()).unwrap_or_default()),
        6 => AMQPValue::Timestamp(choices.number()),
        7 => AMQPValue::ByteArray(choices.bytes().to_vec().into()),
        8 if depth < DEEPEST => {
            let mut list = FieldArray::default();
            choices.list(|choices| value(choices, depth + 1)).into_iter().for_each(|item| list.push(item));
            AMQPValue::FieldArray(list)
        }
        9 if depth < DEEPEST => AMQPValue::FieldTable(table(choices, depth + 1)),
        _ => AMQPValue::Void,
    }
}
