//! `kf-worker healthcheck`: asks the worker that runs here whether it is well.

use super::{Config, Exit};
use crate::admin;

/// Prints what the admin port answers; the exit code is 1 where that is anything but well, or nothing.
pub fn healthcheck(config: &Config, only_alive: bool) -> Exit {
    match super::in_runtime(admin::ask(config.admin.listen, only_alive)) {
        Ok(Ok(answer)) => {
            super::print(answer.text.trim_end());
            if answer.well { Exit::Done } else { Exit::Failed }
        }
        // Docker knows 0 and 1, and keeps the other codes to itself.
        Ok(Err(error)) => {
            super::tell(error);
            Exit::Failed
        }
        Err(exit) => exit,
    }
}
