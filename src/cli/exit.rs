//! How a subcommand ends, as an exit code of the contract.

use std::process::ExitCode;

use crate::broker::ConnectError;
use crate::ledger::{LedgerError, OpenError};

/// The exit codes; the numbers are those of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// A service that is needed can't be reached: later it may.
    Unavailable = 69,
    /// Somebody has to change something.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&ConnectError> for Exit {
    fn from(error: &ConnectError) -> Self {
        if error.needs_an_operator() { Self::Configuration } else { Self::Unavailable }
    }
}

impl From<&OpenError> for Exit {
    fn from(error: &OpenError) -> Self {
        if error.may_pass() { Self::Unavailable } else { Self::Configuration }
    }
}

impl From<&LedgerError> for Exit {
    fn from(error: &LedgerError) -> Self {
        match error {
            LedgerError::Postgres(_) => Self::Unavailable,
            LedgerError::Sqlite(_) | LedgerError::Unreadable(_) | LedgerError::Gone | LedgerError::Replaced | LedgerError::Closed => {
                Self::Failed
            }
        }
    }
}
