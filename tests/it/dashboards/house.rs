//! Rules of our own for dashboards, each as a test that also sees it broken.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::alerts::words::{complaint, unknown_words};

use super::linter::{Rule, a_panel, a_variable, ask, assert_kept, choice, is_rabbitmqs, of_panels, of_selectors};
use super::{Dashboard, dashboards, list, text};

#[test]
fn the_official_account_and_the_job_of_rabbitmq_are_variables() {
    let rule: Rule =
        |dashboard| [choice(dashboard, "official_account", "Official Account"), choice(dashboard, "rabbitmq_job", "RabbitMQ job")].concat();
    assert_kept(rule, |dashboard| a_variable(dashboard, "rabbitmq_job")["name"] = json!("broker"));
}

#[test]
fn only_the_chosen_official_accounts_are_asked() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let about_one = selector.name.starts_with("kf_official_account_") || selector.name.starts_with("kf_token_");
            let chosen = ["$official_account", "$official_account|platform .+"]
                .iter()
                .any(|value| selector.matches("official_account", "=~", value));
            (about_one && !chosen).then(|| "has no official_account=~\"$official_account\"".to_owned())
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(kf_official_account_paused)"));
}

#[test]
fn queues_are_found_whatever_their_prefix() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let queue = selector.matchers.iter().find(|(label, _, _)| label == "queue");
            let free = queue.is_some_and(|(_, operator, value)| operator == "=~" && value.starts_with("${prefix}[.]"));
            (is_rabbitmqs(selector) && !free).then(|| "names no queue after the prefix".to_owned())
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(rabbitmq_detailed_queue_messages{queue=\"kf.commands\"})"));
}

#[test]
fn the_prefix_of_queues_is_the_one_that_workers_have_by_default() {
    let rule: Rule = |dashboard| {
        let is_default =
            |variable: &&Value| variable["name"] == "prefix" && variable["query"] == "kf" && variable["current"]["value"] == "kf";
        if dashboard.variables().any(|variable| is_default(&variable)) { vec![] } else { vec!["the prefix is not kf".to_owned()] }
    };
    assert_kept(rule, |dashboard| a_variable(dashboard, "prefix")["query"] = json!(".+"));
}

#[test]
fn panels_ask_for_words_that_the_worker_has() {
    let rule: Rule = |dashboard| {
        let unknown = |target: super::Target| {
            let unknown = unknown_words(&target.expression);
            (!unknown.is_empty()).then(|| format!("{}: no series has {unknown:?}", target.panel))
        };
        dashboard.targets().into_iter().filter_map(unknown).collect()
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(kf_ready{reason=\"tired\"})"));
}

#[test]
fn the_commands_that_a_panel_names_are_the_programs() {
    let rule: Rule = |dashboard| {
        of_panels(dashboard, |panel| {
            let named = text(panel, "description").split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("kf-worker "));
            named.map(|words| words.split_whitespace().collect::<Vec<_>>()).find_map(|words| complaint(&words))
        })
    };
    assert_kept(rule, |dashboard| {
        a_panel(dashboard)["description"] = json!("Bad: see what `kf-worker check --no-such-option` says of it.")
    });
}

