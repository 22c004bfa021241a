//! Hands what libFuzzer thinks up to the property that the environment names.
#![no_main]

use std::sync::LazyLock;

use kf_worker::fuzzing::{Property, property};
use libfuzzer_sys::{Corpus, fuzz_target};

/// Named by `fuzz/run`, since libFuzzer reads the arguments.
static PROPERTY: LazyLock<Property> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    property(&name).unwrap_or_else(|| panic!("TARGET={name} is no property"))
});

fuzz_target!(|input: &[u8]| -> Corpus { if PROPERTY(input) { Corpus::Keep } else { Corpus::Reject } });
