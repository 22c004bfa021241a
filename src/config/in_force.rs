//! What every key amounts to, and where that comes from; nothing secret among it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::file::Origin;

/// What is shown of a secret.
pub const HIDDEN: &str = "(hidden)";

/// One key with its value in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The full key (`retry.max_age`); the entries of lists are counted from 0 (`official_account.0.wechat_id`).
    pub key: String,
    /// Null where there is none, or where what was given can't be used.
    pub value: Value,
    pub source: Source,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Default,
    Given(Origin),
    /// A file that holds nothing else.
    SecretFile(PathBuf),
}

impl Source {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Given(Origin::File { .. }) => "file",
            Self::Given(Origin::Environment(_)) => "environment",
            Self::SecretFile(_) => "secret_file",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Given(origin) => origin.fmt(formatter),
            Self::SecretFile(path) => write!(formatter, "secret in {}", path.display()),
        }
    }
}

impl Setting {
    /// An address in which something stands that may be a password is not shown: where one belongs nowhere it is a fault, and its
    /// text is here all the same.
    pub fn new(key: &str, value: Value, source: Source) -> Self {
        let may_hold_secret = |text: &str| text.contains("://") && text.contains(['@', '?', '#']);
        let secret = match &value {
            Value::String(text) => may_hold_secret(text),
            Value::Array(items) => items.iter().filter_map(Value::as_str).any(may_hold_secret),
            _ => false,
        };
        Self { key: key.to_owned(), value: if secret { HIDDEN.into() } else { value }, source }
    }
}

/// All of them, in the order in which they were first asked for.
#[derive(Default)]
pub struct Settings {
    by_key: BTreeMap<String, (usize, Setting)>,
}

impl Settings {
    /// Notes what a key amounts to; what was noted before is forgotten.
    pub fn tell(&mut self, setting: Setting) {
        let next = self.by_key.len();
        let place = self.by_key.get(&setting.key).map_or(next, |(place, _)| *place);
        self.by_key.insert(setting.key.clone(), (place, setting));
    }

    /// Says how a secret may be shown: by what of it is none. Where it comes from stays.
    pub fn show(&mut self, key: &str, shown: String) {
        if let Some((_, setting)) = self.by_key.get_mut(key) {
            setting.value = shown.into();
        }
    }

    /// All, a section after the other.
    pub fn all(&self) -> Vec<Setting> {
        let mut all: Vec<&(usize, Setting)> = self.by_key.values().collect();
        all.sort_by_key(|(place, _)| *place);
        let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
        let mut sections: Vec<String> = Vec::new();
        for (_, setting) in &all {
            let section = section(&setting.key);
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        all.sort_by_key(|(_, setting)| sections.iter().position(|known| *known == section(&setting.key)));
        all.into_iter().map(|(_, setting)| setting.clone()).collect()
    }
}

/// A duration as people write it in the configuration.
pub fn brief(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let millis = duration.as_millis();
    let fitting = UNITS.iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    fitting.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        for text in ["500ms", "5s", "90s", "2m", "10m", "1h", "2d", "90d", "1500ms"] {
            assert_eq!(brief(humantime::parse_duration(text).unwrap()), text);
        }
    }
}