#[test]
fn ratios_have_no_answer_rather_than_a_wrong_one_where_nothing_happened() {
    let rule: Rule = |dashboard| {
        let divides = |target: &super::Target| target.expression.contains(") / ");
        let guarded = |target: &super::Target| {
            target.expression.split(") / ").skip(1).all(|divisor| divisor.starts_with('(') && divisor.contains("> 0)"))
        };
        dashboard.targets().into_iter().filter(|target| divides(target) && !guarded(target)).map(|target| target.panel).collect()
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(kf_ready) / sum(kf_ready)"));
}

#[test]
fn a_dashboard_is_of_the_schema_that_grafana_ten_and_later_read_and_of_no_installation() {
    let rule: Rule = |dashboard| {
        let wanted = [("schemaVersion", json!(39)), ("id", Value::Null), ("uid", json!(format!("kf-worker-{}", dashboard.name)))];
        wanted
            .into_iter()
            .filter(|(key, value)| dashboard.json[key] != *value)
            .map(|(key, value)| format!("{key} is not {value}"))
            .collect()
    };
    assert_kept(rule, |dashboard| dashboard["id"] = json!(7));
}

#[test]
fn the_dashboards_lead_to_each_other_and_keep_what_was_chosen() {
    let rule: Rule = |dashboard| {
        let others: Vec<String> = dashboards().iter().map(|other| format!("/d/kf-worker-{}", other.name)).collect();
        let own = format!("/d/kf-worker-{}", dashboard.name);
        let leads = |url: &String| {
            list(&dashboard.json, "links").any(|link| text(link, "url") == url && link["includeVars"] == true && link["keepTime"] == true)
        };
        others.into_iter().filter(|url| *url != own && !leads(url)).map(|url| format!("no link to {url}")).collect()
    };
    assert_kept(rule, |dashboard| dashboard["links"][0]["includeVars"] = json!(false));
}

#[test]
fn panels_have_numbers_and_places_of_their_own() {
    let rule: Rule = |dashboard| {
        let rows = list(&dashboard.json, "panels").filter(|panel| panel["type"] == "row");
        let all: Vec<&Value> = dashboard.panels().into_iter().chain(rows).collect();
        let numbers: BTreeSet<i64> = all.iter().filter_map(|panel| panel["id"].as_i64()).collect();
        let mut taken = BTreeSet::new();
        let mut faults = if numbers.len() == all.len() { vec![] } else { vec!["two panels have one number".to_owned()] };
        for panel in all {
            let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_i64().unwrap_or(-1));
            let mut squares = (x..x + width).flat_map(|column| (y..y + height).map(move |line| (column, line)));
            let free = squares.all(|square| taken.insert(square));
            if !free || x < 0 || x + width > 24 || width < 1 || height < 1 {
                faults.push(format!("“{}” lies upon another or beside the page", text(panel, "title")));
            }
        }
        faults
    };
    assert_kept(rule, |dashboard| a_panel(dashboard)["gridPos"] = json!({"x": 0, "y": 0, "w": 24, "h": 100}));
}

/// The runbooks that a description names, as in “runbook dead-letters” and “runbooks backlog-old and dead-letters”.
fn runbooks(description: &str) -> Vec<String> {
    let after = description.split("unbook").skip(1).filter_map(|after| after.split(['.', ';', ':', ',', '(', ')']).next());
    let words = after.flat_map(str::split_whitespace).filter(|word| word.contains('-'));
    words.map(str::to_owned).collect()
}

/// The names of the runbooks that there are.
fn pages() -> BTreeSet<String> {
    let files = super::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks"), ".md");
    let names = files.iter().filter_map(|file| file.file_stem()).map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "README").collect()
}

#[test]
fn a_runbook_that_a_panel_names_is_there() {
    let rule: Rule = |dashboard| {
        of_panels(dashboard, |panel| {
            let missing: Vec<_> = runbooks(text(panel, "description")).into_iter().filter(|name| !pages().contains(name)).collect();
            (!missing.is_empty()).then(|| format!("names runbooks that there aren't: {missing:?}"))
        })
    };
    assert_kept(rule, |dashboard| a_panel(dashboard)["description"] = json!("Bad: runbooks dead-letters and no-such-page."));
}

#[test]
fn every_runbook_is_named_by_a_panel() {
    let boards = dashboards();
    let panels = boards.iter().flat_map(Dashboard::panels);
    let named: BTreeSet<String> = panels.flat_map(|panel| runbooks(text(panel, "description"))).collect();
    let forgotten: Vec<_> = pages().into_iter().filter(|page| !named.contains(page)).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}
