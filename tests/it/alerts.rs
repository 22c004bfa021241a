//! The alerts that operators load into Prometheus: they are sound, each fires and keeps silent when it should, and has its runbook.

mod cases;
mod rules;
mod runbooks;
pub mod words;

use std::fs;
use std::path::PathBuf;

use kf_worker::outcome::Reason;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::support::prometheus::Prometheus;

/// An alerting rule, as a real Prometheus has read it.
#[derive(Clone)]
struct Rule {
    alert: String,
    expression: String,
    /// How long it must hold before it fires, in seconds.
    hold: f64,
    labels: Value,
    annotations: Value,
}

impl Rule {
    fn read(told: &Value) -> Self {
        Self {
            alert: told["name"].as_str().expect("a rule has a name").to_owned(),
            expression: told["query"].as_str().expect("a rule has an expression").to_owned(),
            hold: told["duration"].as_f64().expect("an alert has a duration"),
            labels: told["labels"].clone(),
            annotations: told["annotations"].clone(),
        }
    }

    fn annotation(&self, name: &str) -> &str {
        self.annotations[name].as_str().unwrap_or_default()
    }

    /// The name of its runbook and of its cases, as its address ends.
    fn page(&self) -> &str {
        let file = self.annotation("runbook_url").rsplit('/').next().unwrap_or_default();
        file.strip_suffix(".md").unwrap_or_else(|| panic!("{}: its runbook_url ends in no page", self.alert))
    }

    /// What tells it from others of its alert.
    fn name(&self) -> String {
        format!("{} {}", self.alert, self.labels)
    }
}

/// The folder of the rules.
fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "dashboards", "alerts"].iter().collect()
}

fn file() -> PathBuf {
    folder().join("kf-worker.rules.yml")
}

/// The names of the files of cases. An alert's begin with the name of its page and a point.
fn case_files() -> Vec<String> {
    let entries = fs::read_dir(folder().join("tests")).expect("there are cases");
    entries.map(|entry| entry.expect("a folder can be read").file_name().to_string_lossy().into_owned()).collect()
}

/// A server that scrapes nothing.
fn prometheus(rules: &[PathBuf]) -> Prometheus {
    Prometheus::start(&[], rules)
}

/// Every rule; Prometheus is asked once, since it reads the file better than any test could.
async fn all() -> &'static [Rule] {
    static RULES: OnceCell<Vec<Rule>> = OnceCell::const_new();
    let ask = async || {
        let rules: Vec<Rule> = prometheus(&[file()]).alerts().await.iter().map(Rule::read).collect();
        assert!(!rules.is_empty(), "the file has rules");
        rules
    };
    RULES.get_or_init(ask).await
}

#[test]
fn the_reasons_for_which_wechat_counts_as_silent_are_those_that_pass() {
    let passing: Vec<&str> = Reason::PAUSING.iter().filter(|reason| reason.is_passing()).map(|reason| reason.as_str()).collect();
    let text = fs::read_to_string(file()).expect("the rules can be read");
    assert!(text.contains(&format!("reason=~\"{}\"", passing.join("|"))), "{passing:?}");
}
