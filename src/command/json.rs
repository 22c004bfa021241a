//! A JSON tree that remembers duplicate keys, and one spelling for equal values.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// A JSON value. Unlike `serde_json::Value` an object keeps every pair, so that duplicate keys can be refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The first value of a key, where this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.pairs().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// How often a key stands in this object.
    pub fn count(&self, key: &str) -> usize {
        self.keys().filter(|name| *name == key).count()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs().iter().map(|(name, _)| name.as_str())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// A key that stands twice in one object, at any depth.
    pub fn duplicate_key(&self) -> Option<&str> {
        match self {
            Self::Array(items) => items.iter().find_map(Self::duplicate_key),
            Self::Object(pairs) => {
                let mut names: Vec<&str> = self.keys().collect();
                names.sort_unstable();
                let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
                twice.or_else(|| pairs.iter().find_map(|(_, value)| value.duplicate_key()))
            }
            _ => None,
        }
    }

    /// This object in a spelling that equal content shares, without some of its keys.
    pub fn canonical_without(&self, keys: &[&str]) -> String {
        let kept = self.pairs().iter().filter(|(name, _)| !keys.contains(&name.as_str()));
        let mut text = String::new();
        write_object(&mut text, kept);
        text
    }

    fn pairs(&self) -> &[(String, Json)] {
        match self {
            Self::Object(pairs) => pairs,
            _ => &[],
        }
    }

    fn write_canonical(&self, text: &mut String) {
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => write_number(text, number),
            Self::String(string) => write_string(text, string),
            Self::Array(items) => {
                text.push('[');
                for item in items {
                    item.write_canonical(text);
                    text.push(',');
                }
                text.push(']');
            }
            Self::Object(pairs) => write_object(text, pairs.iter()),
        }
    }
}

fn write_object<'a>(text: &mut String, pairs: impl Iterator<Item = &'a (String, Json)>) {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    text.push('{');
    for (name, value) in pairs {
        write_string(text, name);
        text.push(':');
        value.write_canonical(text);
        text.push(',');
    }
    text.push('}');
}

/// `1`, `1.0` and `1e0` are one value: whole numbers are written as integers.
fn write_number(text: &mut String, number: &Number) {
    let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0);
    // Writing to a String can't fail.
    let _ = match whole {
        Some(float) => write!(text, "{float:.0}"),
        None => write!(text, "{number}"),
    };
}

/// Length first: no string can be mistaken for another's beginning, and nothing needs escaping.
fn write_string(text: &mut String, string: &str) {
    let _ = write!(text, "{}\"{string}\"", string.len());
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        // JSON has no NaN and no infinity, so this is always a number.
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Json::Object(pairs))
    }
}
