//! The words that only metrics use: closed lists, so that labels stay few.

use crate::outcome::{AttemptFailure, Class};

/// Defines a closed list of words for a label.
macro_rules! labels {
    ($(#[$meta:meta])* $Name:ident { $($(#[$doc:meta])* $Variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $Name { $($(#[$doc])* $Variant,)+ }

        impl $Name {
            /// Every word of the list.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)+];

            /// The word as it stands in a label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $word,)+ }
            }
        }
    };
}

/// What can be asked of WeChat.
pub const ENDPOINTS: [&str; 4] = ["add", "delete", "list", "token"];

labels! {
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
            Class::Retry if failed.failure.answer.is_none() => Self::Unanswered,
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

labels! {
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

labels! {
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

labels! {
    /// Why a worker is not ready.
    NotReady {
        Starting = "starting",
        Draining = "draining",
        /// The broker can't be used.
        Disconnected = "disconnected",
        /// The broker takes no messages from us.
        Blocked = "blocked",
        /// The ledger can't be used.
        Ledger = "ledger",
    }
}
