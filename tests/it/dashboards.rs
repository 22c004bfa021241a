//! The Grafana dashboards: they keep the rules of the public dashboard linter, name each metric that there is and no other, and a
//! real Prometheus that scrapes a real worker in trouble has an answer to every question that they ask.

mod evidence;
mod house;
mod linter;
mod names;
mod promql;
mod proof;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A dashboard as its file holds it.
#[derive(Clone)]
pub struct Dashboard {
    /// The file's name without its ending.
    pub name: String,
    pub json: Value,
}

/// A question of a panel.
pub struct Target {
    /// Dashboard and title, for people.
    pub panel: String,
    pub expression: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// The files of a folder whose names end so; none where there is no such folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("a folder can be read").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

/// Every dashboard that there is.
pub fn dashboards() -> Vec<Dashboard> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a dashboard can be read");
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Dashboard { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), json }
    };
    files(&folder(), ".json").into_iter().map(read).collect()
}

/// The files of alerting rules, not those of their tests.
pub fn rule_files() -> Vec<PathBuf> {
    files(&folder().join("alerts"), ".rules.yml")
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

impl Dashboard {
    /// Its panels, those of collapsed rows included, without the rows themselves.
    pub fn panels(&self) -> Vec<&Value> {
        let outer = list(&self.json, "panels");
        outer.flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels"))).filter(|panel| text(panel, "type") != "row").collect()
    }

    pub fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["templating"], "list")
    }

    /// Everything that its panels ask.
    pub fn targets(&self) -> Vec<Target> {
        let of_panel = |panel: &Value| {
            let title = format!("{} / {}", self.name, text(panel, "title"));
            let targets = list(panel, "targets").map(move |target| (title.clone(), text(target, "expr").to_owned()));
            targets.map(|(panel, expression)| Target { panel, expression }).collect::<Vec<_>>()
        };
        self.panels().into_iter().flat_map(of_panel).collect()
    }

    /// The questions by which its variables learn what can be chosen, each without the function around it, and the label it is about.
    pub fn variable_queries(&self) -> Vec<(Target, String)> {
        let queries = self.variables().filter(|variable| text(variable, "type") == "query").map(|variable| {
            let inner = text(variable, "query").strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
            let (expression, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("a variable asks for the values of a label");
            let panel = format!("{} / variable {}", self.name, text(variable, "name"));
            (Target { panel, expression: expression.to_owned() }, label.to_owned())
        });
        queries.collect()
    }
}
