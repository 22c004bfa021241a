//! `kf-worker result`: the outcome of one command, read from the ledger beside the running worker.

use super::Exit;
use super::outcomes::{Lines, shown};
use crate::ledger::{Lookup, Place, Reader};

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker result hire-4711
  kf-worker result hire-4711 --json

Exit codes: 0 it has an outcome, 1 it has none yet or is not known, 69 the ledger can't be reached, 78 there is none.";

/// Shows an outcome. A command that is unknown or unfinished is told as such, with exit code 1.
pub fn show(place: &Place, command_id: &str, json: bool) -> Exit {
    let found = super::in_runtime(async {
        match Reader::open(place).await {
            Ok(reader) => Ok(reader.find(command_id).await),
            Err(error) => Err(error),
        }
    });
    let found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            super::tell(format_args!("{error}"));
            return Exit::from(&error);
        }
        Err(exit) => return exit,
    };
    match found {
        Ok(Lookup::Finished(finished)) if json => super::print(format_args!("{}", finished.conclusion.data)),
        Ok(Lookup::Finished(finished)) => {
            let told = finished.conclusion.told();
            super::print(Lines::on_stdout().line(&told));
            if let Some(error) = &told.error {
                super::print(format_args!("{}: {}", shown(&error.reason), shown(&error.detail)));
            }
        }
        Ok(Lookup::Unfinished(unfinished)) => {
            let why = unfinished.trouble.map(|(reason, since)| format!("; it waits since {since:.0}: {reason}")).unwrap_or_default();
            super::tell(format_args!("the command `{command_id}` was accepted and is not finished yet{why}"));
            return Exit::Failed;
        }
        Ok(Lookup::Unknown) => {
            super::tell(format_args!("the ledger does not know the command `{command_id}`"));
            return Exit::Failed;
        }
        Err(error) => {
            super::tell(format_args!("{error}"));
            return Exit::from(&error);
        }
    }
    Exit::Done
}
