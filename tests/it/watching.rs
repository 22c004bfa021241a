//! `kf-worker watch`: results as they come, the connection lost and found again, and how it ends.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::proxy::Proxy;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::kf_worker;

/// A process that watches.
pub struct Watcher {
    child: Child,
    shown: Lines<BufReader<ChildStdout>>,
    told: Lines<BufReader<ChildStderr>>,
}

impl Watcher {
    /// One that is connected and misses nothing from here on.
    pub async fn start(stage: &Stage, url: Option<&str>, arguments: &[&str]) -> Self {
        let mut watcher = Self::spawn(watch(stage, url, arguments));
        watcher.told("watching the results").await;
        watcher
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let shown = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let told = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        Self { child, shown, told }
    }

    /// The next line that it shows.
    pub async fn line(&mut self) -> String {
        let line = timeout(DEADLINE, self.shown.next_line()).await.expect("a result comes in time");
        line.expect("text").expect("it goes on")
    }

    /// Waits until it tells something of the kind, and gives that line.
    async fn told(&mut self, words: &str) -> String {
        loop {
            let line = timeout(DEADLINE, self.told.next_line()).await.unwrap_or_else(|_| panic!("not told in time: {words}"));
            let line = line.expect("text").unwrap_or_else(|| panic!("it ended and did not tell: {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// What a person's Ctrl-C does; gives the exit code.
    pub async fn interrupt(&mut self) -> Option<i32> {
        let pid = self.child.id().expect("it is running").to_string();
        let sent = Command::new("sh").args(["-c", "kill -s INT \"$0\"", &pid]).status().await;
        assert!(sent.expect("a shell").success());
        self.exit_code().await
    }

    async fn exit_code(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.child.wait()).await.expect("it ends in time").expect("it can be waited for").code()
    }
}

/// The program, told of nothing but the broker.
fn watch(stage: &Stage, url: Option<&str>, arguments: &[&str]) -> Command {
    let settings = stage.settings();
    let url = url.or(settings.get("amqp.url").and_then(Value::as_str)).expect("a URL").to_owned();
    let mut command = kf_worker();
    command.arg("watch").args(arguments).env("KF_AMQP__URL", url).env("KF_AMQP__PREFIX", &stage.broker.prefix);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_shown_as_they_come_to_whom_they_are_meant_for() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut all = Watcher::start(&stage, None, &[]).await;
    let mut failed = Watcher::start(&stage, None, &["--status", "failed"]).await;
    let mut anna = Watcher::start(&stage, None, &["--json", "--account", "anna@*", "--action", "add"]).await;
    stage.wechat.next(Endpoint::Add, Some("ben@test"), Answer::Errcode(65403));
    let first = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    stage.outcome(&add("c2", "ben@test", "本")).await;
    stage.outcome(&delete("c3", "anna@test")).await;
    let fourth = stage.outcome(&add("c4", "anna@other", "安娜")).await;

    for words in ["add anna@test succeeded created 1 c1", "add ben@test failed nickname_refused 1 c2"] {
        let line = all.line().await;
        assert_eq!(line.split_whitespace().skip(1).collect::<Vec<_>>(), words.split(' ').collect::<Vec<_>>(), "{line}");
    }
    assert!(failed.line().await.contains(" c2"));
    assert_eq!([anna.line().await, anna.line().await], [first.data, fourth.data], "byte for byte");
    for watcher in [&mut all, &mut failed, &mut anna] {
        assert_eq!(watcher.interrupt().await, Some(0), "Ctrl-C is how it ends");
    }
    assert_eq!(failed.shown.next_line().await.expect("text"), None, "nothing else has failed");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_made_again() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let proxy = Proxy::start().await;
    let mut watcher = Watcher::start(&stage, Some(proxy.url()), &["--json"]).await;
    let before = stage.outcome(&delete("c1", "anna@test")).await;
    assert_eq!(watcher.line().await, before.data);
    proxy.cut();
    watcher.told("connecting again").await;
    let advice = watcher.told("connected again").await;
    let since = advice.rsplit("kf-worker results --since ").next().expect("a command to see what was missed");
    let after = stage.outcome(&delete("c2", "ben@test")).await;
    assert_eq!(watcher.line().await, after.data);

    let missed = kf_worker().args(["results", "--json", "--since", since, "--config"]).arg(worker.config()).output().await;
    let missed = String::from_utf8(missed.expect("the program runs").stdout).expect("text");
    assert!(missed.contains(&before.data) && missed.contains(&after.data), "{advice}: {missed}");
    assert_eq!(watcher.interrupt().await, Some(0));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_reads_any_more_it_ends_without_a_word() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut watcher = Watcher::start(&stage, None, &[]).await;
    stage.outcome(&delete("c1", "anna@test")).await;
    assert!(watcher.line().await.contains(" c1"));
    let Watcher { mut child, shown, mut told } = watcher;
    drop(shown);
    stage.outcome(&delete("c2", "ben@test")).await;
    timeout(DEADLINE, child.wait()).await.expect("it ends in time").expect("it can be waited for");
    assert_eq!(told.next_line().await.expect("text"), None);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_can_not_be_reached_or_knows_no_results_ends_it_with_the_reason() {
    let stage = Stage::new().await;
    let away = watch(&stage, Some("amqp://guest:guest@127.0.0.1:1/%2f"), &[]).output().await.expect("it runs");
    assert_eq!(away.status.code(), Some(69), "{away:?}");
    assert!(String::from_utf8_lossy(&away.stderr).contains("the broker can't be reached"), "{away:?}");
    let mut command = watch(&stage, None, &[]);
    let nothing = command.env("KF_AMQP__PREFIX", format!("{}-none", stage.broker.prefix)).output().await.expect("it runs");
    assert_eq!(nothing.status.code(), Some(78), "{nothing:?}");
    let told = String::from_utf8_lossy(&nothing.stderr);
    assert!(told.contains(&format!("exchange `{}-none.events`", stage.broker.prefix)) && told.contains("does not exist"), "{told}");
}
