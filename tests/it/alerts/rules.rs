//! Each rule by itself: promtool finds nothing to complain of, it says what an operator needs, and it names what there is.

use std::fs;
use std::process::Command;

use super::words::{assert_known_metrics, unknown_words};
use super::{all, case_files, file};
use crate::support::prometheus::promtool;

/// Under this address the repository stands in the rules, until operators put their own.
const BASE: &str = "https://git.example.com/kf-worker/blob/main/docs/runbooks/";
/// Those who get alerts choose by these.
const SEVERITIES: [&str; 2] = ["critical", "warning"];

fn check(file: &str) -> Result<(), String> {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", file], "")
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
    for rule in all().await {
        assert_known_metrics(&rule.name(), &format!("{} {}", rule.expression, rule.annotation("description")));
        assert_eq!(unknown_words(&rule.expression), Vec::<String>::new(), "{}", rule.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_has_its_cases_and_each_file_of_cases_an_alert() {
    let mut pages: Vec<&str> = all().await.iter().map(super::Rule::page).collect();
    pages.push("healthy-and-idle");
    pages.sort_unstable();
    pages.dedup();
    let files = case_files();
    let stems = files.iter().map(|name| name.strip_suffix(".test.yml").unwrap_or_else(|| panic!("{name} is no file of cases")));
    let mut named: Vec<&str> = stems.filter_map(|stem| stem.split('.').next()).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, pages);
}

/// The commands at the head of the file, carried out upon a copy of it.
#[test]
fn what_the_head_tells_to_put_in_place_of_addresses_and_prefix_leaves_none_of_them() {
    let text = fs::read_to_string(file()).expect("the rules can be read");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#     ")).filter(|line| line.starts_with("sed ")).collect();
    assert_eq!(commands.len(), 2, "one for the runbooks' addresses, one for the prefix");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("kf-worker.rules.yml");
    fs::copy(file(), &copy).expect("the rules can be copied");
    for command in commands {
        let status = Command::new("sh").args(["-c", command]).current_dir(folder.path()).status().expect("a shell runs");
        assert!(status.success(), "{command}");
    }
    let changed = fs::read_to_string(&copy).expect("the rules can be read");
    let rules = changed.split_once("\ngroups:").expect("the rules follow").1;
    assert!(!rules.contains("kf[.]") && !rules.contains("git.example.com"), "{rules}");
    let told = |text: &str, prefix: &str| text.split_once("\ngroups:").map_or(0, |(_, rules)| rules.matches(prefix).count());
    assert_eq!(told(&changed, "YOUR-PREFIX[.]"), told(&text, "kf[.]"));
    check(copy.to_str().expect("the path is text")).unwrap_or_else(|complaints| panic!("{complaints}"));
}
