//! Client certificates to a broker that asks for them: with a password, or as the user whom the certificate names.

use std::path::{Path, PathBuf};

use crate::support::certificates::{Authority, Flaw, Wanted};
use crate::support::eventually;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add, delete};
use crate::support::worker::{Settings, Worker};

const USER: &str = "kf-worker";

/// A node that takes in nobody without a certificate of the authority, and knows a user whose password no worker has.
struct Scene {
    authority: Authority,
    node: OwnNode,
    folder: tempfile::TempDir,
    ca_file: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let (authority, folder) = (Authority::new("the authority"), tempfile::tempdir().expect("a temporary folder"));
        let ca_file = authority.write(folder.path().join("ca.pem"));
        authority.server().write(folder.path(), "server");
        let node = OwnNode::start_with_mutual_tls(folder.path());
        node.control(&["add_user", USER, "a password that no worker knows"]);
        node.control(&["set_permissions", USER, ".*", ".*", ".*"]);
        Self { authority, node, folder, ca_file }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The settings of a worker that comes to the TLS port, as nobody yet.
    fn settings(&self, stage: &Stage, user: &str, parameters: &str) -> Settings {
        let mut settings = stage.settings();
        let url = format!("amqps://{user}localhost:{}/%2f{parameters}", self.node.tls_port());
        settings.set("amqp.url", url).set("amqp.ca_file", self.ca_file.to_str());
        settings
    }

    /// The same with a client's certificate, which is written to a file of this name.
    fn settings_with(&self, stage: &Stage, name: &str, wanted: Wanted, user: &str, parameters: &str) -> Settings {
        let (certificate, key) = self.authority.sign(wanted).write(self.folder(), name);
        let mut settings = self.settings(stage, user, parameters);
        settings.set("amqp.client_certificate_file", certificate.to_str()).set("amqp.client_key_file", key.to_str());
        settings
    }

    /// Ends once each of a worker's three connections fits, by user, mechanism and the certificate's subject, and no other
    /// encrypted connection is left: the broker lists one that was closed for a while longer.
    async fn connections_fit(&self, what: &str, fits: impl Fn(&str) -> bool) {
        eventually(what, async || {
            let listed = self.node.control(&["list_connections", "ssl", "user", "auth_mechanism", "peer_cert_subject"]);
            let encrypted: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("true\t")).collect();
            (encrypted.len() == 3 && encrypted.iter().all(|line| fits(line))).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_asks_for_a_certificate_takes_in_whoever_has_one() {
    let scene = Scene::new();
    let mut stage = Stage::at(scene.node.url()).await;
    let mut worker = stage.spawn(&scene.settings(&stage, "guest:guest@", ""));
    worker.not_ready_because(&["disconnected: ", "it asks for a certificate of ours and none is configured"]).await;
    assert_eq!(worker.terminate().await, Some(0));

    let with_password = scene.settings_with(&stage, "client", Wanted::client("anybody", "first"), "guest:guest@", "");
    let mut worker = stage.worker_with(&with_password).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    scene.connections_fit("a guest with a password", |line| line.starts_with("guest\tPLAIN\t")).await;
    assert_eq!(worker.terminate().await, Some(0));

    // The broker knows nobody of this name, and says no more than that.
    let nobody = scene.settings_with(&stage, "nobody", Wanted::client("nobody", "first"), "", "?auth_mechanism=external");
    let mut worker = stage.spawn(&nobody);
    worker.not_ready_because(&["disconnected: ", "ACCESS_REFUSED"]).await;
    assert_eq!(worker.terminate().await, Some(0));

    // Whoever shows a certificate looks at the broker's no less.
    let mut mistaken = nobody.clone();
    let stranger = Authority::new("another authority").write(scene.folder().join("stranger.pem"));
    mistaken.set("amqp.ca_file", stranger.to_str());
    let mut worker = stage.spawn(&mistaken);
    worker.not_ready_because(&["disconnected: ", Flaw::UnknownAuthority.words()]).await;
    assert_eq!(worker.terminate().await, Some(0));

    let external = scene.settings_with(&stage, "client", Wanted::client(USER, "first"), "", "?auth_mechanism=external");
    let worker = stage.worker_with(&external).await;
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    scene.connections_fit("the user of the certificate", |line| line.starts_with("kf-worker\tEXTERNAL\t")).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_replaced_on_disk_is_shown_at_the_next_connect() {
    let scene = Scene::new();
    let mut stage = Stage::at(scene.node.url()).await;
    let settings = scene.settings_with(&stage, "client", Wanted::client(USER, "first"), "", "?auth_mechanism=external");
    let worker = stage.worker_with(&settings).await;
    let added = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    added.assert_succeeded("created");
    let close = || scene.node.control(&["close_all_user_connections", USER, "a test wants to see the next ones"]);
    let sessions = |worker: &Worker| worker.logged("commands are being taken");

    scene.authority.sign(Wanted::client(USER, "too-late").expired()).write(scene.folder(), "client");
    close();
    worker.not_ready_because(&["disconnected: ", "our certificate (CertificateExpired)"]).await;
    stage.send(&delete("c2", "anna@test")).await;

    let replacements = [
        ("sec1", scene.authority.sign(Wanted::client(USER, "sec1")).traditional()),
        ("rsa", scene.authority.sign(Wanted::client(USER, "rsa").with_rsa())),
        ("pkcs1", scene.authority.sign(Wanted::client(USER, "pkcs1").with_rsa()).traditional()),
    ];
    let headings = ["EC PRIVATE KEY", "BEGIN PRIVATE KEY", "RSA PRIVATE KEY"];
    for ((organisation, certificate), heading) in replacements.into_iter().zip(headings) {
        assert!(certificate.key.contains(heading), "{organisation}");
        let before = sessions(&worker);
        // The worker that is refused is about to connect again anyway.
        let connected = worker.get("/readyz").await.is_some_and(|(status, _)| status == 200);
        certificate.write(scene.folder(), "client");
        if connected {
            close();
        }
        eventually("the worker connects again", async || (sessions(&worker) > before).then_some(())).await;
        let shown = format!("O={organisation}");
        scene.connections_fit(&shown, |line| line.contains(&shown)).await;
    }
    let deleted = stage.events.of("c2").await;
    deleted.assert_succeeded("deleted");
    super::settle(&mut stage, worker, &[added, deleted]).await;
}
