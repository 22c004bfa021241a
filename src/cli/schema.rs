//! `kf-worker schema`: what commands and results look like, for validators and generators of code.

use clap::ValueEnum;

use super::Exit;
use crate::schema::Document;

/// The documents by the names that they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// JSON Schema of a command.
    Command,
    /// JSON Schema of a command as a structured CloudEvent.
    CloudeventCommand,
    /// JSON Schema of a result event.
    Result,
    /// AsyncAPI 3.0: every message, where it goes, and examples.
    Asyncapi,
}

/// Prints a document.
pub fn schema(name: Name) -> Exit {
    let document = match name {
        Name::Command => Document::Command,
        Name::CloudeventCommand => Document::CloudEventCommand,
        Name::Result => Document::Result,
        Name::Asyncapi => Document::AsyncApi,
    };
    super::print(document.text().trim_end());
    Exit::Done
}
