//! What is wrong with the keys of TLS is told before anything is reached; and WeChat is spoken to in the clear on this machine alone.

use std::path::Path;
use std::process::Output;

use crate::support::DEADLINE;
use crate::support::certificates::{Authority, Wanted};
use crate::support::worker::kf_worker;

const OFFICIAL_ACCOUNT: &str = "[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx0\"\napp_secret = \"very-secret-secret\"\n";

/// Runs a subcommand on this configuration to its end.
async fn run(subcommand: &str, folder: &Path, text: &str) -> Output {
    let path = folder.join("kf-worker.toml");
    std::fs::write(&path, text).expect("the file can be written");
    let mut command = kf_worker();
    command.arg(subcommand).arg("--config").arg(&path).current_dir(folder);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    output.unwrap_or_else(|_| panic!("`{subcommand}` takes this configuration:\n{text}")).expect("it can be run")
}

/// Both `check` and `run` refuse this configuration with a fault of this key, and show nothing secret.
async fn assert_refused(folder: &Path, text: &str, key: &str) {
    for subcommand in ["check", "run"] {
        let output = run(subcommand, folder, text).await;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{subcommand}: {printed}\n{text}");
        let named = printed.lines().any(|line| line.contains(&format!(" {key}: ")));
        assert!(named, "{subcommand} does not name {key}: {printed}\n{text}");
        assert!(!printed.contains("secret") && !printed.contains("PRIVATE") && !printed.contains("panicked"), "{subcommand}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_keys_for_tls_is_told_by_its_key() {
    let (authority, folder) = (Authority::new("the authority"), tempfile::tempdir().expect("a temporary folder"));
    let folder = folder.path();
    authority.write(folder.join("ca.pem"));
    authority.sign(Wanted::client("kf-worker", "first")).write(folder, "client");
    authority.sign(Wanted::client("kf-worker", "second")).write(folder, "other");
    std::fs::write(folder.join("empty.pem"), "").expect("a file can be written");
    std::fs::write(folder.join("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("a file can be written");
    let (tls, plain) = ("amqps://kf:amqp-secret@localhost:1/%2f", "amqp://kf:amqp-secret@localhost:1/%2f");
    let external = "amqps://localhost:1/%2f?auth_mechanism=external";
    let (certificate, key) = ("client_certificate_file = \"client.pem\"", "client_key_file = \"client-key.pem\"");
    let both = format!("{certificate}\n{key}");
    let good = format!("ca_file = \"ca.pem\"\n{both}");
    for (url, lines, fault) in [
        (tls, "ca_file = \"no-such.pem\"", "amqp.ca_file"),
        (tls, "ca_file = \"empty.pem\"", "amqp.ca_file"),
        (tls, "ca_file = \"broken.pem\"", "amqp.ca_file"),
        (tls, "ca_file = \"client-key.pem\"", "amqp.ca_file"),
        (tls, certificate, "amqp.client_key_file"),
        (tls, key, "amqp.client_certificate_file"),
        (tls, &both.replace("client.pem", "no-such.pem"), "amqp.client_certificate_file"),
        (tls, &both.replace("client.pem", "empty.pem"), "amqp.client_certificate_file"),
        (tls, &both.replace("client-key.pem", "no-such.pem"), "amqp.client_key_file"),
        (tls, &both.replace("client-key.pem", "client.pem"), "amqp.client_key_file"),
        (tls, &both.replace("client-key.pem", "other-key.pem"), "amqp.client_key_file"),
        (plain, "ca_file = \"ca.pem\"", "amqp.ca_file"),
        (plain, &both, "amqp.client_certificate_file"),
        (external, "ca_file = \"ca.pem\"", "amqp.url"),
    ] {
        assert_refused(folder, &format!("[amqp]\nurl = \"{url}\"\n{lines}\n\n{OFFICIAL_ACCOUNT}"), fault).await;
    }
    for file in ["no-such.pem", "empty.pem", "broken.pem", "client-key.pem"] {
        assert_refused(folder, &format!("[wechat]\nca_file = \"{file}\"\n\n{OFFICIAL_ACCOUNT}"), "wechat.ca_file").await;
    }
    for url in [tls, external] {
        let text = format!("[amqp]\nurl = \"{url}\"\n{good}\n\n[wechat]\nca_file = \"ca.pem\"\n\n{OFFICIAL_ACCOUNT}");
        let output = run("check", folder, &text).await;
        assert_eq!(output.status.code(), Some(0), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_the_database_that_cannot_be_read_are_told_by_its_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("empty.pem"), "").expect("a file can be written");
    for file in ["no-such.pem", "empty.pem"] {
        let url = format!("postgres://kf:very-secret-secret@127.0.0.1:1/kf?sslmode=verify-full&sslrootcert={file}");
        assert_refused(folder.path(), &format!("[ledger]\nurl = \"{url}\"\n\n{OFFICIAL_ACCOUNT}"), "ledger.url").await;
    }
}

/// The configuration in which one of the keys that name a host of WeChat's, or of a token server, has this value.
fn with_host(key: &str, url: &str) -> String {
    let (section, line) = match key {
        "wechat.base_url" => ("[wechat]\n", format!("base_url = \"{url}\"")),
        "wechat.fallback_urls" => ("[wechat]\n", format!("fallback_urls = [\"https://wechat.example\", \"{url}\"]")),
        "official_account.1.token_url" => {
            ("[[official_account]]\nwechat_id = \"own\"\ntoken = \"url\"\n", format!("token_url = \"{url}/token\""))
        }
        _ => ("[[platform]]\napp_id = \"wx1\"\napp_secret = \"very-secret-secret\"\n", format!("verify_ticket_url = \"{url}/ticket\"")),
    };
    format!("{OFFICIAL_ACCOUNT}\n{section}{line}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_spoken_with_this_machine_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for key in ["wechat.base_url", "wechat.fallback_urls", "official_account.1.token_url", "platform.0.verify_ticket_url"] {
        for url in
            ["http://192.0.2.1", "http://wechat.example", "http://localhost.example", "http://127.0.0.1.example", "http://[2001:db8::1]"]
        {
            assert_refused(folder.path(), &with_host(key, url), key).await;
        }
        for url in
            ["http://localhost", "http://localhost:8080", "http://127.0.0.1", "http://[::1]", "https://192.0.2.1", "https://wechat.example"]
        {
            let output = run("check", folder.path(), &with_host(key, url)).await;
            assert_eq!(output.status.code(), Some(0), "{key}: {url}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
