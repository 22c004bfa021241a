//! `kf-worker completions`: the words of the program for a shell to complete.

use std::io::Write as _;

use clap::Command;
use clap_complete::{Shell, generate};

use super::Exit;

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker completions bash > /etc/bash_completion.d/kf-worker
  kf-worker completions zsh > /usr/local/share/zsh/site-functions/_kf-worker
  kf-worker completions fish > ~/.config/fish/completions/kf-worker.fish";

/// Prints the script that this shell reads.
pub fn completions(shell: Shell, mut program: Command) -> Exit {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut program, name, &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => Exit::Done,
        // Whoever was to read it has gone.
        Err(_) => Exit::Failed,
    }
}
