//! Secrets come from files that may change while the worker runs, and stay out of other people's sight.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::postgres::OwnServer;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add, delete};
use crate::support::worker::{Settings, Worker, kf_worker};

/// A file that its owner alone may read, put in the place of what was there, as those do who renew secrets.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("the secret can be written");
    std::fs::set_permissions(&beside, Permissions::from_mode(0o600)).expect("its mode can be set");
    std::fs::rename(&beside, path).expect("it can take its place");
}

/// Settings in which the AppSecret of `test` comes from this file.
fn with_app_secret_in(stage: &Stage, path: &Path) -> Settings {
    let mut settings = stage.settings();
    let inline = format!("app_secret = \"{}\"", stage.wechat.official_account("test").app_secret);
    settings.official_accounts = settings.official_accounts.replace(&inline, &format!("app_secret_file = \"{}\"", path.display()));
    settings
}

async fn has_read_again(worker: &Worker, times: usize) {
    eventually("the secret is read again", async || (worker.logged("were read again") == times).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_app_secret_is_taken_up_without_a_signal() {
    let mut stage = Stage::new().await;
    let path = stage.path("app-secret");
    put(&path, "the-secret-before");
    let mut settings = with_app_secret_in(&stage, &path);
    settings.set("retry.probe_interval", "1h");
    let worker = stage.worker_with(&settings).await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.ledger().until("c1", "waiting").await;
    assert_eq!(worker.pauses().await.len(), 1);

    put(&path, &stage.wechat.official_account("test").app_secret);
    has_read_again(&worker, 1).await;
    stage.outcome(&delete("c2", "ben@test")).await.assert_succeeded("none");
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_gone_for_a_while_changes_nothing() {
    let mut stage = Stage::new().await;
    let path = stage.path("app-secret");
    let secret = stage.wechat.official_account("test").app_secret;
    put(&path, &secret);
    let settings = with_app_secret_in(&stage, &path);
    let worker = stage.worker_with(&settings).await;
    std::fs::remove_file(&path).expect("it was there");
    let told = async || (worker.logged("was read again and not taken up") == 1).then_some(());
    eventually("the worker tells that the secret is gone", told).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    put(&path, &secret);
    has_read_again(&worker, 1).await;
    assert_eq!(worker.logged("was read again and not taken up"), 1, "it is told once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_that_met_a_fault_elsewhere_is_taken_up_when_that_is_gone() {
    let mut stage = Stage::new().await;
    let (path, authorities) = (stage.path("app-secret"), stage.path("ca.pem"));
    let authority = Authority::new("the authority");
    authority.write(authorities.clone());
    put(&path, "the-secret-before");
    let mut settings = with_app_secret_in(&stage, &path);
    settings.set("retry.probe_interval", "1h").set("wechat.ca_file", authorities.display().to_string());
    let worker = stage.worker_with(&settings).await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    stage.ledger().until("c1", "waiting").await;

    std::fs::write(&authorities, "half of a cert").expect("it can be written");
    put(&path, &stage.wechat.official_account("test").app_secret);
    let told = async || (worker.logged("was read again and not taken up") == 1).then_some(());
    eventually("the worker tells of the fault", told).await;
    authority.write(authorities);
    has_read_again(&worker, 1).await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(worker.logged("was read again and not taken up"), 1, "it is told once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_encrypted_never_goes_through_a_proxy() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    // Nobody listens there: whatever went that way would fail.
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        settings.env(name, "http://127.0.0.1:1");
    }
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_of_the_broker_is_used_for_the_next_connection() {
    let node = OwnNode::start();
    let mut stage = Stage::at(node.url()).await;
    for arguments in [&["add_user", "worker", "password-one"][..], &["set_permissions", "worker", ".*", ".*", ".*"]] {
        node.control(arguments);
    }
    let url = |password: &str| node.url().replace("guest:guest@", &format!("worker:{password}@"));
    let path = stage.path("amqp-url");
    put(&path, &url("password-one"));
    let mut settings = stage.settings();
    settings.unset("amqp.url").set("amqp.url_file", path.display().to_string());
    let worker = stage.worker_with(&settings).await;

    node.control(&["change_password", "worker", "password-two"]);
    put(&path, &url("password-two"));
    has_read_again(&worker, 1).await;
    assert_eq!(worker.metric("kf_broker_reconnects_total").await, Some(0.0), "what works is left alone");
    node.control(&["close_all_user_connections", "worker", "the password was changed"]);
    let connected = async || (worker.metric("kf_broker_reconnects_total").await? >= 1.0).then_some(());
    eventually("the worker is connected anew", connected).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(worker.logged("password-"), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_of_the_database_is_used_for_the_next_connection() {
    let server = OwnServer::start();
    let database = server.database();
    let name = database.url().rsplit('/').next().expect("a URL ends in the name").to_owned();
    database.execute("CREATE ROLE guarded LOGIN PASSWORD 'password-one'");
    database.execute(&format!("ALTER DATABASE {name} OWNER TO guarded"));
    let url = |password: &str| database.url().replace("kf@", &format!("guarded:{password}@"));
    let mut stage = Stage::new().await;
    let path = stage.path("ledger-url");
    put(&path, &url("password-one"));
    let mut settings = stage.settings();
    settings.unset("ledger.url").set("ledger.url_file", path.display().to_string());
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");

    database.execute("ALTER ROLE guarded PASSWORD 'password-two'");
    put(&path, &url("password-two"));
    has_read_again(&worker, 1).await;
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(worker.logged("password-"), 0);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_everybody_may_read_is_warned_about() {
    let mut stage = Stage::new().await;
    let path = stage.path("app-secret");
    put(&path, &stage.wechat.official_account("test").app_secret);
    let settings = with_app_secret_in(&stage, &path);
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode can be set");
    let mut worker = stage.worker_with(&settings).await;
    let warning = format!("{} holds a secret and everybody on this machine may read it (mode 0644)", path.display());
    assert_eq!(worker.logged(&warning), 1);

    let check = async || {
        let checked = kf_worker().arg("check").arg("--config").arg(worker.config()).output().await.expect("it can be run");
        assert_eq!(checked.status.code(), Some(0), "it is a warning");
        (String::from_utf8_lossy(&checked.stdout).into_owned(), String::from_utf8_lossy(&checked.stderr).into_owned())
    };
    let (told, warned) = check().await;
    assert!(warned.contains(&warning), "{warned}");
    // The other Official Account's secret stands in the configuration itself.
    assert!(warned.contains(&format!("{} holds a secret", worker.config().display())), "{warned}");
    for secret in stage.wechat.official_accounts().into_iter().map(|official| official.app_secret) {
        assert!(!told.contains(&secret) && !warned.contains(&secret));
    }
    for path in [&path, worker.config()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o640)).expect("its mode can be set");
    }
    assert_eq!(check().await.1, "");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_name_is_one_of_systemds_credentials() {
    let mut stage = Stage::new().await;
    let credentials = stage.path("credentials");
    std::fs::create_dir(&credentials).expect("a folder for credentials");
    put(&credentials.join("test-app-secret"), &stage.wechat.official_account("test").app_secret);
    put(&credentials.join("amqp-url"), stage.settings().get("amqp.url").and_then(|url| url.as_str()).expect("a URL"));
    let mut settings = with_app_secret_in(&stage, Path::new("test-app-secret"));
    settings.unset("amqp.url").set("amqp.url_file", "amqp-url");
    settings.env("CREDENTIALS_DIRECTORY", &credentials.display().to_string());
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_leaves_no_image_of_its_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut settings = Settings::default();
    settings.set("amqp.url", "amqp://someone:amqp-password@127.0.0.1:1/%2f").set("ledger.url", "sqlite:ledger.db");
    settings.set("admin.listen", format!("127.0.0.1:{}", free_port()));
    settings.official_accounts = "[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx1\"\napp_secret = \"s\"\n".to_owned();
    let config = folder.path().join("kf-worker.toml");
    std::fs::write(&config, settings.text()).expect("the configuration can be written");

    // A program without secrets in the same place shows that this machine does write such images.
    let dumps = "ulimit -c unlimited; exec \"$0\" \"$@\"";
    let mut other = tokio::process::Command::new("sh");
    let other = other.args(["-c", dumps, "sleep", "60"]).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let mut worker = tokio::process::Command::new("sh");
    let worker = worker.args(["-c", dumps, env!("CARGO_BIN_EXE_kf-worker"), "run", "--config"]).arg(&config);
    let worker = worker.current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    for (command, name, dumped) in [(other, "sleep", true), (worker, "kf-worker", false)] {
        let mut child = command.spawn().expect("it starts");
        let pid = child.id().expect("it runs").to_string();
        let runs = async || {
            let said = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            // It has begun its work: by then it has seen to its memory.
            let begun = name == "sleep" || folder.path().join("ledger.db").exists();
            (said.trim() == name && begun).then_some(())
        };
        eventually("the program runs", runs).await;
        let sent = tokio::process::Command::new("sh").args(["-c", "kill -s ABRT \"$0\"", &pid]).status().await;
        assert!(sent.expect("a shell").success());
        let status = child.wait().await.expect("it ends");
        assert_eq!((status.signal(), status.core_dumped()), (Some(6), dumped), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_refused_where_everybody_would_see_it() {
    let moved = kf_worker()
        .args(["ledger", "migrate", "--from", "sqlite:/nowhere/ledger.db", "--to", "postgres://kf:hunter2@127.0.0.1:1/kf"])
        .output()
        .await
        .expect("it can be run");
    let told = String::from_utf8_lossy(&moved.stderr);
    assert_eq!(moved.status.code(), Some(2), "{told}");
    assert!(told.contains("list of processes") && !told.contains("hunter2"), "{told}");
}
