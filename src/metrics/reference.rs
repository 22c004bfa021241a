//! The reference page of all metrics, made from their table, so that it can't be wrong.

use std::fmt::Write as _;

use super::{CallClass, DRIFT, Entry, EventEnd, FETCHES, LedgerOperation, Metrics, words};
use crate::outcome::{Action, Reason, Status};
use crate::readiness::NotReady;

const PAGE: &str = "docs/metrics.md";

const HEAD: &str = "\
# Metrics

<!-- Made from the code by `make reference`. -->

`GET /metrics` on the admin port (`admin.listen`) answers them in Prometheus' text format. Units are seconds, bytes and counts;
times are seconds since 1970. Every label set is there from the start at 0, save those that can't be known before: errcodes, and
the pauses of one Official Account, appear when they are first met, and what is unknown is `NaN`. No label holds a person's name,
an account's name, or anything that a producer can invent.

[`dashboards/`](../dashboards/README.md) has dashboards and alerts that use them.
";

const PROCESS: &str = "
## Process

What Prometheus' clients tell of every process: `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_threads`, `process_start_time_seconds`.
";

/// The whole page.
fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for entry in Metrics::ALL {
        if entry.section != section {
            section = entry.section;
            let _ = write!(page, "\n## {section}\n\n| metric | kind | labels | what it is |\n| --- | --- | --- | --- |\n");
        }
        let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
        let Entry { name, kind, .. } = entry;
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {}.{} |", labels.join(", "), entry.help.trim(), buckets(entry));
    }
    page.push_str(PROCESS);
    page.push_str("\n## Labels\n\n| label | values |\n| --- | --- |\n");
    for (label, values) in labels() {
        let _ = writeln!(page, "| `{label}` | {values} |");
    }
    page.push_str(&how_many());
    page
}

fn buckets(entry: &Entry) -> String {
    let bounds: Vec<String> = entry.buckets.iter().map(f64::to_string).collect();
    if bounds.is_empty() { String::new() } else { format!(" Buckets up to {} s", bounds.join(", ")) }
}

fn labels() -> Vec<(&'static str, String)> {
    fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
        words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    }
    vec![
        ("action", format!("{}; `unknown` where it could not be read", list(Action::ALL.iter().map(|word| word.as_str())))),
        ("status", list(Status::ALL.iter().map(|word| word.as_str()))),
        (
            "reason",
            "one of [Reasons](reasons.md); of `kf_results_total`: `none` for a success; of `kf_not_ready`: ".to_owned()
                + &list(NotReady::ALL.iter().map(|word| word.as_str())),
        ),
        ("official_account", "the WeChat ID of a configured Official Account; of tokens also `platform` and the AppID of one".to_owned()),
        ("endpoint", list(words::ENDPOINTS)),
        ("class", list(CallClass::ALL.iter().map(|word| word.as_str()))),
        ("errcode", "one that the worker knows, else `other`".to_owned()),
        ("host", "name and port of `wechat.base_url` and `wechat.fallback_urls`".to_owned()),
        ("answered", list(["true", "false"])),
        ("kind", list(DRIFT)),
        ("result", format!("of tokens {}; of events {}", list(FETCHES), list(EventEnd::ALL.iter().map(|word| word.as_str())))),
        ("operation", list(LedgerOperation::ALL.iter().map(|word| word.as_str()))),
        ("version", "the worker's version".to_owned()),
    ]
}

fn how_many() -> String {
    let series = |official_accounts: usize| {
        let metrics = Metrics::new().unwrap();
        metrics.wechat_host("api.weixin.qq.com", true);
        for number in 0..official_accounts {
            metrics.knows_official_account(&format!("account-{number}"));
        }
        metrics.text().unwrap().lines().filter(|line| !line.starts_with('#')).count()
    };
    let (one, two) = (series(1), series(2));
    format!(
        "
## How many

A worker with one Official Account and one host shows {one} series. Each further Official Account adds {more}, and one for each
reason for which it was ever paused (of {reasons}); each further host adds 3. An errcode that is met adds 1 for its endpoint.

Measured on two cores: one Official Account makes a scrape of 30 kB that takes 1.4 ms, a thousand make one of 870 kB that takes
18 ms (medians of 60).
",
        more = two - one,
        reasons = Reason::PAUSING.len(),
    )
}

#[test]
fn the_reference_of_metrics_is_made_from_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("KF_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "{PAGE} is not what the code says; `make reference` writes it anew");
}

#[test]
fn every_label_is_explained() {
    let explained: Vec<&str> = labels().into_iter().map(|(label, _)| label).collect();
    for label in Metrics::ALL.iter().flat_map(|entry| entry.labels) {
        assert!(explained.contains(label), "{label}");
    }
}
