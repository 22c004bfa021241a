//! `kf-worker config`: what every key amounts to and where that comes from, and the complete example.

use clap::Subcommand;
use serde_json::{Value, json};

use super::outcomes::shown;
use super::{Configuration, Exit};
use crate::config::{EXAMPLE, Setting, in_force};

/// What to show of the configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Show every key with its value in force and where that comes from: the default, a file and its line, a variable of the
    /// environment, or the file of a secret. Secrets are hidden. Faults are told too, with exit code 78.
    #[command(after_help = "Examples:
  kf-worker config show
  kf-worker config show --json | jq -r 'select(.source != \"default\") | .key'")]
    Show {
        /// One JSON object a line: key, value (null where there is none, or none that can be used), source, and where it is.
        #[arg(long)]
        json: bool,
    },
    /// Print an example with every key, its default and what it means, to begin with.
    #[command(after_help = "Example:
  kf-worker config example > kf-worker.toml")]
    Example,
}

/// Does what is asked and answers the exit code.
pub fn config(configuration: &Configuration, what: &ConfigCommand) -> Exit {
    match what {
        ConfigCommand::Example => super::print(EXAMPLE.trim_end()),
        ConfigCommand::Show { json } => return show(configuration, *json),
    }
    Exit::Done
}

fn show(configuration: &Configuration, as_json: bool) -> Exit {
    let (settings, faults) = in_force(configuration.file(), std::env::vars_os());
    if as_json {
        for Setting { key, value, source } in &settings {
            super::print(json!({"key": key, "value": value, "source": source.as_str(), "where": source.to_string()}));
        }
    } else {
        let faulty = |key: &str| faults.as_ref().is_some_and(|faults| faults.0.iter().any(|fault| fault.key == key));
        let rows: Vec<(&str, String, String)> = settings
            .iter()
            .map(|Setting { key, value, source }| {
                let value = if value.is_null() && faulty(key) { "(faulty)".to_owned() } else { plain(value) };
                (key.as_str(), value, shown(&source.to_string()))
            })
            .collect();
        let keys = rows.iter().map(|(key, ..)| key.len()).max().unwrap_or_default();
        let values = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or_default();
        for (key, value, source) in &rows {
            super::print(format_args!("{key:keys$}  {value:values$}  {source}"));
        }
    }
    match faults {
        Some(faults) => {
            super::tell(faults);
            Exit::Configuration
        }
        None => Exit::Done,
    }
}

/// A value as a person reads it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => shown(text),
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
