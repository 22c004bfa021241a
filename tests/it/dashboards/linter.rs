//! The rules of Grafana's dashboard-linter, each as a test that also sees it broken.

use serde_json::{Value, json};

use super::promql::{Selector, selectors};
use super::{Dashboard, dashboards, list, text};

/// What is wrong with a dashboard by one rule.
pub type Rule = fn(&Dashboard) -> Vec<String>;

/// The units that the dashboards use; Grafana has many more. A misspelt one would be shown as a word behind the number.
const UNITS: [&str; 6] = ["short", "percentunit", "s", "bytes", "cps", "reqps"];

/// Fails where a dashboard breaks the rule, and where the rule doesn't notice that a dashboard was spoiled.
#[track_caller]
pub fn assert_kept(rule: Rule, spoil: fn(&mut Value)) {
    let dashboards = dashboards();
    assert!(dashboards.len() >= 2, "the overview and the detail are found");
    let faults: Vec<String> =
        dashboards.iter().flat_map(|dashboard| rule(dashboard).into_iter().map(|fault| format!("{}: {fault}", dashboard.name))).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for mut dashboard in dashboards {
        spoil(&mut dashboard.json);
        assert!(!rule(&dashboard).is_empty(), "{}: the rule doesn't see what was done to it", dashboard.name);
    }
}

/// A panel of the dashboard that asks something, to be spoiled.
pub fn a_panel(dashboard: &mut Value) -> &mut Value {
    let panels = dashboard["panels"].as_array_mut().into_iter().flatten();
    panels.into_iter().find(|panel| panel["type"] == "timeseries").expect("a panel with a line")
}

/// The variable of this name, to be spoiled.
pub fn a_variable<'a>(dashboard: &'a mut Value, name: &str) -> &'a mut Value {
    let variables = dashboard["templating"]["list"].as_array_mut().into_iter().flatten();
    variables.into_iter().find(|variable| variable["name"] == name).expect("a variable of this name")
}

/// Makes a panel ask something else.
pub fn ask(dashboard: &mut Value, expression: &str) {
    a_panel(dashboard)["targets"][0]["expr"] = json!(expression);
}

/// The faults of single panels.
pub fn of_panels(dashboard: &Dashboard, fault: impl Fn(&Value) -> Option<String>) -> Vec<String> {
    let told = |panel: &Value| Some(format!("“{}” {}", text(panel, "title"), fault(panel)?));
    dashboard.panels().into_iter().filter_map(told).collect()
}

/// The faults of single selections of series.
pub fn of_selectors(dashboard: &Dashboard, fault: impl Fn(&Selector) -> Option<String>) -> Vec<String> {
    let told = |panel: String, selector: &Selector| Some(format!("{panel}: `{}` {}", selector.name, fault(selector)?));
    let of_target = |target: super::Target| {
        let faults = selectors(&target.expression).into_iter().filter_map(|selector| told(target.panel.clone(), &selector));
        faults.collect::<Vec<_>>()
    };
    dashboard.targets().into_iter().flat_map(of_target).collect()
}

/// Whether RabbitMQ tells it, and not the worker: it comes from another job, whose instances are RabbitMQ's nodes.
pub fn is_rabbitmqs(selector: &Selector) -> bool {
    selector.name.starts_with("rabbitmq_")
}

fn datasource(value: &Value) -> &str {
    value["datasource"]["uid"].as_str().unwrap_or_default()
}

/// A variable that takes several values, all of them by default, from the chosen Prometheus.
pub fn choice(dashboard: &Dashboard, name: &str, label: &str) -> Vec<String> {
    let Some(variable) = dashboard.variables().find(|variable| variable["name"] == name) else {
        return vec![format!("no variable `{name}`")];
    };
    let wanted =
        [("type", json!("query")), ("label", json!(label)), ("multi", json!(true)), ("includeAll", json!(true)), ("allValue", json!(".+"))];
    let wrong = wanted.iter().filter(|(key, value)| variable[key] != *value).map(|(key, value)| format!("`{name}`: {key} is not {value}"));
    let elsewhere = (datasource(variable) != "${datasource}").then(|| format!("`{name}` asks another data source"));
    wrong.chain(elsewhere).collect()
}

#[test]
fn the_data_source_is_a_variable() {
    let rule: Rule = |dashboard| {
        let found: Vec<&Value> = dashboard.variables().filter(|variable| variable["type"] == "datasource").collect();
        let named =
            |variable: &&Value| variable["name"] == "datasource" && variable["label"] == "Data source" && variable["query"] == "prometheus";
        if found.len() == 1 && found.iter().all(named) { vec![] } else { vec![format!("not one data source `datasource`: {found:?}")] }
    };
    assert_kept(rule, |dashboard| a_variable(dashboard, "datasource")["label"] = json!("Source"));
}

#[test]
fn the_job_is_a_variable() {
    assert_kept(|dashboard| choice(dashboard, "job", "Job"), |dashboard| a_variable(dashboard, "job")["allValue"] = json!(""));
}

#[test]
fn the_instance_is_a_variable() {
    let rule: Rule = |dashboard| choice(dashboard, "instance", "Instance");
    assert_kept(rule, |dashboard| a_variable(dashboard, "instance")["multi"] = json!(false));
}

