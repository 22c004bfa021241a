//! Takes values by their full key from the file and the environment, and keeps account of faults and of what nobody took.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use super::faults::{Fault, Faults};
use super::file::{Entry, Origin, Value, read_file};
use super::in_force::{Setting, Settings, Source, brief};
use super::secret_files::SecretFiles;

/// All given values by full key; entries of `[[table]]` lists are counted from 0 (`official_account.0.app_id`).
pub struct Reader {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Keys that somebody asked for, whether given or not.
    pub(super) known: BTreeSet<String>,
    /// What each of them amounts to.
    pub(super) settings: Settings,
    /// Where the entries of a list came from that have a file of their own.
    files: BTreeMap<String, Origin>,
    /// Where systemd has put what its unit calls credentials.
    pub(super) credentials: Option<PathBuf>,
    pub(super) secret_files: SecretFiles,
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    /// Reads the file and lays the environment over it: `KF_` and the path with `__` (`KF_AMQP__URL`).
    pub fn open(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Faults> {
        let mut entries = match file {
            Some(path) => read_file(path).map_err(|fault| Faults(vec![fault]))?,
            None => BTreeMap::new(),
        };
        let (mut credentials, mut faults) = (None, Vec::new());
        for (name, value) in environment {
            // What is no text is no name of ours.
            let Ok(name) = name.into_string() else { continue };
            if name == "CREDENTIALS_DIRECTORY" {
                credentials = Some(PathBuf::from(value));
                continue;
            }
            // Every key has a section, so `__` tells ours from others, such as those that Kubernetes sets for a service.
            let Some(path) = name.strip_prefix("KF_").filter(|path| path.contains("__")) else { continue };
            let key = path.to_ascii_lowercase().replace("__", ".");
            let value = value.into_string().unwrap_or_else(|_| {
                let origin = Some(Origin::Environment(name.clone()));
                faults.push(Fault { key: key.clone(), origin, what: "is not UTF-8".to_owned() });
                String::new()
            });
            entries.insert(key, Entry { value: Value::Environment(value), origin: Origin::Environment(name) });
        }
        let (known, files, secret_files) = (BTreeSet::new(), BTreeMap::new(), SecretFiles::default());
        Ok(Self { entries, known, settings: Settings::default(), files, credentials, secret_files, faults })
    }

    /// Notes a fault.
    pub fn fault(&mut self, key: &str, what: impl Into<String>) {
        let file = || self.files.get(key.rsplit_once('.')?.0);
        let origin = self.entries.get(key).map(|entry| &entry.origin).or_else(file).cloned();
        self.faults.push(Fault { key: key.to_owned(), origin, what: what.into() });
    }

    /// Reads every `.toml` file of a folder as one more entry of a `[[table]]` list, in the order of their names.
    pub fn include(&mut self, key: &str, folder: &Path, list: &str) {
        let files = std::fs::read_dir(folder).and_then(|files| files.map(|file| Ok(file?.path())).collect::<std::io::Result<Vec<_>>>());
        let mut files = match files {
            Ok(files) => files,
            Err(error) => return self.fault(key, format!("the folder {} can't be read: {error}", folder.display())),
        };
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let first =
            self.tables(list).iter().filter_map(|entry| entry.rsplit_once('.')?.1.parse().ok()).max().map_or(0, |last: usize| last + 1);
        for (index, path) in (first..).zip(files) {
            let entry = format!("{list}.{index}");
            match read_file(&path) {
                Ok(values) => self.entries.extend(values.into_iter().map(|(name, value)| (format!("{entry}.{name}"), value))),
                Err(fault) => self.faults.push(fault),
            }
            self.files.insert(entry, Origin::File { path, line: 1 });
        }
    }

    /// Whether a key is given.
    pub fn is_given(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A text, or its default.
    pub fn text(&mut self, key: &str, default: &str) -> String {
        let text = self.untold_text(key, default);
        self.tell(key, (!text.is_empty()).then_some(text.as_str()));
        text
    }

    /// The same for a text that may be nobody's business.
    pub(super) fn untold_text(&mut self, key: &str, default: &str) -> String {
        match self.take(key) {
            None => default.to_owned(),
            Some(Value::Text(text) | Value::Environment(text)) => text,
            Some(other) => self.wrong(key, "a text in quotes", &other, default.to_owned()),
        }
    }

    /// Notes what a key amounts to, for whoever asks; nothing where it has no value, or a faulty one.
    pub fn tell(&mut self, key: &str, value: impl Into<Json>) {
        let source = self.entries.get(key).map_or(Source::Default, |entry| Source::Given(entry.origin.clone()));
        self.settings.tell(Setting::new(key, value.into(), source));
    }

    /// What every key that was asked for amounts to.
    pub fn settings(&self) -> Vec<Setting> {
        self.settings.all()
    }

    /// A text that must be given and not empty.
    pub fn required(&mut self, key: &str) -> String {
        let given = self.is_given(key);
        let text = self.text(key, "");
        if !given {
            self.fault(key, "is missing");
        } else if text.is_empty() {
            self.fault(key, "is empty");
        }
        text
    }

    /// The files that secrets were read from so far.
    pub fn secret_files(&self) -> SecretFiles {
        self.secret_files.clone()
    }

    /// A whole number within a range, or its default.
    pub fn integer(&mut self, key: &str, default: i64, range: RangeInclusive<i64>) -> i64 {
        let number = match self.take(key) {
            None => Some(default),
            Some(Value::Integer(number)) => Some(number),
            Some(Value::Environment(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let number = number.filter(|number| range.contains(number));
        self.tell(key, number);
        number.unwrap_or_else(|| {
            self.fault(key, format!("is not a whole number from {} to {}", range.start(), range.end()));
            default
        })
    }

    /// A number from 0 to 1, or its default.
    pub fn ratio(&mut self, key: &str, default: f64) -> f64 {
        let ratio = match self.take(key) {
            None => Some(default),
            Some(Value::Fraction(ratio)) => Some(ratio),
            Some(Value::Integer(whole @ 0..=1)) => Some(if whole == 0 { 0.0 } else { 1.0 }),
            Some(Value::Environment(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
        self.tell(key, ratio);
        ratio.unwrap_or_else(|| {
            self.fault(key, "is not a number from 0 to 1, such as 0.1");
            default
        })
    }

    /// A duration such as `500ms`, `2m` or `90d`, longer than nothing; or its default.
    pub fn duration(&mut self, key: &str, default: Duration) -> Duration {
        let text = match self.take(key) {
            None => brief(default),
            Some(Value::Text(text) | Value::Environment(text)) => text,
            Some(_) => String::new(),
        };
        match humantime::parse_duration(&text) {
            Ok(duration) if !duration.is_zero() => {
                self.tell(key, text);
                duration
            }
            _ => {
                self.tell(key, Json::Null);
                self.fault(key, "is not a duration such as \"500ms\", \"20s\", \"2m\", \"48h\" or \"90d\"");
                default
            }
        }
    }

    /// `true` or `false`, or its default.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        let flag = match self.take(key) {
            None => Some(default),
            Some(Value::Flag(flag)) => Some(flag),
            Some(Value::Environment(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        self.tell(key, flag);
        flag.unwrap_or_else(|| {
            self.fault(key, "is neither true nor false");
            default
        })
    }

    /// One of a few words, or its default.
    pub fn choice<T: Copy + PartialEq>(&mut self, key: &str, choices: &[(&str, T)], default: T) -> T {
        let usual = choices.iter().find(|(_, value)| *value == default).map_or("", |(word, _)| *word);
        let text = self.untold_text(key, usual);
        let chosen = choices.iter().find(|(word, _)| *word == text);
        self.tell(key, chosen.map(|(word, _)| *word));
        chosen.map_or_else(
            || {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.fault(key, format!("is not one of {}", words.join(", ")));
                default
            },
            |(_, value)| *value,
        )
    }

    /// A list of texts, or its default. In the environment they are parted by commas.
    pub fn list(&mut self, key: &str, default: &[&str]) -> Vec<String> {
        let list = self.untold_list(key, default);
        self.tell(key, list.clone());
        list
    }

    /// The same for texts that may be nobody's business.
    pub(super) fn untold_list(&mut self, key: &str, default: &[&str]) -> Vec<String> {
        match self.take(key) {
            None => default.iter().map(|item| (*item).to_owned()).collect(),
            Some(Value::List(items)) => items,
            Some(Value::Environment(text)) => text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect(),
            Some(other) => self.wrong(key, "a list of texts", &other, Vec::new()),
        }
    }

    /// The keys of a `[[table]]` list's entries: `name.0`, `name.1` and so on.
    pub fn tables(&mut self, name: &str) -> Vec<String> {
        let prefix = format!("{name}.");
        let index = |key: &String| key.strip_prefix(&prefix)?.split('.').next()?.parse::<usize>().ok();
        let indices: BTreeSet<usize> = self.entries.keys().filter_map(index).collect();
        indices.into_iter().map(|index| format!("{name}.{index}")).collect()
    }

    /// The value, if no fault was found; every key that nobody knows is one.
    pub fn finish<T>(mut self, value: T) -> Result<T, Faults> {
        self.refuse_unknown("");
        self.finish_part(value)
    }

    /// The same for one section: what else is given is no concern of who reads no more than this.
    pub fn finish_section<T>(mut self, section: &str, value: T) -> Result<T, Faults> {
        self.refuse_unknown(&format!("{section}."));
        self.finish_part(value)
    }

    fn refuse_unknown(&mut self, within: &str) {
        let unknown = self.entries.keys().filter(|key| key.starts_with(within) && !self.known.contains(*key));
        for key in unknown.cloned().collect::<Vec<_>>() {
            let what = match self.similar(&key) {
                Some(similar) => format!("is not known; did you mean `{similar}`?"),
                None => "is not known".to_owned(),
            };
            self.fault(&key, what);
        }
    }

    /// The value, if no fault was found in what was asked for.
    pub fn finish_part<T>(self, value: T) -> Result<T, Faults> {
        if self.faults.is_empty() { Ok(value) } else { Err(Faults(self.faults)) }
    }

    fn similar(&self, key: &str) -> Option<&String> {
        let distance = |known: &String| strsim::damerau_levenshtein(known, key);
        self.known.iter().min_by_key(|known| distance(known)).filter(|known| distance(known) <= 3)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.insert(key.to_owned());
        self.entries.get(key).map(|entry| entry.value.clone())
    }

    fn wrong<T>(&mut self, key: &str, wanted: &str, given: &Value, default: T) -> T {
        let given = match given {
            Value::Text(_) | Value::Environment(_) => "a text",
            Value::Integer(_) | Value::Fraction(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::List(_) => "a list",
            Value::Other(kind) => kind,
        };
        self.fault(key, format!("is {given} and not {wanted}"));
        default
    }
}
