//! `amqps`: the broker's certificate is checked against the authorities of `amqp.ca_file`, or the system's without it.

use std::path::Path;

use super::front::Front;
use crate::support::certificates::{Authority, Flaw};
use crate::support::eventually;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add, delete};
use crate::support::worker::Worker;

const PASSWORD: &str = "amqp-password";

fn url(address: &str) -> String {
    format!("amqps://kf-worker:{PASSWORD}@{address}/%2f")
}

/// A node that takes TLS by its authority's certificate, and knows the user of that URL.
fn node(folder: &Path, authority: &Authority) -> OwnNode {
    authority.server().write(folder, "server");
    let node = OwnNode::start_with_tls(folder);
    node.control(&["add_user", "kf-worker", PASSWORD]);
    node.control(&["set_permissions", "kf-worker", ".*", ".*", ".*"]);
    node
}

/// Waits until the worker says that it doesn't believe the broker's certificate, and why.
async fn refuses(worker: &Worker, words: &str) {
    worker.not_ready_because(&["disconnected: ", words]).await;
    let logged = async || worker.log().lines().any(|line| line.contains("no commands can be taken") && line.contains(words)).then_some(());
    eventually(&format!("the log says `{words}` of the broker's certificate"), logged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_believed_by_the_certificate_of_a_given_authority_alone() {
    let (authority, folder) = (Authority::new("the authority"), tempfile::tempdir().expect("a temporary folder"));
    let ca_file = authority.write(folder.path().join("ca.pem"));
    let node = node(folder.path(), &authority);
    let mut stage = Stage::at(node.url()).await;
    let mut settings = stage.settings();
    let own_listener = format!("localhost:{}", node.tls_port());
    settings.set("amqp.url", url(&own_listener)).set("amqp.ca_file", ca_file.to_str());
    let mut worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    let connections = node.control(&["list_connections", "user", "ssl"]);
    assert_eq!(connections.lines().filter(|line| *line == "kf-worker\ttrue").count(), 3, "{connections}");
    assert_eq!(worker.terminate().await, Some(0));

    // The same listener is nobody's where another authority alone is believed, even though the system believes this one.
    let stranger = Authority::new("another authority").write(folder.path().join("stranger.pem"));
    let mut mistaken = settings.clone();
    mistaken.set("amqp.ca_file", stranger.to_str()).env("SSL_CERT_FILE", ca_file.to_str().expect("a plain path"));
    let mut worker = stage.spawn(&mistaken);
    refuses(&worker, Flaw::UnknownAuthority.words()).await;
    assert_eq!(worker.terminate().await, Some(0));

    // Without a file of authorities the system's are believed.
    let mut systems = stage.settings();
    systems.set("amqp.url", url(&own_listener)).env("SSL_CERT_FILE", ca_file.to_str().expect("a plain path"));
    let worker = stage.worker_with(&systems).await;
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_certificate_is_not_right_gets_nothing_until_it_is() {
    let (authority, folder) = (Authority::new("the authority"), tempfile::tempdir().expect("a temporary folder"));
    let ca_file = authority.write(folder.path().join("ca.pem"));
    let node = OwnNode::start();
    node.control(&["change_password", "guest", PASSWORD]);
    let plain = node.url().replace("guest:guest@", &format!("guest:{PASSWORD}@"));
    let mut stage = Stage::at(&plain).await;
    let front = Front::before(&node.address(), &authority.server()).await;
    let mut settings = stage.settings();
    let url = format!("amqps://guest:{PASSWORD}@{}/%2f", front.address());
    settings.set("amqp.url", url).set("amqp.ca_file", ca_file.to_str());
    let mut worker = stage.worker_with(&settings).await;
    let mut outcomes = Vec::new();
    for flaw in Flaw::ALL {
        let account = format!("{}@test", flaw.name());
        front.show(&authority.flawed(flaw));
        let before = front.believed();
        refuses(&worker, flaw.words()).await;
        stage.send(&add(&account, &account, "安娜")).await;
        assert_eq!((front.believed(), stage.wechat.changes(&account).len()), (before, 0), "{flaw:?}");

        front.show(&authority.server());
        worker.ready().await;
        for (outcome, effect) in [
            (stage.events.of(&account).await, "created"),
            (stage.outcome(&delete(&format!("delete-{account}"), &account)).await, "deleted"),
        ] {
            outcome.assert_succeeded(effect);
            outcomes.push(outcome);
        }
    }
    assert!(!worker.log().contains(PASSWORD), "{}", worker.log());
    super::settle(&mut stage, worker, &outcomes).await;
}
