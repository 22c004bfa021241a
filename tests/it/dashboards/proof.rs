//! Everything that dashboards and alerts ask has an answer, and the first row of the overview tells the truth.

use std::fs;

use super::evidence::{Asked, FIRING, TRUTHS, evidence};
use super::{dashboards, rule_files};

#[track_caller]
fn assert_answered<'a>(asked: impl Iterator<Item = &'a Asked>) {
    let faults: Vec<String> = asked.filter_map(Asked::fault).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_panel_shows_something() {
    let panels = &evidence().panels;
    assert!(panels.len() >= dashboards().iter().map(|dashboard| dashboard.panels().len()).sum(), "every panel was asked");
    assert_answered(panels.iter());
}

#[test]
fn every_variable_can_be_chosen() {
    let variables = &evidence().variables;
    assert_answered(variables.iter().map(|(asked, _)| asked));
    for (asked, label) in variables {
        let without = asked.answer.iter().flatten().filter(|series| series.label(label).is_empty()).count();
        assert_eq!(without, 0, "{}: series of {} without the label `{label}`", asked.who, asked.expression);
    }
}

#[test]
fn the_first_row_of_the_overview_tells_the_truth() {
    let shown: Vec<_> = TRUTHS.iter().map(|(panel, _)| (*panel, evidence().shown(panel))).collect();
    assert_eq!(shown, TRUTHS.map(|(panel, values)| (panel, values.to_vec())));
}

#[test]
fn every_alert_is_loaded_and_evaluates() {
    let alerts = &evidence().alerts;
    let texts = rule_files().into_iter().map(|file| fs::read_to_string(file).expect("rules are text"));
    let written: usize = texts.map(|text| text.matches("- alert: ").count()).sum();
    assert!(written > 0, "there are alerts");
    assert_eq!(alerts.len(), written, "every alert is loaded");
    let ill: Vec<String> =
        alerts.iter().filter(|alert| alert["health"] != "ok").map(|alert| format!("{} {}", alert["name"], alert["lastError"])).collect();
    assert!(ill.is_empty(), "{ill:?}");
}

#[test]
fn an_alert_that_waits_for_nothing_fires_while_its_trouble_is_there() {
    assert_eq!(evidence().firing(), FIRING);
}

#[test]
fn everything_that_an_alert_looks_at_is_there() {
    assert_answered(evidence().selections.iter());
}
