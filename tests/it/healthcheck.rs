//! `kf-worker healthcheck` says by its exit code whether the worker beside it can do its work.

use std::net::SocketAddr;

use crate::support::stage::Stage;
use crate::support::worker::{Worker, kf_worker};

/// What it printed, on either stream, and its exit code.
async fn healthcheck(worker: &Worker, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = kf_worker();
    command.arg("healthcheck").args(arguments).arg("--config").arg(worker.config()).envs(environment.iter().copied());
    let output = command.output().await.expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_commands_is_well_and_one_that_has_ended_is_not() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker_with(&stage.settings()).await;
    assert_eq!(healthcheck(&worker, &[], &[]).await, (Some(0), "ready\n".to_owned()));
    assert_eq!(healthcheck(&worker, &["--live"], &[]).await, (Some(0), "alive\n".to_owned()));

    let admin: SocketAddr = worker.admin();
    let everywhere = format!("0.0.0.0:{}", admin.port());
    let (code, text) = healthcheck(&worker, &[], &[("KF_ADMIN__LISTEN", &everywhere)]).await;
    assert_eq!(code, Some(0), "who listens everywhere is found here: {text}");

    let (code, text) = healthcheck(&worker, &[], &[("KF_WORKER__CONCURRENCY", "none")]).await;
    assert_eq!(code, Some(0), "a worker that runs is not worse for a configuration that is being changed: {text}");
    let (code, text) = healthcheck(&worker, &[], &[("KF_ADMIN__LISTEN", "everywhere")]).await;
    assert!(code == Some(1) && text.contains("admin.listen"), "{text}");

    assert_eq!(worker.terminate().await, Some(0));
    let (code, text) = healthcheck(&worker, &[], &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&admin.to_string()) && text.contains("refused") && text.contains("admin.listen"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_broker_is_alive_and_not_well() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", "amqp://someone:amqp-password@127.0.0.1:1/%2f");
    let worker = stage.spawn(&settings);
    let reason = worker.not_ready().await;
    assert!(reason.starts_with("starting") || reason.starts_with("disconnected"), "{reason}");
    let (code, text) = healthcheck(&worker, &[], &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("starting: ") || text.starts_with("disconnected: "), "{text}");
    assert!(!text.contains("amqp-password"), "{text}");
    assert_eq!(healthcheck(&worker, &["--live"], &[]).await.0, Some(0));
}
