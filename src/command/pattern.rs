//! Patterns of kf accounts, in which `*` stands for any run of characters.

use std::str::FromStr;

/// A pattern as a person gives it to look for accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPattern(String);

/// What is wrong with a pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no kf_account, nor a pattern of one: write it with A-Z a-z 0-9 _ - @, and * for any run of characters, such as '*@test'")]
pub struct NoPattern;

impl AccountPattern {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the pattern of this account.
    pub fn fits(&self, account: &str) -> bool {
        fits(&self.0, account)
    }
}

impl FromStr for AccountPattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '@' | '*');
        if !text.is_empty() && text.chars().all(known) { Ok(Self(text.to_owned())) } else { Err(NoPattern) }
    }
}

/// Whether a text fits a pattern in which `*` stands for any run of characters.
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, whether) in [
            ("*@test", "a@test", true),
            ("*@test", "a@test2", false),
            ("a@test", "a@test", true),
            ("a@test", "ab@test", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a*b*b", "aXb", false),
            ("a*bb*c", "abbc", true),
            ("ab*ba", "aba", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), whether, "{pattern} {text}");
        }
    }

    #[test]
    fn what_no_account_can_hold_is_no_pattern() {
        for wrong in ["", "a?@test", "[ab]@test", "a%@test", "a@test;", "安娜@test", "a @test"] {
            assert_eq!(wrong.parse::<AccountPattern>(), Err(NoPattern), "{wrong}");
        }
        let pattern: AccountPattern = "*_1@*-x".parse().unwrap();
        assert!(pattern.fits("a_1@b-x") && !pattern.fits("a_2@b-x"));
        assert_eq!(pattern.as_str(), "*_1@*-x");
    }
}
