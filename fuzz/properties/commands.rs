//! The contract's rules for a command, written anew from the contract, so that they agree with the worker's own by more than habit.

use std::collections::BTreeMap;

use super::reading::assert_line;
use crate::command::{Command, Decoded, Message, decode};
use crate::outcome::{Action, Failure};

/// Whether a text is a command id.
pub fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| matches!(c, ' '..='~'))
}

/// Whether a text is a kf account.
pub fn is_account(text: &str) -> bool {
    let word = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_');
    let parts: Vec<&str> = text.split('@').collect();
    let [prefix, wechat_id] = parts[..] else { return false };
    let fits = |text: &str, most, letter: &dyn Fn(char) -> bool| (1..=most).contains(&text.len()) && text.chars().all(letter);
    fits(prefix, 10, &word) && fits(wechat_id, 30, &|c| word(c) || c == '-')
}

/// Whether a text is a nickname.
pub fn is_nickname(text: &str) -> bool {
    (1..=16).contains(&text.chars().count()) && !text.chars().any(char::is_control) && !text.trim().is_empty()
}

/// A command keeps every rule of the contract, and read back from what was given it is the same.
pub fn assert_command(command: &Command) {
    let given = &command.given;
    assert!(is_id(&given.command_id) && is_account(command.account.as_str()), "{command:?}");
    assert_eq!((given.action, given.kf_account.as_deref()), (Some(command.action), Some(command.account.as_str())));
    match command.action {
        Action::Add => assert!(given.nickname.as_deref().is_some_and(is_nickname), "{command:?}"),
        Action::Delete => assert_eq!(given.nickname, None),
    }
    assert!(given.revision.is_none_or(|revision| revision >= 0));
    if let Some(meta) = &given.meta {
        assert!(meta.get().len() <= 4_096);
        serde_json::from_str::<BTreeMap<String, serde_json::Value>>(meta.get()).expect("`meta` is a JSON object");
    }
    let text = serde_json::to_string(given).expect("it is written");
    let message = Message { body: text.clone().into_bytes(), ..Message::default() };
    let Decoded::Command(again) = decode(&message) else { panic!("what was given is no command any more: {text}") };
    assert_eq!((again.action, again.account.as_str()), (command.action, command.account.as_str()));
    assert_eq!(again.content, command.content, "{text}");
    assert_eq!(serde_json::to_string(&again.given).expect("it is written"), text);
}

/// What is said of a command is a short line for people, and WeChat had no part in it.
pub fn assert_failure(failure: &Failure) {
    assert_line(&failure.detail);
    assert!(failure.answer.is_none());
}
