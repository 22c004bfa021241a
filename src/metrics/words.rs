//! The words that only metrics use: closed lists, so that labels stay few.

use crate::outcome::{AttemptFailure, Class, words};

/// What can be asked of WeChat.
pub const ENDPOINTS: [&str; 4] = ["add", "delete", "list", "token"];

words! {
    /// What an answer of WeChat's meant.
    CallClass {
        /// It was done, or the wanted state held already.
        Ok = "ok",
        /// It will pass by itself.
        Transient = "transient",
        /// The access token was refused.
        Token = "token",
        /// Nobody has documented it.
        Unknown = "unknown",
        MinuteQuota = "minute_quota",
        DayQuota = "day_quota",
        /// The Official Account is misconfigured, blocked, or waits for its administrator.
        Account = "account",
        /// The Official Account holds its 100 accounts.
        Capacity = "capacity",
        /// The command can never succeed.
        Permanent = "permanent",
        /// The request itself was wrong.
        Bug = "bug",
        /// There was none: not reached, lost, a gateway's, or not WeChat's JSON.
        Unanswered = "unanswered",
    }
}

impl CallClass {
    /// The word for a call that failed in this way, or did not.
    pub fn of(failure: Option<&AttemptFailure>) -> Self {
        let Some(failed) = failure else { return Self::Ok };
        match failed.class {
            _ if failed.failure.answer.is_none() => Self::Unanswered,
            Class::Retry => Self::Transient,
            Class::Token | Class::TokenUnchanged { .. } => Self::Token,
            Class::Unknown => Self::Unknown,
            Class::Minute => Self::MinuteQuota,
            Class::Day => Self::DayQuota,
            Class::Account { .. } => Self::Account,
            Class::Capacity => Self::Capacity,
            Class::Permanent => Self::Permanent,
            Class::Bug => Self::Bug,
        }
    }
}

words! {
    /// What became of a result event.
    EventEnd {
        /// A queue has it.
        Confirmed = "confirmed",
        /// The broker took it, but no queue did.
        Returned = "returned",
        /// The broker refused it.
        Nacked = "nacked",
        /// No confirm came.
        Unconfirmed = "unconfirmed",
    }
}

words! {
    /// What the ledger is asked.
    LedgerOperation {
        /// To accept messages.
        Accept = "accept",
        /// To claim an account for a call.
        Begin = "begin",
        /// To record that a command waits.
        Wait = "wait",
        /// To record an outcome.
        Finish = "finish",
        /// Anything else.
        Other = "other",
    }
}
