//! The broker of this test run (the one that `KF_AMQP__URL` names, else one private node for the whole test process), and
//! nodes of a test's own, which it may kill.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::task::block_in_place;

use super::eventually;
use super::ports::free_port;
use super::script;

/// A node, and the script that looks after it where this process started it.
struct Node {
    url: String,
    script: Option<Child>,
}

/// The broker's URL; the first caller starts the node and the others wait for it.
pub fn url() -> &'static str {
    static NODE: OnceLock<Node> = OnceLock::new();
    let find_or_start = || match std::env::var("KF_AMQP__URL") {
        Ok(url) => Node { url, script: None },
        Err(_) => start(&[], Stdio::inherit()).expect(
            "these tests need RabbitMQ and none could be started: run `make test`, which installs it, or name a broker in KF_AMQP__URL",
        ),
    };
    &NODE.get_or_init(find_or_start).url
}

fn start(arguments: &[&OsStr], errors: Stdio) -> Option<Node> {
    script::start("private-rabbitmq.sh", arguments, errors).map(|(url, script)| Node { url, script: Some(script) })
}

/// A node of a test's own, whatever broker the other tests use: it can be killed, started again with what it had on
/// disk, and given orders.
pub struct OwnNode {
    node: Node,
    port: u16,
    /// Where it tells its metrics or takes TLS, if it does either.
    second_port: Option<u16>,
    /// What the script is told besides its folder and port.
    options: Vec<OsString>,
    folder: TempDir,
}

impl OwnNode {
    pub fn start() -> Self {
        Self::start_with(None, Vec::new())
    }

    /// The node of all tests that need users and vhosts of their own; it lives as long as this process does.
    pub fn shared() -> &'static Self {
        static NODE: OnceLock<OwnNode> = OnceLock::new();
        // Nobody drops what is static, so the script is told to remove the folder.
        NODE.get_or_init(|| Self::start_with(None, vec!["--remove".into()]))
    }

    /// One that tells its metrics, for which it takes longer to start.
    pub fn start_with_metrics() -> Self {
        let port = free_port();
        Self::start_with(Some(port), vec!["--metrics".into(), port.to_string().into()])
    }

    /// One that takes TLS on another port, by `server.pem` and `server-key.pem` in this folder.
    pub fn start_with_tls(certificates: &Path) -> Self {
        let port = free_port();
        Self::start_with(Some(port), vec!["--tls".into(), port.to_string().into(), certificates.into()])
    }

    /// The same, and whoever comes there has to show a certificate of the authorities in `ca.pem`.
    pub fn start_with_mutual_tls(certificates: &Path) -> Self {
        let port = free_port();
        Self::start_with(Some(port), vec!["--mutual-tls".into(), port.to_string().into(), certificates.into()])
    }

    fn start_with(second_port: Option<u16>, options: Vec<OsString>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        Self { node: Self::start_in(&folder, port, &options), port, second_port, options, folder }
    }

    /// Host and port at which it speaks AMQP.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Host and port at which it tells its metrics.
    pub fn metrics(&self) -> String {
        format!("127.0.0.1:{}", self.second_port.expect("the node was started with metrics"))
    }

    /// The port at which it takes TLS.
    pub fn tls_port(&self) -> u16 {
        self.second_port.expect("the node was started with TLS")
    }

    /// The same node, with its queues and their messages, after it was killed.
    pub fn start_again(&mut self) {
        self.node = Self::start_in(&self.folder, self.port, &self.options);
    }

    fn start_in(folder: &TempDir, port: u16, options: &[OsString]) -> Node {
        // The script complains of a node that dies, which is just what these tests are for.
        let complaints = folder.path().join("script.log");
        let errors = fs::File::create(&complaints).expect("a file for its complaints");
        let port = port.to_string();
        let mut arguments: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
        arguments.extend([folder.path().as_os_str(), port.as_ref()]);
        let node = block_in_place(|| start(&arguments, errors.into()));
        node.unwrap_or_else(|| {
            panic!("this test needs a RabbitMQ node of its own: {}", fs::read_to_string(&complaints).unwrap_or_default())
        })
    }

    pub fn url(&self) -> &str {
        &self.node.url
    }

    /// SIGKILL, and waits until everything of the node is gone.
    pub fn kill(&mut self) {
        assert!(self.end().is_some_and(|killed| killed), "the node was running");
    }

    /// The same; tells whether the node was running, or nothing where it was killed before.
    fn end(&mut self) -> Option<bool> {
        let mut script = self.node.script.take()?;
        let pid_file = self.folder.path().join("rabbitmq.pid");
        let killed = Command::new("sh").args(["-c", "kill -s KILL $(cat \"$0\")"]).arg(pid_file).status();
        block_in_place(|| script.wait()).ok();
        Some(killed.is_ok_and(|status| status.success()))
    }

    /// Waits until the node has saved the names of these quorum queues: one that is killed before forgets who leads them.
    pub async fn saved(&self, queues: &[String]) {
        let names = self.folder.path().join("data/private@localhost/quorum/private@localhost/names.dets");
        let holds = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        let all = async || {
            let bytes = fs::read(&names).ok()?;
            queues.iter().all(|name| holds(&bytes, name)).then_some(())
        };
        eventually("the node has saved its quorum queues", all).await;
    }

    /// Gives the node an order with `rabbitmqctl`, which finds it by the node's own environment, and answers what that prints.
    pub fn control(&self, arguments: &[&str]) -> String {
        let pid = fs::read_to_string(self.folder.path().join("rabbitmq.pid")).expect("the node is running");
        let environment = fs::read(format!("/proc/{}/environ", pid.trim())).expect("the node is running");
        let variables = environment.split(|byte| *byte == 0).filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((OsStr::from_bytes(&line[..at]), OsStr::from_bytes(&line[at + 1..])))
        });
        // The package's own program: the wrapper on PATH switches user.
        let program = "exec $(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmqctl | sort -V | tail -n 1) --quiet \"$@\"";
        let mut command = shell_beside(pid.trim());
        command.args(["-c", program, "sh"]).args(arguments).env_clear().envs(variables);
        let output = block_in_place(|| command.output()).expect("a shell");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A shell that sees the files that this process sees, where servers come from the root folder of another system.
fn shell_beside(pid: &str) -> Command {
    if std::env::var_os("KF_TEST_SERVERS_ROOT").is_none_or(|root| root.is_empty()) {
        return Command::new("sh");
    }
    let mut command = Command::new("nsenter");
    command.args(["--target", pid, "--mount", "--root", "--wd", "sh"]);
    command
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        // An orderly end would take its time over data that nobody wants any more.
        self.end();
    }
}
