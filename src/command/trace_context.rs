//! The W3C trace context that came with a message: by it a producer's trace goes on beyond the worker.

use std::sync::Arc;

use serde::Deserialize;

use super::{BINARY_PREFIXES, MAX_BODY, Message, is_structured};

/// The header's name, and that of a CloudEvent's attribute.
const PARENT: &str = "traceparent";
/// The header in which tracing systems keep what is their own.
const STATE: &str = "tracestate";
/// Whoever passes a longer one on does more than he has to.
const LONGEST_STATE: usize = 512;

/// Which trace something belongs to, and what in it caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`, in small hexadecimal letters.
    parent: Arc<str>,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Takes a `traceparent` of version 00. A `tracestate` that can't be passed on is left out.
    pub fn new(parent: &str, state: Option<&str>) -> Option<Self> {
        let state = state.filter(|state| is_state(state));
        is_parent(parent).then(|| Self { parent: parent.into(), state: state.map(Arc::from) })
    }

    /// The context of a message: its AMQP header's, else that of the CloudEvent in it. One that can't be read is none.
    pub fn of(message: &Message) -> Option<Self> {
        let under = |prefix: &str| {
            // Most messages have no headers, and no name has to be put together for them.
            let header = |name: &str| message.headers.get(&format!("{prefix}{name}")).map(String::as_str);
            if message.headers.is_empty() { None } else { Self::new(header(PARENT)?, header(STATE)) }
        };
        under("").or_else(|| BINARY_PREFIXES.into_iter().find_map(under)).or_else(|| Self::of_structured(message))
    }

    fn of_structured(message: &Message) -> Option<Self> {
        #[derive(Deserialize)]
        struct Attributes {
            traceparent: Option<String>,
            tracestate: Option<String>,
        }
        if !is_structured(message) || message.body.len() > MAX_BODY {
            return None;
        }
        let attributes: Attributes = serde_json::from_slice(&message.body).ok()?;
        Self::new(&attributes.traceparent?, attributes.tracestate.as_deref())
    }

    /// The whole trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.part(1)
    }

    /// The id of what caused it, 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        self.part(2)
    }

    /// Two hexadecimal digits; the lowest bit says that the trace is recorded.
    pub fn flags(&self) -> &str {
        self.part(3)
    }

    /// What tracing systems keep of their own.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The header that passes the trace on to somebody else's systems.
    pub fn parent(&self) -> (&'static str, &str) {
        (PARENT, &self.parent)
    }

    /// The headers that pass it on, by name, with what tracing systems keep of their own.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [(PARENT, Some(&*self.parent)), (STATE, self.state())].into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    fn part(&self, index: usize) -> &str {
        self.parent.split('-').nth(index).unwrap_or_default()
    }
}

fn is_parent(text: &str) -> bool {
    let hexadecimal = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str, length: usize| hexadecimal(part, length) && part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let mut next = || parts.next().unwrap_or_default();
    next() == "00" && id(next(), 32) && id(next(), 16) && hexadecimal(next(), 2) && parts.next().is_none()
}

/// It becomes an HTTP header as it is, so nothing but printable ASCII is taken.
fn is_state(text: &str) -> bool {
    (1..=LONGEST_STATE).contains(&text.len()) && text.bytes().all(|b| matches!(b, 0x20..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn with_headers(headers: &[(&str, &str)]) -> Message {
        Message { headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), ..Message::default() }
    }

    #[test]
    fn a_context_is_read_in_parts_and_passed_on_as_it_came() {
        let context = TraceContext::of(&with_headers(&[(PARENT, PRODUCER), (STATE, "vendor=x,other=y")])).unwrap();
        assert_eq!((context.trace_id(), context.span_id()), ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"));
        assert_eq!((context.flags(), context.state()), ("01", Some("vendor=x,other=y")));
        assert_eq!(context.parent(), (PARENT, PRODUCER));
        assert_eq!(context.headers().collect::<Vec<_>>(), [(PARENT, PRODUCER), (STATE, "vendor=x,other=y")]);
    }

    #[test]
    fn what_is_not_of_version_00_is_ignored() {
        for wrong in [
            "",
            "x",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx: y",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::of(&with_headers(&[(PARENT, wrong), (STATE, "a=b")])), None, "{wrong:?}");
        }
        assert_eq!(TraceContext::of(&with_headers(&[(STATE, "a=b")])), None, "a state alone belongs to nothing");
    }

    #[test]
    fn a_state_that_cannot_be_passed_on_is_left_out() {
        let state = |text: &str| TraceContext::new(PRODUCER, Some(text)).unwrap().state().map(str::to_owned);
        let longest = format!("a={}", "x".repeat(LONGEST_STATE - 2));
        assert_eq!(state(&longest), Some(longest.clone()));
        for wrong in ["", "a=客", "a=b\r\nc: d", &format!("{longest}x")] {
            assert_eq!(state(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_cloud_event_may_carry_it_and_the_plain_header_wins() {
        for prefix in ["ce-", "ce_", "cloudEvents:", "cloudEvents_"] {
            let name = format!("{prefix}{PARENT}");
            let message = with_headers(&[(name.as_str(), PRODUCER), (&format!("{prefix}{STATE}"), "a=b")]);
            assert_eq!(TraceContext::of(&message), TraceContext::new(PRODUCER, Some("a=b")), "{prefix}");
            let both = with_headers(&[(name.as_str(), PRODUCER), (PARENT, OTHER)]);
            assert_eq!(TraceContext::of(&both), TraceContext::new(OTHER, None), "{prefix}");
        }
        let structured = |content_type: &str| Message {
            content_type: Some(content_type.to_owned()),
            body: format!(r#"{{"specversion":"1.0","id":"c","traceparent":"{PRODUCER}","tracestate":"a=b","data":{{}}}}"#).into_bytes(),
            ..Message::default()
        };
        let event = structured("application/cloudevents+json; charset=utf-8");
        assert_eq!(TraceContext::of(&event), TraceContext::new(PRODUCER, Some("a=b")));
        assert_eq!(TraceContext::of(&structured("application/json")), None);
        let padded = |length: usize| {
            let mut body = event.body.clone();
            body.resize(length, b' ');
            TraceContext::of(&Message { body, ..event.clone() })
        };
        assert!(padded(MAX_BODY).is_some());
        assert_eq!(padded(MAX_BODY + 1), None, "a body that is too large is not read");
        assert_eq!(padded(2 * MAX_BODY), None);
        let headers = with_headers(&[(PARENT, OTHER)]).headers;
        assert_eq!(TraceContext::of(&Message { headers, ..event }), TraceContext::new(OTHER, None));
    }
}
