//! The broker of this test run: the one that `KF_AMQP__URL` names, else one private node for the whole test process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The node that this process started. Its script ends it when the script's standard input closes, and that happens
/// however this process ends, since only this process holds the other end.
struct Node {
    url: String,
    _script: Option<Child>,
}

/// The broker's URL; the first caller starts the node and the others wait for it.
pub fn url() -> &'static str {
    static NODE: OnceLock<Node> = OnceLock::new();
    &NODE.get_or_init(find_or_start).url
}

fn find_or_start() -> Node {
    if let Ok(url) = std::env::var("KF_AMQP__URL") {
        return Node { url, _script: None };
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/private-rabbitmq.sh");
    let mut child = Command::new(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("can't run {}: {error}", script.display()));
    let mut url = String::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut url).expect("the script's output can be read");
    let url = url.trim().to_owned();
    assert!(
        !url.is_empty(),
        "These tests need RabbitMQ and none could be started: run `make test`, which installs it, or name a broker in KF_AMQP__URL."
    );
    Node { url, _script: Some(child) }
}
