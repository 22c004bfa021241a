//! Servers that a script of `deploy/` starts and looks after. The script ends its server when its standard input closes, and that
//! happens however this process ends, since only this process holds the other end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs a script until its server takes connections, and gives the server's URL; `None` where it can't be started.
pub fn start(name: &str, arguments: &[&OsStr], errors: Stdio) -> Option<(String, Child)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    let mut child = Command::new(&script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("can't run {}: {error}", script.display()));
    let mut url = String::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut url).expect("the script's output can be read");
    let url = url.trim().to_owned();
    (!url.is_empty()).then_some((url, child))
}
