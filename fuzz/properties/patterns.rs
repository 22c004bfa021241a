//! Whatever is given for an account or a pattern of accounts: taken by the contract's rules, and a pattern fits as its words say.
//!
//! An input has two lines: the pattern, the text that it may fit.

use super::commands::is_account;
use crate::command::{AccountPattern, KfAccount, fits};

pub fn holds(input: &[u8]) -> bool {
    let Some((pattern, text)) = std::str::from_utf8(input).ok().and_then(|input| input.split_once('\n')) else { return false };
    if input.len() > 200 {
        return false;
    }
    assert_eq!(fits(pattern, text), fits_by_definition(pattern, text), "{pattern:?} {text:?}");
    let known = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' | '@' | '*');
    match pattern.parse::<AccountPattern>() {
        Ok(read) => {
            assert!(!pattern.is_empty() && pattern.chars().all(known), "{pattern:?}");
            assert_eq!((read.as_str(), read.fits(text)), (pattern, fits(pattern, text)));
        }
        Err(_) => assert!(pattern.is_empty() || !pattern.chars().all(known), "{pattern:?}"),
    }
    match KfAccount::parse(text) {
        Some(account) => {
            assert!(is_account(text) && account.as_str() == text, "{text:?}");
            assert!(text.ends_with(&format!("@{}", account.wechat_id())));
            assert!(fits(text, text) && fits("*", text) && fits(&format!("*@{}", account.wechat_id()), text));
        }
        None => assert!(!is_account(text), "{text:?}"),
    }
    true
}

/// A `*` stands for nothing, or for one character and what a `*` stands for.
fn fits_by_definition(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Which beginnings of the text the pattern's beginning fits.
    let mut fitting: Vec<bool> = (0..=text.len()).map(|length| length == 0).collect();
    for letter in pattern.chars() {
        fitting = match letter {
            '*' => fitting
                .iter()
                .scan(false, |any, fits| {
                    *any |= fits;
                    Some(*any)
                })
                .collect(),
            _ => std::iter::once(false).chain((0..text.len()).map(|at| fitting[at] && text[at] == letter)).collect(),
        };
    }
    fitting[text.len()]
}
