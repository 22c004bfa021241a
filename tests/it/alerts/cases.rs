//! The cases of `promtool test rules`: they hold, and for each rule one of them fails where it never fires, always fires, or doesn't wait.

use std::fs;

use serde_json::json;
use tokio::task::block_in_place;

use super::{Rule, all, case_files, folder};
use crate::support::prometheus::promtool;

/// How a rule is broken.
#[derive(Clone, Copy)]
enum Break {
    /// It fires in no case: only a case in which it should fire can notice.
    Never,
    /// It fires wherever it doesn't anyway: only a case in which it should be silent can notice.
    Always,
    /// It fires without waiting: only a case just before can notice.
    AtOnce,
}

impl Break {
    fn apply(self, rule: &mut Rule) {
        match self {
            Self::Never => rule.expression = format!("({}) and on () (vector(1) == 0)", rule.expression),
            Self::Always => rule.expression = format!("({}) or on () vector(1)", rule.expression),
            Self::AtOnce => rule.hold = 0.0,
        }
    }
}

/// Whether the cases of an alert hold with these rules in place of its own.
fn hold_with(rules: &[Rule]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = rules[0].page();
    let rules = rules.iter().map(|rule| {
        json!({
            "alert": rule.alert, "expr": rule.expression, "for": format!("{}s", rule.hold),
            "labels": rule.labels, "annotations": rule.annotations,
        })
    });
    // JSON is YAML too.
    let file = json!({"groups": [{"name": "one", "rules": rules.collect::<Vec<_>>()}]});
    fs::write(folder.path().join("kf-worker.rules.yml"), file.to_string()).expect("a file can be written");
    fs::create_dir(folder.path().join("tests")).expect("a folder can be made");
    let own = case_files().into_iter().filter(|name| name.split('.').next() == Some(page));
    let copies = own.map(|name| {
        let copy = folder.path().join("tests").join(&name);
        fs::copy(super::folder().join("tests").join(name), &copy).expect("the cases can be copied");
        copy.to_string_lossy().into_owned()
    });
    let copies: Vec<String> = copies.collect();
    assert!(!copies.is_empty(), "{page} has its cases");
    test_rules(&copies)
}

fn test_rules(files: &[String]) -> Result<(), String> {
    let arguments: Vec<&str> = ["test", "rules"].into_iter().chain(files.iter().map(String::as_str)).collect();
    promtool(&arguments, "")
}

/// Breaks every rule in turn.
async fn each_is_noticed(how: Break, breakable: impl Fn(&Rule) -> bool) {
    let all = all().await;
    let mut unnoticed = Vec::new();
    for (broken, rule) in all.iter().enumerate().filter(|(_, rule)| breakable(rule)) {
        let siblings = all.iter().enumerate().filter(|(_, other)| other.alert == rule.alert);
        let rules = siblings.map(|(number, other)| {
            let mut other = other.clone();
            if number == broken {
                how.apply(&mut other);
            }
            other
        });
        let rules: Vec<Rule> = rules.collect();
        if block_in_place(|| hold_with(&rules)).is_ok() {
            unnoticed.push(rule.name());
        }
    }
    assert!(unnoticed.is_empty(), "no case notices that these rules are broken: {unnoticed:#?}");
}

#[test]
fn every_case_holds() {
    let files: Vec<String> = case_files().iter().map(|name| folder().join("tests").join(name).to_string_lossy().into_owned()).collect();
    test_rules(&files).unwrap_or_else(|complaints| panic!("{complaints}"));
}

/// Without this a broken rule might be noticed only since it was written down otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn the_cases_of_each_alert_hold_with_its_rules_alone_as_prometheus_tells_them() {
    let all = all().await;
    let mut alerts: Vec<&str> = all.iter().map(|rule| rule.alert.as_str()).collect();
    alerts.dedup();
    for alert in alerts {
        let rules: Vec<Rule> = all.iter().filter(|rule| rule.alert == alert).cloned().collect();
        block_in_place(|| hold_with(&rules)).unwrap_or_else(|complaints| panic!("{complaints}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_has_a_case_in_which_it_fires() {
    each_is_noticed(Break::Never, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_has_a_case_in_which_it_is_silent() {
    each_is_noticed(Break::Always, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_that_waits_has_a_case_just_before_it_fires() {
    each_is_noticed(Break::AtOnce, |rule| rule.hold > 0.0).await;
}
