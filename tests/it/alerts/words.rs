//! What rules, runbooks and panels may name: metrics, words on their labels, and commands of the program that there really are.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::LazyLock;

use kf_worker::metrics::Metrics;

/// Labels whose values nobody can know before: those of operators, of RabbitMQ, and the errcodes, which appear when first met.
const FREE: [&str; 6] = ["job", "instance", "official_account", "vhost", "queue", "errcode"];

/// A field of commands that looks like a metric.
const FIELD: &str = "kf_account";

/// Every series of a worker that knows one Official Account and one host.
static SERIES: LazyLock<String> = LazyLock::new(|| {
    let metrics = Metrics::new().expect("the metrics are sound");
    metrics.knows_official_account("test");
    metrics.wechat_host("api.example.com", true);
    metrics.text().expect("the metrics can be written")
});

/// Every name in a text that begins with `kf_`.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kf_") && *word != FIELD).collect()
}

/// Every name that the worker's metrics have in Prometheus.
fn known_metrics() -> BTreeSet<String> {
    let names = Metrics::ALL.iter().flat_map(|entry| match entry.kind {
        "histogram" => ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", entry.name)).to_vec(),
        _ => vec![entry.name.to_owned()],
    });
    names.collect()
}

#[track_caller]
pub fn assert_known_metrics(place: &str, text: &str) {
    let known = known_metrics();
    let unknown: Vec<&str> = metrics_in(text).into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "{place}: the worker has no {unknown:?}");
}

/// The words that conditions on labels name: `reason`, `a` and `reason`, `b` for `reason=~"a|b"`.
fn conditions(expression: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("=\"").or_else(|| rest.find("~\"")) {
        let at = rest.find("~\"").map_or(at, |other| at.min(other));
        let label = rest[..at].trim_end_matches(['=', '!', '~']).rsplit(['{', ',', ' ']).next().unwrap_or_default();
        let value = &rest[at + 2..];
        let end = value.find('"').expect("a text ends");
        found.extend(value[..end].split('|').map(|word| (label, word)));
        rest = &value[end + 1..];
    }
    found
}

/// What an expression demands of labels that no series of the worker has.
pub fn unknown_words(expression: &str) -> Vec<String> {
    let demanded = conditions(expression).into_iter().filter(|(label, _)| !FREE.contains(label));
    demanded.map(|(label, word)| format!("{label}=\"{word}\"")).filter(|condition| !SERIES.contains(condition)).collect()
}

/// The program's complaint about words behind its name, if it has one. It reads what stands before `--help` first, and
/// complains of an option or a word that it doesn't know.
pub fn complaint(arguments: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kf-worker")).args(arguments).arg("--help").env_remove("KF_CONFIG").output();
    let output = output.expect("the program runs");
    (!output.status.success()).then(|| format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn conditions_on_labels_are_read_in_every_form() {
    let text = r#"sum(a_total{x="1",y=~"2|3"}) / b{z!="4"} > c{w!~"5"}"#;
    assert_eq!(conditions(text), [("x", "1"), ("y", "2"), ("y", "3"), ("z", "4"), ("w", "5")]);
}

#[test]
fn a_word_that_no_series_has_is_found() {
    let text = r#"a{endpoint=~"token|authorizer_token", answered="false", job=~"$job", errcode!="0", result="lost"}"#;
    assert_eq!(unknown_words(text), ["endpoint=\"authorizer_token\"", "result=\"lost\""]);
}

#[test]
fn a_command_that_the_program_does_not_have_is_complained_of() {
    assert!(complaint(&["check", "--no-such-option"]).is_some() && complaint(&["no-such-command"]).is_some());
    assert_eq!(complaint(&["check"]), None);
}
