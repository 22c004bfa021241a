//! Configuration: every fault at once by its key, the environment over the file, and secrets that stay secret.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::stage::{Stage, add};
use crate::support::wechat::Endpoint;
use crate::support::worker::{Settings, kf_worker};

/// A configuration file without fault that reaches nothing.
const GOOD: &str = r#"
[amqp]
url = "amqp://someone:amqp-password@127.0.0.1:1/%2f"

[[official_account]]
wechat_id = "test"
app_id = "wx0123456789abcdef"
app_secret = "very-secret-secret"

[admin]
listen = "127.0.0.1:0"
"#;

/// Runs the binary on this file to its end.
async fn run(file: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("kf-worker.toml");
    std::fs::write(&path, file).expect("the file can be written");
    let mut command = kf_worker();
    command.args(arguments).arg("--config").arg(&path).envs(environment.iter().copied()).current_dir(folder.path());
    let output = tokio::time::timeout(crate::support::DEADLINE, command.output()).await;
    output.expect("it ends in time").expect("it can be run")
}

/// Everything that it printed.
fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A file without fault, with one line more in a section.
fn with(section: &str, line: &str) -> String {
    format!("{GOOD}\n[{section}]\n{line}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_at_once_by_its_key() {
    let file = r#"
[amqp]
url = "http://127.0.0.1"
prefix = ""
topology = "maybe"

[worker]
concurrency = 0
window = "many"
drain = "20 parsecs"

[wechat]
base_url = "api.weixin.qq.com"

[[official_account]]
wechat_id = "test!"
app_id = ""
app_secret = "very-secret-secret"

[retry]
initial = "-1s"
defer = []

[ledger]
url = "mysql://nowhere"

[admin]
listen = "everywhere"
"#;
    let output = run(file, &["run"], &[]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    for key in [
        "amqp.url",
        "amqp.topology",
        "worker.concurrency",
        "worker.window",
        "worker.drain",
        "wechat.base_url",
        "wechat_id",
        "retry.initial",
        "ledger.url",
        "admin.listen",
    ] {
        assert!(printed.contains(key), "{key} is not named:\n{printed}");
    }
    assert!(output.stdout.is_empty(), "faults go to stderr");
    assert!(!printed.contains("very-secret-secret"), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_refused_with_a_guess() {
    let output = run(&with("worker", "concurency = 3\nwidow = 4"), &["run"], &[]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    for word in ["concurency", "did you mean", "concurrency", "widow", "window"] {
        assert!(printed.contains(word), "{word} is not named:\n{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_variables_are_refused_as_well() {
    let output = run(GOOD, &["run"], &[("KF_WORKER__CONCURENCY", "3")]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("KF_WORKER__CONCURENCY"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_toml_is_told_by_its_line() {
    let output = run("[amqp]\nurl = \n", &["run"], &[]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("kf-worker.toml:2:"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_named() {
    let output = kf_worker().args(["run", "--config", "/no/such/kf-worker.toml"]).output().await.expect("it can be run");
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("/no/such/kf-worker.toml"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_official_account_stands_only_once() {
    let again = "\n[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx0\"\napp_secret = \"very-secret-secret\"\n";
    let output = run(&format!("{GOOD}{again}"), &["run"], &[]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("official_account") && printed.contains("test"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_unacknowledged_must_end_before_the_brokers_time_limit() {
    let output = run(&with("retry", "max_in_process = \"29m\""), &["run"], &[]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("retry.max_in_process"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_a_variable_is_told_by_the_variable() {
    let output = run(GOOD, &["run"], &[("KF_WORKER__CONCURRENCY", "none")]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("KF_WORKER__CONCURRENCY") || printed.contains("worker.concurrency"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_that_is_missing_is_named() {
    let file = GOOD.replace("app_secret = \"very-secret-secret\"", "app_secret_file = \"/no/such/secret\"");
    let output = run(&file, &["run"], &[]).await;
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("app_secret_file") && printed.contains("/no/such/secret"), "{printed}");
}

/// The lines of `config show --json`, by their keys.
fn shown(output: &Output) -> BTreeMap<String, Value> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.map(|line| (line["key"].as_str().expect("a key").to_owned(), line)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_shown_with_its_value_and_where_that_comes_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = folder.path().join("otlp");
    std::fs::write(&secret, "Bearer otlp-secret\n").expect("it can be written");
    let file = with("retry", "initial = \"250ms\"\ndefer = [\"5m\"]");
    let environment =
        [("KF_WORKER__CONCURRENCY", "9"), ("KF_TRACES__AUTHORIZATION_FILE", secret.to_str().expect("a plain path")), ("NO_COLOR", "1")];
    let output = run(&file, &["config", "show", "--json"], &environment).await;
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let shown = shown(&output);
    let line = file.lines().position(|line| line.starts_with("initial")).expect("a line") + 1;
    for (key, value, source, place) in [
        ("amqp.prefix", json!("kf"), "default", "default".to_owned()),
        ("amqp.url", json!("127.0.0.1:1"), "file", "kf-worker.toml:3".to_owned()),
        ("amqp.ca_file", Value::Null, "default", "default".to_owned()),
        ("worker.concurrency", json!(9), "environment", "environment KF_WORKER__CONCURRENCY".to_owned()),
        ("retry.initial", json!("250ms"), "file", format!("kf-worker.toml:{line}")),
        ("retry.max_age", json!("2d"), "default", "default".to_owned()),
        ("retry.defer", json!(["5m"]), "file", format!("kf-worker.toml:{}", line + 1)),
        ("verify.enabled", json!(false), "default", "default".to_owned()),
        ("traces.authorization", json!("(hidden)"), "secret_file", format!("secret in {}", secret.display())),
        ("official_account.0.wechat_id", json!("test"), "file", "kf-worker.toml:6".to_owned()),
        ("official_account.0.app_secret", json!("(hidden)"), "file", "kf-worker.toml:8".to_owned()),
        ("official_account.0.max_rate", Value::Null, "default", "default".to_owned()),
    ] {
        let line = shown.get(key).unwrap_or_else(|| panic!("{key} is not shown: {}", printed(&output)));
        assert_eq!((&line["value"], line["source"].as_str()), (&value, Some(source)), "{line}");
        assert!(line["where"].as_str().is_some_and(|told| told.ends_with(&place)), "{place}: {line}");
    }
    let table = run(&file, &["config", "show"], &environment).await;
    for output in [&output, &table] {
        let printed = printed(output);
        for secret in ["very-secret-secret", "amqp-password", "otlp-secret"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
    assert!(printed(&table).lines().any(|line| line.split_whitespace().eq(["amqp.prefix", "kf", "default"])), "{}", printed(&table));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_with_its_faults_too() {
    let file = GOOD.replace("listen =", "lisen = \"x\"\nlisten =").replace("amqp://someone", "ampq://someone");
    let file = format!("{file}\n[worker]\nconcurrency = \"many\"\n[wechat]\nbase_url = \"https://me:hunter2@wechat.example\"\n");
    let output = run(&file, &["config", "show"], &[]).await;
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = String::from_utf8_lossy(&output.stdout).lines().map(words).collect();
    for line in [["amqp.url", "(hidden)"], ["worker.concurrency", "(faulty)"], ["wechat.base_url", "(hidden)"], ["amqp.prefix", "kf"]] {
        assert!(lines.iter().any(|shown| *shown == line), "{line:?}: {text}");
    }
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("admin.lisen: is not known; did you mean `admin.listen`?") && told.contains("worker.concurrency"), "{told}");
    assert!(!text.contains("hunter2") && !text.contains("amqp-password"), "{text}");
    let none = run("[amqp", &["config", "show"], &[]).await;
    assert_eq!((none.status.code(), none.stdout.len()), (Some(78), 0), "{}", printed(&none));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_printed_as_it_is_and_taken_as_a_configuration() {
    let example = kf_worker().args(["config", "example"]).output().await.expect("it can be run");
    let text = String::from_utf8(example.stdout).expect("text");
    assert_eq!(text.trim_end(), include_str!("../../deploy/kf-worker.toml").trim_end());
    assert_eq!(run(&text, &["check"], &[]).await.status.code(), Some(0));
}

/// The settings of a stage in which one key comes from elsewhere.
async fn works_with(stage: &mut Stage, settings: &Settings) {
    let worker = stage.worker_with(settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    let secrets = stage.wechat.official_accounts().into_iter().map(|official| official.app_secret);
    for secret in secrets.chain(["amqp-password".to_owned()]) {
        assert!(!worker.log().contains(&secret), "the log holds a secret");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_overrides_the_file() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    let url = settings.get("amqp.url").and_then(|url| url.as_str()).expect("a URL").to_owned();
    settings.set("amqp.url", "amqp://someone:amqp-password@127.0.0.1:1/%2f").env("KF_AMQP__URL", &url);
    works_with(&mut stage, &settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_come_from_a_file() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    for official in stage.wechat.official_accounts() {
        let path = stage.path(&official.wechat_id);
        // Editors end a file with a line break; it is no part of the secret.
        std::fs::write(&path, format!("{}\n", official.app_secret)).expect("the secret can be written");
        let (inline, file) = (format!("app_secret = \"{}\"", official.app_secret), format!("app_secret_file = \"{}\"", path.display()));
        settings.official_accounts = settings.official_accounts.replace(&inline, &file);
    }
    works_with(&mut stage, &settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_may_name_a_file_of_a_secret() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    let url = settings.get("amqp.url").and_then(|url| url.as_str()).expect("a URL").to_owned();
    let path = stage.path("amqp-url");
    std::fs::write(&path, url).expect("the URL can be written");
    settings.set("amqp.url", "amqp://someone:amqp-password@127.0.0.1:1/%2f");
    settings.env("KF_AMQP__URL_FILE", path.to_str().expect("a plain path"));
    works_with(&mut stage, &settings).await;
}
