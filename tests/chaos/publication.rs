//! What a producer may publish, and what has to become of it.

use std::time::Duration;

use serde_json::Value;

use crate::support::broker::Message;

/// One publication, in the order of the plan.
pub struct Publication {
    /// How long the producer rests before it.
    pub rest: Duration,
    pub what: What,
}

/// What is published.
pub enum What {
    First(Box<First>),
    /// The same message as an earlier publication, byte for byte.
    RepeatOf(usize),
}

/// A message that was not published before.
pub struct First {
    pub message: Message,
    /// It says that it was sent so many seconds before it is published.
    pub age: Option<u64>,
    pub kind: Kind,
}

impl First {
    pub fn now(message: Message, kind: Kind) -> What {
        What::First(Box::new(Self { message, age: None, kind }))
    }
}

/// What a message is, and so what has to become of it.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A command that can be carried out.
    Command(Value),
    /// A wrong command whose id can be read: `rejected`.
    Wrong { command_id: String, dead_letter: bool },
    /// A command for an Official Account that the worker doesn't know: `failed`.
    Stranger { command_id: String },
    /// A known id with other content: answered with an event of its own.
    Reused { command_id: String },
    /// Nobody can be answered: a dead letter.
    Nameless,
}

impl Kind {
    /// The id for which this message, being its first, brings an outcome.
    pub fn command_id(&self) -> Option<&str> {
        match self {
            Self::Command(command) => command["command_id"].as_str(),
            Self::Wrong { command_id, .. } | Self::Stranger { command_id } => Some(command_id),
            Self::Reused { .. } | Self::Nameless => None,
        }
    }
}
