//! Whatever stands in file and environment: settings that fit together, or faults that name their keys; no secret in either's words.
//!
//! An input is the environment (`KF_AMQP__PREFIX=kf`), an empty line, the file. The mark is put into every secret that it gives.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::MARK;
use super::reading::head_and_body;
use crate::config::{Config, Faults, in_force, load};

/// The last words of keys whose values are secrets.
const SECRETS: [&str; 7] =
    ["app_secret", "refresh_token", "token_url", "token_headers", "verify_ticket_url", "verify_ticket_headers", "authorization"];
/// The only URLs that hold passwords end so before their host.
const PASSWORD: &str = ":guest@";

pub fn holds(input: &[u8]) -> bool {
    let Some((head, body)) = head_and_body(input) else { return false };
    let Ok(body) = std::str::from_utf8(body) else { return false };
    if is_out_of_bounds(head) || is_out_of_bounds(body) {
        return false;
    }
    let file: String = body.lines().map(|line| marked(line) + "\n").collect();
    let environment: Vec<(OsString, OsString)> = head.lines().filter_map(variable).collect();
    let path = std::env::temp_dir().join(format!("kf-worker-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, file).expect("a file");
    let loaded = load(Some(&path), environment.clone());
    let (settings, faults) = in_force(Some(&path), environment);
    std::fs::remove_file(&path).expect("it was there");
    match loaded {
        Ok(config) => {
            assert_eq!(faults, None);
            assert_fits_together(&config);
        }
        Err(told) => {
            assert_named(&told);
            assert_eq!(faults, Some(told));
        }
    }
    let shown: String = settings.iter().map(|setting| format!("{setting:?} {}\n", setting.source)).collect();
    assert!(!shown.contains(MARK), "{shown}");
    true
}

/// What would read the machine's own devices, or let a secret's line be a part of another value.
fn is_out_of_bounds(text: &str) -> bool {
    [MARK, "/dev", "/proc", "/sys", "\"\"\"", "'''"].iter().any(|word| text.contains(word))
}

/// A line of the file, with the mark in the secret that it gives.
fn marked(line: &str) -> String {
    let Some((name, value)) = line.split_once('=') else { return line.to_owned() };
    match (name.trim(), value.find('"')) {
        ("url", _) => line.replace(PASSWORD, &format!(":{MARK}@")),
        (name, Some(quote)) if SECRETS.contains(&name) => {
            let (before, rest) = value.split_at(quote + 1);
            format!("{name} ={before}{MARK}{rest}")
        }
        _ => line.to_owned(),
    }
}

fn variable(line: &str) -> Option<(OsString, OsString)> {
    let (name, value) = line.split_once('=')?;
    let key = name.to_ascii_lowercase();
    let value = match SECRETS.iter().any(|secret| key.ends_with(&format!("__{secret}"))) {
        true => format!("{MARK}{value}"),
        false if matches!(name, "KF_AMQP__URL" | "KF_LEDGER__URL") => value.replace(PASSWORD, &format!(":{MARK}@")),
        false => value.to_owned(),
    };
    Some((name.into(), value.into()))
}

fn assert_fits_together(config: &Config) {
    let retry = &config.retry;
    assert!(usize::from(config.broker.window) >= config.worker.concurrency && config.worker.calls_share > 0);
    assert!(retry.initial <= retry.max_interval && retry.max_interval <= retry.max_in_process && retry.max_in_process < retry.max_age);
    assert!(config.ledger.retention > config.ledger.patience && config.ledger.patience > retry.max_age);
    assert!(!retry.defer.is_empty() && retry.defer.is_sorted_by(|a, b| a.delay < b.delay));
    let accounts = &config.accounts.official_accounts;
    let names: BTreeSet<&str> = accounts.iter().map(|account| account.wechat_id.as_str()).collect();
    assert!(!names.is_empty() && names.len() == accounts.len() && !names.contains(""));
}

fn assert_named(faults: &Faults) {
    assert!(!faults.0.is_empty());
    for fault in &faults.0 {
        let of_the_whole = fault.what.starts_with("is not TOML") || fault.what.starts_with("the file ");
        assert!(!fault.key.is_empty() || of_the_whole, "{fault:?}");
        assert!(!fault.what.is_empty(), "{fault:?}");
    }
    let told = faults.to_string();
    assert!(!told.contains(MARK), "{told}");
    assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
    assert_eq!(told.split('\n').count(), 1 + faults.0.len(), "each has a line of its own: {told}");
}
