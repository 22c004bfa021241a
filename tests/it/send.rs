//! `kf-worker send`: a command or a file of them on the way through broker, worker and back, and what is said when that fails.

mod file;
mod single;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::support::DEADLINE;
use crate::support::stage::Stage;
use crate::support::worker::{Settings, kf_worker};

/// The program with a configuration that holds nothing but how the broker is reached.
fn send(settings: &Settings, arguments: &[&str]) -> Command {
    let value = |key: &str| settings.get(key).and_then(Value::as_str).expect("a stage sets it").to_owned();
    let mut command = kf_worker();
    command.arg("send").args(arguments).env("KF_AMQP__URL", value("amqp.url")).env("KF_AMQP__PREFIX", value("amqp.prefix"));
    command
}

/// Sends and waits for the end of the program.
async fn sent(stage: &Stage, arguments: &[&str]) -> Ended {
    ended(send(&stage.settings(), arguments)).await
}

async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    Ended(output.expect("it ends in time").expect("the program runs"))
}

/// What a run of the program has left.
struct Ended(Output);

impl Ended {
    /// Fails with all that was printed where the exit code is another one.
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{}\n{}", self.stdout(), self.stderr());
        self
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Its lines on stdout as JSON.
    fn json(&self) -> Vec<Value> {
        self.stdout().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Fails with all that was printed where these words are not on stderr.
    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        let stderr = self.stderr();
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} in:\n{stderr}");
        self
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
