//! `kf-worker man`: the help texts as manual pages.

use std::io::Write as _;
use std::path::Path;

use clap::Command;
use clap_mangen::{Man, generate_to};

use super::Exit;

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker man | man -l -
  kf-worker man /usr/local/share/man/man1";

/// Prints the page of the program, or writes a page for it and for each of its subcommands into a folder.
pub fn manual(program: Command, folder: Option<&Path>) -> Exit {
    match folder {
        None => print(program),
        Some(folder) => write(program, folder),
    }
}

fn print(program: Command) -> Exit {
    let mut page = Vec::new();
    let rendered = Man::new(program).render(&mut page).and_then(|()| std::io::stdout().write_all(&page));
    // Where it fails, whoever was to read it has gone.
    if rendered.is_ok() { Exit::Done } else { Exit::Failed }
}

fn write(program: Command, folder: &Path) -> Exit {
    match std::fs::create_dir_all(folder).and_then(|()| generate_to(program, folder)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            super::tell(format_args!("the manual pages can't be written to {}: {error}", folder.display()));
            Exit::Failed
        }
    }
}
