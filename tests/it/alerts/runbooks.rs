//! The runbooks: one for each alert, with what an operator needs at night, and with commands and queries that work.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::words::{assert_known_metrics, complaint, unknown_words};
use super::{all, prometheus};

/// What each page tells, in this order.
const SECTIONS: [&str; 3] = ["## Confirm", "## Mend", "## Prove"];

/// Every page by its name, without the index.
fn pages() -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder()).expect("there are runbooks");
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    let pages = paths.filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".md")?.to_owned();
        Some((name, fs::read_to_string(&path).expect("a page is text")))
    });
    pages.filter(|(name, _)| name != "README").collect()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join("runbooks")
}

/// The lines of a page's blocks in a language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(fence) => inside = fence == language,
            None if inside => lines.push(line),
            None => {}
        }
    }
    lines
}

/// The arguments of a command of the program; nothing where the line is another program's.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let line = line.split(" # ").next().unwrap_or_default().split(" | ").next().unwrap_or_default();
    let words = line.split_whitespace().skip_while(|word| *word != "kf-worker");
    let words: Vec<&str> = words.skip(1).collect();
    (!words.is_empty() && !line.trim_start().starts_with("systemctl") && !line.trim_start().starts_with("journalctl")).then_some(words)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_has_a_runbook_under_its_name_and_each_runbook_an_alert() {
    let pages = pages();
    let mut unused: Vec<&str> = pages.keys().map(String::as_str).collect();
    for rule in all().await {
        unused.retain(|name| *name != rule.page());
        let page = pages.get(rule.page()).unwrap_or_else(|| panic!("{} has no page {}", rule.name(), rule.page()));
        assert_eq!(page.lines().next(), Some(format!("# {}", rule.alert).as_str()), "the heading of {}", rule.page());
    }
    assert!(unused.is_empty(), "no alert points to {unused:?}");
}

#[test]
fn each_runbook_says_what_it_means_and_how_to_confirm_mend_and_prove_it() {
    for (name, page) in pages() {
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, SECTIONS, "{name}");
        let meaning = page.lines().nth(2).unwrap_or_default();
        assert!(meaning.starts_with("**For users:** "), "{name} begins with what it means for users");
        for section in page.split("\n## ").skip(1) {
            assert!(section.lines().filter(|line| !line.is_empty()).count() > 1, "{name}: nothing under {:?}", section.lines().next());
        }
    }
}

#[test]
fn the_index_lists_every_runbook() {
    let index = fs::read_to_string(folder().join("README.md")).expect("there is an index");
    let links = index.match_indices("](").map(|(at, _)| index[at + 2..].split(')').next().unwrap_or_default());
    let mut listed: Vec<&str> = links.filter_map(|link| link.strip_suffix(".md")).filter(|link| !link.contains('/')).collect();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed, pages().keys().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn every_command_of_a_runbook_is_one_that_the_program_has() {
    let mut commands = 0;
    for (name, page) in pages() {
        for line in blocks(&page, "sh") {
            let Some(arguments) = arguments(line) else { continue };
            assert_eq!(complaint(&arguments), None, "{name}: {line}");
            commands += 1;
        }
    }
    assert!(commands > 10, "runbooks have commands, or this test has lost its way: {commands}");
}

/// Without it they tell of the vhost / alone, and nothing says so.
#[test]
fn what_rabbitmq_lists_is_listed_of_the_vhost_of_the_workers() {
    let mut lists = 0;
    for (name, page) in pages() {
        let of_a_vhost = |line: &&str| ["list_queues", "list_bindings", "list_consumers"].iter().any(|what| line.contains(what));
        for line in blocks(&page, "sh").into_iter().filter(of_a_vhost) {
            assert!(line.contains(" -p \"$VHOST\" "), "{name}: {line}");
            lists += 1;
        }
    }
    assert!(lists > 3, "runbooks list queues, or this test has lost its way: {lists}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_a_runbook_is_one_that_prometheus_understands() {
    let prometheus = prometheus(&[]);
    for (name, page) in pages() {
        assert_known_metrics(&name, &page);
        let queries = blocks(&page, "promql");
        assert!(!queries.is_empty(), "{name} has a query that proves it");
        for query in queries {
            assert_eq!(unknown_words(query), Vec::<String>::new(), "{name}: {query}");
            if let Err(complaint) = prometheus.query(query).await {
                panic!("{name}: {query}\n{complaint}");
            }
        }
    }
}

#[test]
fn every_link_of_a_runbook_leads_somewhere() {
    for (name, page) in pages() {
        for (at, _) in page.match_indices("](") {
            let link = page[at + 2..].split([')', '#']).next().unwrap_or_default();
            let there = link.is_empty() || link.starts_with("https://") || folder().join(link).exists();
            assert!(there, "{name} leads to {link}, which isn't there");
        }
    }
}
