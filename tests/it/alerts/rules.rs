//! Each rule by itself: promtool finds nothing to complain of, it says what an operator needs, and it names what there is.

use std::fs;

use kf_worker::metrics::Metrics;

use super::{all, assert_known_metrics, conditions, file, folder, promtool};

/// Under this address the repository stands in the rules, until operators put their own.
const BASE: &str = "https://git.example.com/kf-worker/blob/main/docs/runbooks/";
/// Those who get alerts choose by these.
const SEVERITIES: [&str; 2] = ["critical", "warning"];

fn check(file: &str) -> Result<(), String> {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", file])
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    check(file().to_str().expect("the path is text")).unwrap_or_else(|complaints| panic!("{complaints}"));
}

#[test]
fn promtool_complains_of_a_rule_that_stands_there_twice_and_of_a_broken_one() {
    let text = fs::read_to_string(file()).expect("the rules can be read");
    let twice = format!("{text}  - name: again\n{}", text.split_once("kf-worker-availability\n").expect("a first group").1);
    let broken = text.replacen("max by (job) (kf_ready) == 0", "max by (job (kf_ready) == 0", 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for wrong in [twice, broken] {
        let file = folder.path().join("wrong.yml");
        fs::write(&file, wrong).expect("a file can be written");
        assert!(check(file.to_str().expect("the path is text")).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_says_how_bad_it_is_what_it_is_and_where_its_runbook_is() {
    for rule in all().await {
        let name = rule.name();
        assert!(rule.alert.starts_with("KfWorker"), "{name}");
        let severity = rule.labels["severity"].as_str().unwrap_or_default();
        assert!(SEVERITIES.contains(&severity), "{name}: {severity:?} is no severity");
        for text in ["summary", "description"] {
            assert!(
                rule.annotation(text).ends_with('.') || rule.annotation(text).ends_with("{{ end }}"),
                "{name}: its {text} is no sentence"
            );
        }
        assert_eq!(rule.annotation("runbook_url"), format!("{BASE}{}.md", rule.page()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_one_alert_share_a_runbook_and_other_alerts_have_others() {
    let rules = all().await;
    for rule in rules {
        for other in rules {
            assert_eq!(rule.alert == other.alert, rule.page() == other.page(), "{} and {}", rule.name(), other.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_names_metrics_and_words_that_the_worker_has() {
    let metrics = Metrics::new().expect("the metrics are sound");
    metrics.knows_official_account("test");
    let text = metrics.text().expect("the metrics can be written");
    for rule in all().await {
        assert_known_metrics(&rule.name(), &format!("{} {}", rule.expression, rule.annotation("description")));
        // RabbitMQ's labels are its own.
        for (label, word) in conditions(&rule.expression).into_iter().filter(|(label, _)| *label != "queue") {
            assert!(text.contains(&format!("{label}=\"{word}\"")), "{}: no series has {label}=\"{word}\"", rule.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_has_its_cases_and_each_file_of_cases_an_alert() {
    let mut pages: Vec<&str> = all().await.iter().map(super::Rule::page).collect();
    pages.push("healthy-and-idle");
    pages.sort_unstable();
    pages.dedup();
    let entries = fs::read_dir(folder().join("tests")).expect("there are cases");
    let names = entries.map(|entry| entry.expect("a folder can be read").file_name().to_string_lossy().into_owned());
    let mut files: Vec<String> = names.map(|name| name.trim_end_matches(".test.yml").to_owned()).collect();
    files.sort_unstable();
    assert_eq!(files, pages);
}
