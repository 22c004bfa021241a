//! A vhost of a test's own, with users and rights from the files of `deploy/rabbitmq`, and ways to come there as one of its users.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::broker::Broker;
use super::rabbitmq::OwnNode;
use super::worker::kf_worker;
use super::{DEADLINE, eventually};

/// The prefix that the definitions give rights for.
pub const PREFIX: &str = "kf";

/// Everybody's password.
pub const PASSWORD: &str = "pw";

/// The users of the definitions.
pub const USERS: [&str; 8] =
    ["kf-worker", "kf-worker-checked", "hr-onboarding", "hr-offboarding", "hr-desk", "hr-results", "kf-operator", "kf-monitoring"];

/// A vhost at the shared node. Users are the node's: a test that changes one brings its own, under another name.
pub struct Vhost {
    pub name: String,
    folder: TempDir,
}

/// A file of `deploy/rabbitmq`, as text.
pub fn deployed(file: &str) -> String {
    let path = deploy().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs `make-definitions.sh`.
pub fn make_definitions(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(deploy().join("make-definitions.sh"));
    block_in_place(|| command.args(arguments).output()).expect("the script runs")
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/rabbitmq")
}

impl Vhost {
    /// One with the users and rights of `definitions.json`.
    pub async fn new() -> Self {
        Self::with(&deployed("definitions.json"), &[]).await
    }

    /// One with definitions in which there are other users, with these passwords.
    pub async fn with(definitions: &str, passwords: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let vhost = Self { name, folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir(vhost.path("passwords")).expect("a folder for the passwords");
        // An import takes the password of whoever has no file, and other tests come as the usual users at the same time.
        let usual = USERS.map(|user| (user, PASSWORD));
        for (user, password) in usual.iter().chain(passwords) {
            fs::write(vhost.path("passwords").join(user), password).expect("a password can be written");
        }
        vhost.import(definitions).await;
        vhost
    }

    /// Imports a file of definitions as an operator does, and waits until all of it is there.
    pub async fn import(&self, definitions: &str) {
        fs::write(self.path("template.json"), definitions).expect("the definitions can be written");
        let (passwords, template, made) = (self.path("passwords"), self.path("template.json"), self.path("made.json"));
        let output = make_definitions(&["--vhost", &self.name, text(&passwords), text(&template)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(&made, &output.stdout).expect("the definitions can be written");
        OwnNode::shared().control(&["import_definitions", text(&made)]);

        // The import says that it may go on after it has ended. Bindings are its last step.
        let wanted: Value = serde_json::from_slice(&output.stdout).expect("the definitions are JSON");
        let line =
            |binding: &Value| format!("{}\t{}", binding["source"].as_str().unwrap_or(""), binding["destination"].as_str().unwrap_or(""));
        let wanted: Vec<String> = wanted["bindings"].as_array().expect("the definitions bind something").iter().map(line).collect();
        let all_there = async || {
            let there = OwnNode::shared().control(&["list_bindings", "-p", &self.name, "source_name", "destination_name"]);
            wanted.iter().all(|binding| there.lines().any(|line| line == binding)).then_some(())
        };
        eventually("the definitions are imported", all_there).await;
    }

    /// Takes a user's password file away; the next import tells.
    pub fn forget_password(&self, user: &str) {
        fs::remove_file(self.path("passwords").join(user)).expect("it has a password file");
    }

    /// Gives a user other rights than those of the definitions.
    pub fn permit(&self, user: &str, configure: &str, write: &str, read: &str) {
        OwnNode::shared().control(&["set_permissions", "-p", &self.name, user, configure, write, read]);
    }

    /// How one of the users of `definitions.json` comes here.
    pub fn url(&self, user: &str) -> String {
        self.url_with(user, PASSWORD)
    }

    /// Lets the tests' own user do everything here, and tells how it comes here.
    pub fn url_of_guest(&self) -> String {
        self.permit("guest", ".*", ".*", ".*");
        self.url_with("guest", "guest")
    }

    fn url_with(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@{}/{}", OwnNode::shared().address(), self.name)
    }

    /// Logs in with any password at all.
    pub async fn log_in(&self, user: &str, password: &str) -> lapin::Result<Connection> {
        let mut uri: AMQPUri = self.url(user).parse().expect("it is a URL");
        password.clone_into(&mut uri.authority.userinfo.password);
        let connecting = Connection::connect_uri(uri, ConnectionProperties::default());
        timeout(DEADLINE, connecting).await.expect("the broker answers in time")
    }

    /// A connection of one of the users.
    pub async fn connect(&self, user: &str) -> Connection {
        self.log_in(user, PASSWORD).await.unwrap_or_else(|error| panic!("{user} can log in: {error}"))
    }

    /// Sends and receives as one of the users.
    pub async fn client(&self, user: &str) -> Broker {
        Broker::connect(&self.url(user), PREFIX.to_owned()).await
    }

    /// Runs the program as one of the users; it is told of nothing but the broker.
    pub async fn program(&self, user: &str, arguments: &[&str]) -> Output {
        let mut command = kf_worker();
        command.args(arguments).env("KF_AMQP__URL", self.url(user)).env("KF_AMQP__PREFIX", PREFIX);
        timeout(DEADLINE, command.output()).await.expect("it ends in time").expect("the program runs")
    }

    /// What the program prints where it ends well.
    pub async fn printed(&self, user: &str, arguments: &[&str]) -> String {
        let output = self.program(user, arguments).await;
        assert!(output.status.success(), "{user} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
