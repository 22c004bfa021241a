//! Whatever is delivered: a command that keeps every rule, a refusal in a line of words, or something that can't be answered.
//!
//! An input is a message: properties and headers (`message_id: c1`), an empty line, the body.

use super::commands::{assert_command, assert_failure, is_id};
use super::reading::message;
use crate::command::{Decoded, Message, TraceContext, decode};

pub fn holds(input: &[u8]) -> bool {
    let Some(message) = message(input) else { return false };
    let decoded = decode(&message);
    match &decoded {
        Decoded::Command(command) => assert_command(command),
        Decoded::Refused(refused) => {
            assert!(is_id(&refused.given.command_id));
            assert_failure(&refused.failure);
        }
        Decoded::Unreadable(failure) => assert_failure(failure),
    }
    assert_eq!(format!("{:?}", decode(&message)), format!("{decoded:?}"), "it means the same each time");
    if let Some(context) = TraceContext::of(&message) {
        assert_passed_on(&context);
    }
    true
}

/// A trace goes on as it came, in headers that anybody takes.
fn assert_passed_on(context: &TraceContext) {
    let headers = context.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(TraceContext::of(&Message { headers, ..Message::default() }).as_ref(), Some(context));
    assert_eq!((context.trace_id().len(), context.span_id().len(), context.flags().len()), (32, 16, 2));
    assert!(context.headers().all(|(_, value)| value.chars().all(|c| matches!(c, ' '..='~'))));
}
