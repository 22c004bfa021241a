//! The real binary as a process: configured, started, signalled, killed and asked over its admin port.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{DEADLINE, eventually};

/// The binary with nothing of this process's own settings in its environment.
pub fn kf_worker() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_kf-worker")))
}

/// The same in the process of a shell that has said some words first.
fn in_shell(words: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{words} exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_kf-worker"));
    clean(command)
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("KF_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A configuration file in the making: `section.key` and its value.
#[derive(Clone, Default)]
pub struct Settings {
    keys: BTreeMap<String, Value>,
    environment: BTreeMap<String, String>,
    /// The `[[official_account]]` tables, as text.
    pub official_accounts: String,
    /// The `[[publisher]]` tables, as text.
    publishers: String,
    /// Words of the shell that run in the worker's process before the worker does.
    before: String,
}

impl Settings {
    /// Sets a key. Strings, numbers and lists of strings are spelled the same in TOML as in JSON.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    /// Leaves a key out.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.keys.remove(key);
        self
    }

    /// Sets a variable of the worker's environment.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Lists a user with what it may order.
    pub fn publisher(&mut self, user: &str, actions: &[&str], accounts: &[&str]) -> &mut Self {
        let (user, actions, accounts) = (Value::from(user), Value::from(actions), Value::from(accounts));
        self.publishers.push_str(&format!("[[publisher]]\nuser = {user}\nactions = {actions}\naccounts = {accounts}\n\n"));
        self
    }

    /// Lets no file of the worker's grow beyond so many bytes: writing more fails, as it does on a full disk.
    pub fn largest_file(&mut self, bytes: usize) -> &mut Self {
        // The shell counts in blocks of 512 bytes; the signal would end a process that doesn't ignore it.
        self.before = format!("trap '' XFSZ; ulimit -S -f {};", bytes / 512);
        self
    }

    /// A key as it was set.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut sections: BTreeMap<&str, String> = BTreeMap::new();
        for (key, value) in &self.keys {
            let (section, name) = key.split_once('.').expect("a key is `section.name`");
            let lines = sections.entry(section).or_default();
            lines.push_str(&format!("{name} = {value}\n"));
        }
        let sections = sections.iter().map(|(section, lines)| format!("[{section}]\n{lines}\n"));
        sections.collect::<String>() + &self.official_accounts + &self.publishers
    }
}

/// One worker: its configuration and log stay while its process comes and goes.
pub struct Worker {
    child: Child,
    files: Files,
    settings: Settings,
    admin: SocketAddr,
}

impl Worker {
    /// Starts a worker whose files are in `folder` and doesn't wait for it.
    pub fn spawn(folder: &Path, settings: &Settings) -> Self {
        let files = Files { config: folder.join("kf-worker.toml"), log: folder.join("kf-worker.log") };
        std::fs::write(&files.config, settings.text()).expect("the configuration can be written");
        let admin = settings.get("admin.listen").and_then(Value::as_str).expect("a test knows its admin port");
        let admin = admin.parse().expect("the admin port is an address");
        Self { child: files.start(settings), files, settings: settings.clone(), admin }
    }

    /// Waits until the worker says that it is ready.
    pub async fn ready(&mut self) {
        let (mut last, end) = (None, tokio::time::Instant::now() + DEADLINE);
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                panic!("the worker ended before it was ready: {status}");
            }
            match self.get("/readyz").await {
                Some((200, _)) => return,
                other => last = other.or(last),
            }
            assert!(tokio::time::Instant::now() < end, "the worker is not ready within {DEADLINE:?}; it says {last:?}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Starts the process again with the same configuration, after it has ended, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.child = self.files.start(&self.settings);
        self.ready().await;
    }

    /// Writes another configuration for the next start, or for SIGHUP; its admin port stays where it is asked.
    pub fn configure(&self, settings: &Settings) {
        let mut settings = settings.clone();
        settings.set("admin.listen", self.admin.to_string());
        std::fs::write(&self.files.config, settings.text()).expect("the configuration can be written");
    }

    /// Writes another configuration, sends SIGHUP, and waits until the worker says that it was taken up.
    pub async fn reload(&self, settings: &Settings) {
        let taken_up = || self.log().matches("the Official Accounts were read again").count();
        let before = taken_up();
        self.configure(settings);
        self.signal("HUP").await;
        eventually("the configuration is taken up", async || (taken_up() > before).then_some(())).await;
    }

    /// The lines of `/readyz` that tell of pauses.
    pub async fn pauses(&self) -> Vec<String> {
        let (_, text) = self.get("/readyz").await.expect("the worker answers");
        text.lines().filter(|line| line.starts_with("paused: ")).map(str::to_owned).collect()
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the worker was running");
    }

    /// Sends a signal (`TERM`, `INT`) and doesn't wait for what comes of it.
    pub async fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        // The shell's own `kill`: nothing has to be installed for it.
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]).status().await;
        assert!(sent.expect("a shell").success(), "the worker takes the signal");
    }

    /// Lets its files grow again as they will.
    pub async fn free_disk(&self) {
        let pid = self.pid().to_string();
        let lifted = Command::new("prlimit").args(["--fsize=unlimited:", "--pid", &pid]).status().await;
        assert!(lifted.expect("prlimit (util-linux)").success(), "the limit is lifted");
    }

    /// SIGTERM, and waits for the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        self.exit_code().await
    }

    /// Waits until the process ends by itself; `None` where a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let ended = timeout(DEADLINE, self.child.wait()).await;
        let status: ExitStatus = ended.expect("the worker ends in time").expect("the process can be waited for");
        status.code()
    }

    /// Whether the process that was started is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the worker is running")
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.files.config
    }

    /// What it has logged so far, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.files.log).expect("the log can be read")
    }

    /// How many lines of the log, in all its lives, hold these words.
    pub fn logged(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }

    /// Asks the admin port; `None` while nobody answers.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    /// A metric, with its labels where it has any; `None` while nobody answers.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until the worker is not ready for want of its ledger, and gives its reason.
    pub async fn without_ledger(&self) -> String {
        self.not_ready_because(&["ledger: "]).await
    }

    /// Waits until the worker is alive and not ready, and gives its reason.
    pub async fn not_ready(&self) -> String {
        self.not_ready_because(&[]).await
    }

    /// Waits until the worker is alive and not ready for a reason with all of these words, and gives its reason.
    pub async fn not_ready_because(&self, words: &[&str]) -> String {
        let what = format!("the worker says that it is not ready, with the words {words:?}");
        let says_so = |(status, reason): &(u16, String)| *status == 503 && words.iter().all(|word| reason.contains(word));
        eventually(&what, async || self.get("/readyz").await.filter(says_so)).await.1
    }
}

/// What stays of a worker on disk.
struct Files {
    config: PathBuf,
    log: PathBuf,
}

impl Files {
    /// Both streams go to one file: the worker has nothing to say on standard output.
    fn start(&self, settings: &Settings) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log opens");
        let errors = log.try_clone().expect("the log opens twice");
        let mut command = match settings.before.as_str() {
            "" => kf_worker(),
            before => in_shell(before),
        };
        command.arg("run").arg("--config").arg(&self.config).envs(&settings.environment).stdout(log).stderr(errors);
        command.spawn().expect("the worker starts")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Waiting can't be done here; `kill_on_drop` reaps what is killed now.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the end of the worker's log ---\n{}\n---", tail.join("\n"));
        }
    }
}