#[test]
fn variables_ask_for_the_values_of_a_label() {
    let rule: Rule = |dashboard| {
        let queries = dashboard.variables().filter(|variable| variable["type"] == "query").map(|variable| text(variable, "query"));
        let is_good = |query: &str| {
            let inner =
                query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).and_then(|inner| inner.rsplit_once(", "));
            inner.is_some_and(|(expression, label)| {
                selectors(expression).len() == 1 && label.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            })
        };
        queries.filter(|query| !is_good(query)).map(|query| format!("no question of a variable: {query}")).collect()
    };
    assert_kept(rule, |dashboard| a_variable(dashboard, "job")["query"] = json!("labels(kf_build_info, job)"));
}

#[test]
fn variables_are_asked_again_when_the_shown_time_changes() {
    let rule: Rule = |dashboard| {
        let late = dashboard.variables().filter(|variable| variable["type"] == "query" && variable["refresh"] != 2);
        late.map(|variable| format!("`{}` isn't", text(variable, "name"))).collect()
    };
    assert_kept(rule, |dashboard| a_variable(dashboard, "instance")["refresh"] = json!(1));
}

#[test]
fn panels_ask_the_chosen_data_source() {
    let rule: Rule = |dashboard| {
        of_panels(dashboard, |panel| {
            let all = std::iter::once(panel).chain(list(panel, "targets"));
            all.into_iter().any(|asking| datasource(asking) != "${datasource}").then(|| "asks another data source".to_owned())
        })
    };
    assert_kept(rule, |dashboard| a_panel(dashboard)["targets"][0]["datasource"]["uid"] = json!("prometheus-1"));
}

#[test]
fn panels_have_a_title_and_a_description_that_says_something() {
    let rule: Rule = |dashboard| {
        of_panels(dashboard, |panel| {
            let mute = text(panel, "title").is_empty() || text(panel, "description").split(' ').count() < 8;
            mute.then(|| "has no title or no description".to_owned())
        })
    };
    assert_kept(rule, |dashboard| a_panel(dashboard)["description"] = json!(""));
}

#[test]
fn panels_have_a_unit() {
    let rule: Rule = |dashboard| {
        of_panels(dashboard, |panel| {
            let config = &panel["fieldConfig"];
            let overrides = list(config, "overrides").flat_map(|rule| list(rule, "properties"));
            let others = overrides.filter(|property| property["id"] == "unit").map(|property| text(property, "value"));
            let unknown = std::iter::once(text(&config["defaults"], "unit")).chain(others).find(|unit| !UNITS.contains(unit));
            unknown.map(|unit| format!("has the unit `{unit}`"))
        })
    };
    assert_kept(rule, |dashboard| a_panel(dashboard)["fieldConfig"]["defaults"]["unit"] = json!("seconds"));
}

#[test]
fn panels_ask_something() {
    let rule: Rule = |dashboard| {
        of_panels(dashboard, |panel| {
            let silent = list(panel, "targets").count() == 0 || list(panel, "targets").any(|target| text(target, "expr").is_empty());
            (silent && panel["type"] != "text").then(|| "asks nothing".to_owned())
        })
    };
    assert_kept(rule, |dashboard| a_panel(dashboard)["targets"] = json!([]));
}

#[test]
fn rates_look_back_by_the_rate_interval() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let is_rate = selector.within.last().is_some_and(|function| function == "rate" || function == "irate");
            (is_rate && selector.range.as_deref() != Some("$__rate_interval")).then(|| format!("is rated over {:?}", selector.range))
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(rate(kf_results_total[5m]))"));
}

#[test]
fn only_the_chosen_jobs_are_asked() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let variable = if is_rabbitmqs(selector) { "$rabbitmq_job" } else { "$job" };
            (!selector.matches("job", "=~", variable)).then(|| format!("has no job=~\"{variable}\""))
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(kf_ready{job=\"$job\"})"));
}

/// RabbitMQ's are the exception: each of its nodes tells of the queues that it leads, and a queue changes its node.
#[test]
fn only_the_chosen_instances_are_asked() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let wanted = is_rabbitmqs(selector) || selector.matches("instance", "=~", "$instance");
            (!wanted).then(|| "has no instance=~\"$instance\"".to_owned())
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(kf_ready{job=~\"$job\"})"));
}

#[test]
fn counters_are_shown_as_rates_or_increases() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let function = selector.within.last().map(String::as_str).unwrap_or_default();
            let is_shown = selector.range.is_some() && ["rate", "irate", "increase"].contains(&function);
            (selector.name.ends_with("_total") && !is_shown).then(|| "is shown as it is".to_owned())
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(kf_results_total)"));
}

#[test]
fn buckets_are_shown_as_quantiles() {
    let rule: Rule = |dashboard| {
        of_selectors(dashboard, |selector| {
            let shown = selector.within.iter().any(|function| function == "histogram_quantile");
            (selector.name.ends_with("_bucket") && !shown).then(|| "is shown as it is".to_owned())
        })
    };
    assert_kept(rule, |dashboard| ask(dashboard, "sum(rate(kf_ledger_seconds_bucket[$__rate_interval]))"));
}

#[test]
fn nobody_changes_a_dashboard_in_the_browser() {
    let rule: Rule = |dashboard| if dashboard.json["editable"] == false { vec![] } else { vec!["it can be edited".to_owned()] };
    assert_kept(rule, |dashboard| dashboard["editable"] = json!(true));
}
