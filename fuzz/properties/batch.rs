//! Whatever file `send --file` is given: commands that keep the rules, or every fault with its line; and the file of those that
//! failed says the same again.
//!
//! An input is the file's name and, where one is given, the batch's (`hires.csv 2026-03`), an empty line, the file.

use std::collections::BTreeSet;
use std::path::Path;

use super::commands::assert_command;
use super::reading::{assert_line, head_and_body};
use crate::cli::send::batch::{BatchError, Faults, Format, read_bytes};
use crate::cli::send::failed::written;
use crate::cli::send::order::Order;
use crate::cli::send::progress::{Answer, Progress};
use crate::command::{Decoded, Message, decode};
use crate::event::{Told, ToldError};

pub fn holds(input: &[u8]) -> bool {
    let Some((head, content)) = head_and_body(input) else { return false };
    let (name, batch) = match head.split_once(' ') {
        Some((name, batch)) => (name, Some(batch).filter(|batch| (1..=100).contains(&batch.len()))),
        None => (head, None),
    };
    let printable = batch.is_none_or(|batch| batch.chars().all(|c| matches!(c, ' '..='~')));
    // The system hands a name over as it is; that it has no control characters is the shell's concern.
    if !printable || name.chars().any(char::is_control) {
        return false;
    }
    let Some(format) = Format::of(Path::new(name)) else { return false };
    match read_bytes(Path::new(name), content, format, batch) {
        Ok(orders) => {
            assert_orders(content, &orders);
            assert_sent_again(format, &orders);
        }
        Err(error) => assert_faults(content, &error),
    }
    true
}

/// Each has an id of its own and a line of the file, and keeps the rules as it is sent.
fn assert_orders(content: &[u8], orders: &[Order]) {
    let (mut ids, mut before) = (BTreeSet::new(), 0);
    for order in orders {
        let line = order.line.expect("it comes from a file");
        assert!(before < line && line <= lines(content), "line {line} after {before}");
        before = line;
        assert!(ids.insert(order.command_id()), "{} twice", order.command_id());
        let message_id = Some(order.command_id().to_owned());
        let message = Message { body: order.body.clone(), message_id, ..Message::default() };
        let Decoded::Command(command) = decode(&message) else { panic!("what is sent is no command: {order:?}") };
        assert_command(&command);
    }
}

/// What was not sent keeps its id in the file of what failed. What has failed is given another, and is the same otherwise.
fn assert_sent_again(format: Format, orders: &[Order]) {
    let unsent: Vec<Progress> = orders.iter().map(|_| Progress::Unsent).collect();
    let again = read_again(format, orders, &unsent);
    assert!(again.iter().map(as_given).eq(orders.iter().map(as_given)));
    let failed: Vec<Progress> = orders.iter().map(failed).collect();
    let mended = read_again(format, orders, &failed);
    assert!(mended.iter().map(content).eq(orders.iter().map(content)));
    assert!(mended.iter().zip(1..).all(|(order, row)| order.command_id() == format!("again/{row}")));
}

fn read_again(format: Format, orders: &[Order], progress: &[Progress]) -> Vec<Order> {
    let (text, count) = written(format, orders, progress).expect("it is written");
    assert_eq!(count, orders.len());
    read_bytes(Path::new("failed"), &text, format, Some("again")).unwrap_or_else(|error| panic!("{error}"))
}

/// It has failed for a reason with words that a table could stumble over.
fn failed(order: &Order) -> Progress {
    let detail = format!("\"{}\", \r\n{}", order.kf_account, order.given.nickname.as_deref().unwrap_or_default());
    let error = Some(ToldError { reason: "nickname_refused".to_owned(), detail, ..ToldError::default() });
    let told = Told { status: "failed".to_owned(), error, ..Told::default() };
    Progress::Answered(Box::new(Answer { data: String::new(), told, repeat: false }))
}

fn as_given(order: &Order) -> String {
    serde_json::to_string(&order.given).expect("it is written")
}

fn content(order: &Order) -> String {
    serde_json::to_string(&order.fields(None)).expect("it is written")
}

fn assert_faults(content: &[u8], error: &BatchError) {
    let told = error.to_string();
    assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
    assert!(told.lines().count() <= 22, "{told}");
    let BatchError::Faults(Faults { faults, .. }) = error else { return };
    assert!(faults.is_sorted_by_key(|(line, _)| *line));
    for (line, what) in faults {
        assert!((1..=lines(content)).contains(line), "line {line}: {what}");
        assert_line(what);
    }
}

fn lines(content: &[u8]) -> u64 {
    1 + content.iter().filter(|byte| **byte == b'\n').count() as u64
}
