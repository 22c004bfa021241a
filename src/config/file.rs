//! The values as they were given: by their full keys, each with where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::Fault;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File { path: PathBuf, line: usize },
    Environment(String),
}

/// As people look it up.
impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => write!(formatter, "environment {name}"),
        }
    }
}

/// A value as it was given.
#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    Integer(i64),
    Fraction(f64),
    Flag(bool),
    List(Vec<String>),
    /// From the environment: what it is meant to be, the taker knows.
    Environment(String),
    /// Something that no key takes; the word names it.
    Other(&'static str),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub value: Value,
    pub origin: Origin,
}

/// Reads a file: all its values by full key; entries of `[[table]]` lists are counted from 0 (`official_account.0.app_id`).
pub fn read_file(path: &Path) -> Result<BTreeMap<String, Entry>, Fault> {
    let whole = |origin, what: String| Fault { key: String::new(), origin, what };
    let text = std::fs::read_to_string(path)
        .map_err(|error| whole(None, format!("the file {} can't be read: {error}; name one with --config or KF_CONFIG", path.display())))?;
    let table = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(&text, span.start));
        whole(Some(Origin::File { path: path.to_owned(), line }), format!("is not TOML: {}", error.message()))
    })?;
    let mut entries = BTreeMap::new();
    flatten(&mut entries, &File { path, text: &text }, "", table.get_ref());
    Ok(entries)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

fn flatten(entries: &mut BTreeMap<String, Entry>, file: &File<'_>, prefix: &str, table: &DeTable<'_>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        flatten_value(entries, file, key, value);
    }
}

fn flatten_value(entries: &mut BTreeMap<String, Entry>, file: &File<'_>, key: String, value: &Spanned<DeValue<'_>>) {
    let plain = match value.get_ref() {
        DeValue::Table(table) if !table.is_empty() => return flatten(entries, file, &key, table),
        DeValue::Array(items) if items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))) => {
            for (index, item) in items.iter().enumerate() {
                flatten_value(entries, file, format!("{key}.{index}"), item);
            }
            return;
        }
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map_or(Value::Other("a list with something else than texts"), Value::List)
        }
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix()).map_or(Value::Other("a number beyond all bounds"), Value::Integer)
        }
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Float(number) => {
            let digits = number.as_str().replace('_', "");
            digits.parse().map_or(Value::Other("a number beyond all bounds"), Value::Fraction)
        }
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("an empty table"),
    };
    let line = line_of(file.text, value.span().start);
    entries.insert(key, Entry { value: plain, origin: Origin::File { path: file.path.to_owned(), line } });
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
