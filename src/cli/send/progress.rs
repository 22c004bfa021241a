//! How far an order has come, and what became of it.

use crate::event::Told;
use crate::outcome::Status;

/// What became of an order.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The result's data, byte for byte.
    pub data: String,
    /// What that says.
    pub told: Told,
    /// It was reached before the sending began: this sending has changed nothing.
    pub repeat: bool,
}

impl Answer {
    /// Its status; `None` where a newer worker knows one that this program does not.
    pub fn status(&self) -> Option<Status> {
        Status::from_word(&self.told.status)
    }
}

/// How far an order has come.
#[derive(Debug, Default)]
pub enum Progress {
    #[default]
    Unsent,
    /// The broker has it in a queue.
    Sent,
    Answered(Box<Answer>),
}
