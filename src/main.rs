//! The program: reads its arguments and hands over to the subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    kf_worker::cli::main()
}
