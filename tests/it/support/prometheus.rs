//! A real Prometheus of a test's own, that scrapes what the test says and answers queries.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::{eventually, script};

/// How often everything is scraped: far more often than in production, so that a test gets its data soon.
const SCRAPE_INTERVAL: &str = "1s";

/// A server with its data, gone with this value.
pub struct Prometheus {
    url: String,
    client: reqwest::Client,
    /// The script that looks after the server.
    script: Child,
    /// Its configuration.
    _folder: TempDir,
}

/// Something that tells its metrics.
pub struct Job {
    pub name: &'static str,
    /// Host and port.
    pub target: String,
    /// Path and query.
    pub path: &'static str,
    pub parameters: &'static [(&'static str, &'static [&'static str])],
}

impl Job {
    /// The job in the words of Prometheus' configuration; JSON is YAML too.
    fn configuration(&self) -> Value {
        let parameters: serde_json::Map<String, Value> =
            self.parameters.iter().map(|(name, values)| ((*name).to_owned(), Value::from(*values))).collect();
        serde_json::json!({
            "job_name": self.name,
            "metrics_path": self.path,
            "params": parameters,
            "static_configs": [{"targets": [self.target]}],
        })
    }
}

impl Prometheus {
    /// Starts a server that scrapes these jobs and has loaded these files of rules.
    pub fn start(jobs: &[Job], rules: &[PathBuf]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let configuration = serde_json::json!({
            "global": {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL},
            "rule_files": rules,
            "scrape_configs": jobs.iter().map(Job::configuration).collect::<Vec<_>>(),
        });
        let (file, complaints) = (folder.path().join("prometheus.yml"), folder.path().join("script.log"));
        fs::write(&file, configuration.to_string()).expect("the configuration can be written");
        let errors = File::create(&complaints).expect("a file for complaints");
        let arguments: [&OsStr; 1] = [file.as_os_str()];
        let started = block_in_place(|| script::start("private-prometheus.sh", &arguments, errors.into()));
        let (url, script) = started.unwrap_or_else(|| {
            let complaints = fs::read_to_string(&complaints).unwrap_or_default();
            panic!("this test needs Prometheus and none could be started: run `make test`, which installs it: {complaints}")
        });
        // Another test may have chosen it first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { url, client: reqwest::Client::new(), script, _folder: folder }
    }

    /// What a query finds now: a series each, or its complaint.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>, String> {
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.ask(&format!("query?query={expression}")).await?;
        let series = data["result"].as_array().ok_or_else(|| format!("it is no vector: {data}"))?;
        Ok(series.iter().map(Series::from).collect())
    }

    /// Every alert that it has loaded, as Prometheus tells of it.
    pub async fn alerts(&self) -> Vec<Value> {
        let data = self.ask("rules?type=alert").await.expect("the alerts are told");
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The names of all metrics that it has ever scraped from a job.
    pub async fn names(&self, job: &str) -> Vec<String> {
        let selector = format!("{{job=\"{job}\"}}");
        let selector = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
        let names = self.ask(&format!("label/__name__/values?match[]={selector}")).await.expect("the names are told");
        serde_json::from_value(names).expect("they are a list of texts")
    }

    /// Waits until every job was scraped.
    pub async fn scraped(&self, jobs: usize) {
        eventually("everything was scraped", async || {
            let up = self.query("up == 1").await.expect("Prometheus answers");
            (up.len() == jobs).then_some(())
        })
        .await;
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        let request = self.client.get(format!("{}/api/v1/{path}", self.url)).timeout(Duration::from_secs(30));
        let text = async { request.send().await?.text().await }.await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].as_str().unwrap_or(&text).to_owned()),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // The script ends when its standard input closes, and waits until the server is gone.
        drop(self.script.stdin.take());
        block_in_place(|| self.script.wait()).ok();
    }
}

/// Runs promtool with this text as its input; its complaints where it has any.
pub fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("it can be written");
    let output = Command::new("promtool").args(arguments).stdin(file).output();
    let output = output.expect("these tests need promtool: run `make test`, which installs it with Prometheus");
    let told = || [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    if output.status.success() { Ok(()) } else { Err(told()) }
}

/// One series of an answer.
#[derive(Debug, Clone)]
pub struct Series {
    labels: Value,
    pub value: f64,
}

impl From<&Value> for Series {
    fn from(series: &Value) -> Self {
        let value = series["value"][1].as_str().and_then(|text| text.parse().ok());
        Self { labels: series["metric"].clone(), value: value.unwrap_or(f64::NAN) }
    }
}

impl Series {
    /// A label; empty where it has none of this name, as Prometheus sees it.
    pub fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }
}
