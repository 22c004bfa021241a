//! `kf-worker healthcheck`: asks the worker that runs here whether it is well.

use std::path::Path;

use super::Exit;
use crate::{admin, config};

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker healthcheck
  kf-worker healthcheck --live

Exit codes: 0 it is well, 1 it is not or does not answer.";

/// Prints what the admin port answers; the exit code is 1 where that is anything but well, or nothing.
///
/// Of the configuration it reads only where the port is: a worker that runs is not worse for a file that is being changed.
pub fn healthcheck(file: Option<&Path>, only_alive: bool) -> Exit {
    let settings = match config::load_admin(file, std::env::vars_os()) {
        Ok(settings) => settings,
        Err(faults) => {
            super::tell(faults);
            return Exit::Failed;
        }
    };
    match super::in_runtime(admin::ask(settings.listen, only_alive)) {
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
