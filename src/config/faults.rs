//! What is wrong with a configuration: every fault with its key and where its value was given.

use std::fmt::{self, Write as _};

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

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(formatter, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.what)
    }
}

/// Every fault that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, noun) = (self.0.len(), if self.0.len() == 1 { "fault" } else { "faults" });
        write!(formatter, "the configuration has {count} {noun}:")?;
        for fault in &self.0 {
            formatter.write_str("\n  ")?;
            for c in fault.to_string().chars() {
                // What is told may stand in the file as it likes: here it neither begins a line nor moves a cursor.
                if c.is_control() { write!(formatter, "{}", c.escape_debug())? } else { formatter.write_char(c)? }
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
