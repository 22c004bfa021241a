//! What is wrong with a configuration: every fault with its key and where its value was given.

use std::fmt;

use super::file::Origin;

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The full key (`retry.max_age`), or empty where the file as a whole is meant.
    pub key: String,
    /// Where its value was given.
    pub origin: Option<Origin>,
    /// What is wrong and what to do, never the value of a secret.
    pub what: String,
}

/// Every fault that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, noun) = (self.0.len(), if self.0.len() == 1 { "fault" } else { "faults" });
        write!(formatter, "the configuration has {count} {noun}:")?;
        for Fault { key, origin, what } in &self.0 {
            formatter.write_str("\n  ")?;
            if let Some(origin) = origin {
                write!(formatter, "{origin}: ")?;
            }
            if !key.is_empty() {
                write!(formatter, "{key}: ")?;
            }
            formatter.write_str(what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
