//! What systemd is told of a worker: when it takes commands, what is the matter, that it lives, and that it stops.

use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, timeout};

use crate::support::DEADLINE;
use crate::support::proxy::Proxy;
use crate::support::stage::{Stage, add};
use crate::support::wechat::Endpoint;
use crate::support::worker::{Settings, kf_worker};

/// The end of the socket at which systemd sits.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
    /// Every line that came, in order.
    heard: Vec<String>,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket is bound");
        Self { socket, folder, heard: Vec::new() }
    }

    /// Settings of a worker that this one has started, with a watchdog.
    fn settings(&self, stage: &Stage, watchdog: Duration) -> Settings {
        let mut settings = stage.settings();
        settings.env("NOTIFY_SOCKET", self.folder.path().join("notify").to_str().expect("a path of text"));
        settings.env("WATCHDOG_USEC", &watchdog.as_micros().to_string());
        settings
    }

    /// The lines of the next message.
    async fn next(&mut self) -> Vec<String> {
        let mut message = [0; 4_096];
        let length = timeout(DEADLINE, self.socket.recv(&mut message)).await.expect("the worker says something").expect("it can be read");
        let text = std::str::from_utf8(&message[..length]).expect("a message is text");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        self.heard.extend_from_slice(&lines);
        lines
    }

    /// Listens until a line begins like this, and gives the line.
    async fn hear(&mut self, beginning: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.next().await.into_iter().find(|line| line.starts_with(beginning)) {
                return line;
            }
            assert!(Instant::now() < end, "`{beginning}` was not said, but {:?}", self.heard);
        }
    }

    /// How often a line has come.
    fn count(&self, line: &str) -> usize {
        self.heard.iter().filter(|heard| *heard == line).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_commands_are_taken_and_says_what_is_the_matter_when_they_are_not() {
    let mut stage = Stage::new().await;
    let (mut systemd, proxy) = (Manager::new(), Proxy::start().await);
    let mut settings = systemd.settings(&stage, Duration::from_secs(1));
    settings.set("amqp.url", format!("{}?heartbeat=2", proxy.url()));
    proxy.fall_silent();
    let mut worker = stage.spawn(&settings);
    // While there is no broker it lives, and asks for more time than systemd gives by default.
    assert_eq!(systemd.hear("STATUS=").await, "STATUS=starting: not consuming yet");
    assert_eq!(systemd.hear("EXTEND_TIMEOUT_USEC=").await, "EXTEND_TIMEOUT_USEC=30000000");
    while systemd.count("WATCHDOG=1") < 4 {
        systemd.next().await;
    }
    assert_eq!(systemd.count("READY=1"), 0);

    proxy.cut();
    systemd.hear("READY=1").await;
    worker.ready().await;
    assert_eq!(systemd.heard.last().map(String::as_str), Some("STATUS=taking commands"));

    proxy.fall_silent();
    let trouble = systemd.hear("STATUS=").await;
    assert!(trouble.starts_with("STATUS=disconnected: "), "{trouble}");
    let lived = systemd.count("WATCHDOG=1");
    while systemd.count("WATCHDOG=1") < lived + 4 {
        let lines = systemd.next().await;
        assert!(!lines.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "it has started long ago: {lines:?}");
    }

    proxy.cut();
    while systemd.hear("STATUS=").await != "STATUS=taking commands" {}
    assert_eq!(systemd.count("READY=1"), 1, "{:?}", systemd.heard);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lives_twice_in_each_interval_of_the_watchdog() {
    const WATCHDOG: Duration = Duration::from_secs(2);
    let mut stage = Stage::new().await;
    let mut systemd = Manager::new();
    let settings = systemd.settings(&stage, WATCHDOG);
    let worker = stage.worker_with(&settings).await;
    systemd.hear("WATCHDOG=1").await;
    let since = Instant::now();
    for _ in 0..4 {
        systemd.hear("WATCHDOG=1").await;
    }
    let took = since.elapsed();
    // The first may have waited to be read; a busy machine adds to every one.
    assert!(took > WATCHDOG && took < 4 * WATCHDOG, "four times within {took:?}");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_stops_while_it_finishes_what_is_in_flight() {
    let mut stage = Stage::new().await;
    let mut systemd = Manager::new();
    let settings = systemd.settings(&stage, Duration::from_secs(1));
    let mut worker = stage.worker_with(&settings).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    worker.signal("TERM").await;
    systemd.hear("STOPPING=1").await;
    assert_eq!(systemd.heard.last().map(String::as_str), Some("STATUS=draining: the worker is shutting down"));
    systemd.hear("WATCHDOG=1").await;
    assert!(worker.is_running());
    held.release();
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!((systemd.count("READY=1"), systemd.count("STOPPING=1")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_that_is_gone_holds_nobody_up() {
    let mut stage = Stage::new().await;
    let settings = Manager::new().settings(&stage, Duration::from_millis(100));
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(worker.logged("systemd can't be told"), 1, "it is said once");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

/// The sample configuration reads its secrets by name from where it is started, as credentials are laid out.
#[tokio::test]
async fn the_sample_configuration_has_no_faults_once_the_secrets_are_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/kf-worker.toml");
    let unit =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/kf-worker.service")).expect("the unit is there");
    let credentials = unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")?.split(':').next());
    for name in credentials {
        let secret = if name == "amqp-url" { "amqp://kf:change-me@127.0.0.1:5672/%2f" } else { "change-me" };
        std::fs::write(folder.path().join(name), secret).expect("a secret can be written");
    }
    let checked = kf_worker().args(["check", "--config", sample]).current_dir(folder.path()).output().await.expect("the program starts");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
