//! One command that is to be sent, held against the rules of the contract before anything leaves.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::command::{Command, Decoded, Given, Message, decode};
use crate::outcome::{Action, Reason};

/// A command that keeps every rule.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where it stands in a file, counted from 1; nothing where it comes from the command line.
    pub line: Option<u64>,
    pub action: Action,
    pub kf_account: String,
    /// Its fields.
    pub given: Given,
    /// The command as JSON, as it is sent.
    pub body: Vec<u8>,
}

/// The fields of a command that is put together here.
#[derive(Debug, Serialize)]
pub struct Fields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<&'a str>,
    pub action: &'a str,
    pub kf_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nickname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<&'a RawValue>,
}

impl Order {
    /// An order of these fields; without an id it is given one.
    ///
    /// # Errors
    /// The rule that is broken, in a sentence.
    pub fn of(fields: &Fields<'_>, line: Option<u64>, id: impl FnOnce() -> String) -> Result<Self, String> {
        let body = serde_json::to_vec(fields).map_err(|error| format!("It can't be written as JSON: {error}."))?;
        Self::read(body, line, id)
    }

    /// An order from a command in JSON; one that names no id is given one, which goes beside it.
    ///
    /// # Errors
    /// The rule that is broken, in a sentence.
    pub fn read(body: Vec<u8>, line: Option<u64>, id: impl FnOnce() -> String) -> Result<Self, String> {
        let mut message = Message { body, ..Message::default() };
        let mut decoded = decode(&message);
        if matches!(&decoded, Decoded::Unreadable(failure) if failure.reason == Reason::MissingCommandId) {
            message.message_id = Some(id());
            decoded = decode(&message);
        }
        match decoded {
            Decoded::Command(Command { action, account, given, .. }) => {
                Ok(Self { line, action, kf_account: account.as_str().to_owned(), given, body: message.body })
            }
            Decoded::Refused(refused) => Err(refused.failure.detail),
            Decoded::Unreadable(failure) => Err(failure.detail),
        }
    }

    pub fn command_id(&self) -> &str {
        &self.given.command_id
    }

    /// Its fields under this id, or under none.
    pub fn fields<'a>(&'a self, command_id: Option<&'a str>) -> Fields<'a> {
        let Given { nickname, revision, meta, .. } = &self.given;
        let (action, nickname, meta) = (self.action.as_str(), nickname.as_deref(), meta.as_deref());
        Fields { command_id, action, kf_account: &self.kf_account, nickname, revision: *revision, meta }
    }
}
