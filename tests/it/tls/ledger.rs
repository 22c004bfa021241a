//! PostgreSQL with `sslmode=verify-full`: a database whose certificate is not right is no ledger, and gets no password.

use crate::support::certificates::{Authority, Certificate, Flaw};
use crate::support::postgres::{Database, OwnServer};
use crate::support::stage::{Stage, add, delete};
use crate::support::worker::Settings;

/// The role for which the tests' own server asks for a password.
const USER: &str = "guarded";
const PASSWORD: &str = "hunter2";

/// A new database of this server and the way to it, through the host that the certificates are for.
fn guarded(server: &OwnServer) -> (Database, String) {
    let database = server.database();
    database.execute(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
    let name = database.rows("SELECT current_database()").remove(0).remove(0);
    database.execute(&format!("GRANT ALL ON DATABASE {name} TO {USER}"));
    let url = database.url().replace("kf@127.0.0.1", &format!("{USER}:{PASSWORD}@localhost"));
    (database, url)
}

fn show(server: &OwnServer, certificate: &Certificate) {
    server.show_certificate(&certificate.pem, &certificate.key);
}

/// How many connections the worker has.
fn connections(database: &Database) -> usize {
    database.rows(&format!("SELECT pid FROM pg_stat_activity WHERE usename = '{USER}'")).len()
}

fn settings(stage: &Stage, url: &str, parameters: &str) -> Settings {
    let mut settings = stage.settings();
    settings.set("ledger.url", format!("{url}?sslmode=verify-full{parameters}"));
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_certificate_is_not_right_gets_nothing_until_it_is() {
    let authority = Authority::new("the authority");
    let (server, _) = OwnServer::start_with_tls();
    let (database, url) = guarded(&server);
    let mut stage = Stage::new().await;
    let ca_file = authority.write(stage.path("ca.pem"));
    let settings = settings(&stage, &url, &format!("&sslrootcert={}", ca_file.display()));
    show(&server, &authority.server());
    let mut worker = stage.worker_with(&settings).await;
    for flaw in Flaw::ALL {
        let account = format!("{}@test", flaw.name());
        show(&server, &authority.flawed(flaw));
        database.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'"));
        stage.send(&add(&account, &account, "安娜")).await;
        let reason = worker.not_ready_because(&["ledger: ", flaw.words()]).await;
        assert_eq!((connections(&database), stage.wechat.changes(&account).len()), (0, 0), "{flaw:?}: {reason}");

        show(&server, &authority.server());
        worker.ready().await;
        stage.events.of(&account).await.assert_succeeded("created");
        stage.outcome(&delete(&format!("delete-{account}"), &account)).await.assert_succeeded("deleted");
    }
    let encrypted = format!("SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{USER}'");
    assert_eq!(database.rows(&encrypted), [["t"]]);
    assert!(!worker.log().contains(PASSWORD), "{}", worker.log());
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_believed_by_the_systems_authorities_only_where_none_are_named() {
    let authority = Authority::new("the authority");
    let (server, _) = OwnServer::start_with_tls();
    show(&server, &authority.server());
    let (_database, url) = guarded(&server);
    let mut stage = Stage::new().await;
    let ca_file = authority.write(stage.path("ca.pem"));
    let stranger = Authority::new("another authority").write(stage.path("stranger.pem"));
    let mut mistaken = settings(&stage, &url, &format!("&sslrootcert={}", stranger.display()));
    mistaken.env("SSL_CERT_FILE", ca_file.to_str().expect("a plain path"));
    let mut worker = stage.spawn(&mistaken);
    worker.not_ready_because(&["ledger: ", Flaw::UnknownAuthority.words()]).await;
    assert_eq!(worker.terminate().await, Some(0));

    let mut systems = settings(&stage, &url, "");
    systems.env("SSL_CERT_FILE", ca_file.to_str().expect("a plain path"));
    let worker = stage.worker_with(&systems).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
