//! The example producers and consumers in other languages, and the public CloudEvents SDKs, against a real worker.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::block_in_place;

use crate::support::DEADLINE;
use crate::support::stage::Stage;
use crate::support::wechat::Endpoint;

/// A trace that a producer has begun.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The languages that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    Node,
}

impl Language {
    const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// An example with its interpreter; the names of the files are spelled as each language does.
    fn example(self, name: &str) -> Command {
        let folder = installed();
        let (interpreter, file) = match self {
            Self::Python => (folder.join("python/venv/bin/python"), folder.join(format!("python/{}.py", name.replace('-', "_")))),
            Self::Node => (PathBuf::from("node"), folder.join(format!("node/{name}.mjs"))),
        };
        let mut command = Command::new(interpreter);
        command.arg(file).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// Where the examples stand beside their libraries; the first caller installs them.
fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/client-libraries.sh");
        let status = block_in_place(|| std::process::Command::new(script).arg(&folder).status());
        assert!(status.expect("the script runs").success(), "the client libraries can't be installed");
        folder
    })
}

/// The same with what it has to know of a stage.
fn example(stage: &Stage, language: Language, name: &str, arguments: &[&str]) -> Command {
    let settings = stage.settings();
    let url = settings.get("amqp.url").and_then(Value::as_str).expect("a stage has a broker").to_owned();
    let mut command = language.example(name);
    command.args(arguments).env("AMQP_URL", url).env("KF_PREFIX", &stage.broker.prefix).env("TRACEPARENT", TRACEPARENT);
    command
}

/// Runs an example to its end, and gives its exit code and the JSON that it printed.
async fn run(stage: &Stage, language: Language, name: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = tokio::time::timeout(DEADLINE, example(stage, language, name, arguments).output()).await;
    let output = output.expect("it ends in time").expect("it runs");
    let printed = serde_json::from_slice(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), printed.unwrap_or_else(|error| panic!("{language:?} {name} {arguments:?}: {error}\n{errors}")))
}

/// A consumer that has bound its queue.
async fn consumer(stage: &Stage, language: Language, count: &str) -> Child {
    let queue = format!("{}-results-{language:?}", stage.broker.prefix);
    let mut command = example(stage, language, "consume", &["--count", count, "--json", "--queue", &queue]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let waiting = async {
        while let Some(line) = said.next_line().await.expect("it says something") {
            if line.contains("waiting for results") {
                // Whatever it says from here on goes nowhere, and must not stop it.
                tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
                return;
            }
        }
        panic!("{language:?}: the consumer has ended");
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it binds its queue in time");
    child
}

/// Removes what the consumers have declared for good.
async fn clean_up(stage: &Stage) {
    let channel = stage.broker.channel().await;
    for language in Language::ALL {
        let queue = format!("{}-results-{language:?}", stage.broker.prefix);
        for name in [queue.clone(), format!("{queue}-parked")] {
            channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
            channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await.expect("the exchange is deleted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_and_consumers_in_other_languages_order_and_hear() {
    let mut stage = Stage::new().await;
    // Their commands carry the user whom the broker has validated.
    let mut settings = stage.settings();
    settings.publisher("guest", &["add", "delete"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    let mut consumers = Vec::new();
    for language in Language::ALL {
        consumers.push(consumer(&stage, language, "4").await);
    }
    for (language, account) in [(Language::Python, "anna@test"), (Language::Node, "bob@test")] {
        let id = format!("hire-{language:?}");
        let add = ["add", account, "客服", "--id", &id, "--revision", "1", "--meta", r#"{"ticket":"员工1"}"#, "--wait", "--json"];
        let (code, added) = run(&stage, language, "produce", &add).await;
        assert_eq!((code, &added["data"]["effect"], &added["data"]["meta"]["ticket"]), (Some(0), &"created".into(), &"员工1".into()));
        let (_, again) = run(&stage, language, "produce", &add).await;
        assert_eq!(again["id"], added["id"], "a repeat is told the same");
        let delete = ["delete", account, "--id", &format!("leave-{language:?}"), "--revision", "2", "--wait", "--json"];
        assert_eq!(run(&stage, language, "produce", &delete).await.1["data"]["effect"], "deleted");
        let stale = ["add", account, "客服", "--id", &format!("late-{language:?}"), "--revision", "1", "--wait", "--json"];
        let (code, stale) = run(&stage, language, "produce", &stale).await;
        assert_eq!((code, &stale["data"]["error"]["reason"]), (Some(1), &"stale_revision".into()));
        assert_eq!(stage.wechat.changes(account), [Endpoint::Add, Endpoint::Delete]);
    }
    for consumer in consumers {
        let output = tokio::time::timeout(DEADLINE, consumer.wait_with_output()).await.expect("it ends in time").expect("it ends");
        let printed = String::from_utf8(output.stdout).expect("text");
        let events: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let ids: Vec<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
        assert_eq!(ids, ["hire-Python/result/0", "leave-Python/result/0", "late-Python/result/0", "hire-Node/result/0"], "no repeats");
    }
    clean_up(&stage).await;
    stage.settle(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_cloudevents_sdks_speak_with_the_worker_in_both_modes() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    for language in Language::ALL {
        for (mode, account) in [("structured", "anna@test"), ("binary", "bob@test")] {
            let id = format!("{mode}-{language:?}");
            let arguments = [mode, "add", account, "客服", "--id", &id, "--meta", r#"{"n":1}"#, "--json"];
            let (code, result) = run(&stage, language, "cloud-events", &arguments).await;
            let effect = if language == Language::Python { "created" } else { "none" };
            assert_eq!((code, &result["type"], &result["data"]["effect"]), (Some(0), &"kf.add.succeeded".into(), &effect.into()), "{id}");
            assert_eq!((&result["id"], &result["subject"]), (&format!("{id}/result/0").into(), &account.into()));
            let told = stage.events.of(&id).await;
            assert_eq!(told.field("meta"), &result["data"]["meta"], "{id}");
            assert!(told.headers()["traceparent"].contains("4bf92f3577b34da6a3ce929d0e0e4736"), "the producer's trace goes on: {id}");
        }
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}
