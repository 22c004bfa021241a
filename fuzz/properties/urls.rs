//! Whatever is given for a URL of broker or ledger: neither what is shown of it nor what is said against it holds the password.
//!
//! An input has four lines: scheme, user, password, and the rest from the host on. In the password `*` stands for the mark.

use super::MARK;
use super::reading::assert_line;
use crate::broker::BrokerUrl;
use crate::ledger::Place;

pub fn holds(input: &[u8]) -> bool {
    let Ok(input) = std::str::from_utf8(input) else { return false };
    let [scheme, user, password, rest] = input.split('\n').collect::<Vec<_>>()[..] else { return false };
    // What ends a URL's authority can't be part of a user, and a file's path is no secret.
    if user.contains(['/', '@', '?', '#', ':', '\\']) || scheme.starts_with("sqlite") || [scheme, user, rest].concat().contains(MARK) {
        return false;
    }
    let url = format!("{scheme}://{user}:{}@{rest}", password.replace('*', MARK));
    match BrokerUrl::parse(&url) {
        Ok(mut read) => {
            assert_hidden(&format!("{read} {read:?}"), &url);
            assert!(read.take_up(&read.clone()), "its own place is its own");
        }
        Err(fault) => assert_fault(&fault, &url),
    }
    match Place::parse(&url) {
        Ok(read) => {
            assert_hidden(&format!("{read} {read:?}"), &url);
            assert!(read.take_up(&read.clone()), "its own place is its own");
        }
        Err(fault) => assert_fault(fault, &url),
    }
    true
}

fn assert_fault(fault: &str, url: &str) {
    assert_line(fault);
    assert_hidden(fault, url);
}

fn assert_hidden(shown: &str, url: &str) {
    assert!(!shown.contains(MARK), "{shown} of {url}");
}
