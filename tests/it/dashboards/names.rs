//! No dashboard or alert names a metric that there isn't, and no metric of the worker is on none of the dashboards.

use std::collections::BTreeSet;

use kf_worker::metrics::Metrics;

use super::dashboards;
use super::evidence::evidence;
use super::promql::selectors;

/// What Prometheus itself knows of every target, whether it could be scraped.
const PROMETHEUS: &str = "up";

/// A histogram's name for one of its series; every other name as it is.
fn whole(name: &str, known: &BTreeSet<String>) -> String {
    let stem = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    stem.filter(|stem| known.contains(*stem)).unwrap_or(name).to_owned()
}

/// The names of the worker's own metrics, by the table that they are made from.
fn own() -> BTreeSet<String> {
    Metrics::ALL.iter().map(|entry| entry.name.to_owned()).collect()
}

/// The names of all that was scraped from the worker, its process's metrics included.
fn scraped() -> BTreeSet<String> {
    let own = own();
    let all = evidence().workers.iter().filter(|name| name.starts_with("kf_") || name.starts_with("process_"));
    all.map(|name| whole(name, &own)).collect()
}

fn on_dashboards() -> BTreeSet<String> {
    let own = own();
    let targets = dashboards().into_iter().flat_map(|dashboard| {
        let variables = dashboard.variable_queries().into_iter().map(|(target, _)| target);
        dashboard.targets().into_iter().chain(variables).collect::<Vec<_>>()
    });
    targets.flat_map(|target| selectors(&target.expression)).map(|selector| whole(&selector.name, &own)).collect()
}

fn in_alerts() -> BTreeSet<String> {
    let own = own();
    let queries = evidence().alerts.iter().filter_map(|alert| alert["query"].as_str());
    queries.flat_map(selectors).map(|selector| whole(&selector.name, &own)).collect()
}

#[test]
fn every_metric_of_the_worker_is_on_a_dashboard() {
    let shown = on_dashboards();
    let all = &own() | &scraped();
    let hidden: Vec<_> = all.into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn dashboards_and_alerts_name_only_metrics_that_there_are() {
    let there: BTreeSet<String> =
        scraped().into_iter().chain(evidence().rabbitmqs.iter().cloned()).chain([PROMETHEUS.to_owned()]).collect();
    let named = &on_dashboards() | &in_alerts();
    let unknown: Vec<_> = named.into_iter().filter(|name| !there.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_worker_in_trouble_has_shown_every_metric_that_it_has() {
    let there = scraped();
    let missing: Vec<_> = own().into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
