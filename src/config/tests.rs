//! What the configuration takes, what it refuses, and how it says so.

use super::*;
use secrecy::ExposeSecret as _;

/// Writes a file that is gone with the folder's guard.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kf-worker.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let (_folder, path) = file(text);
    load(Some(&path), environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<Fault> {
    match load_text(text, environment) {
        Ok(_) => panic!("no fault was found"),
        Err(faults) => faults.0,
    }
}

const LEAST: &str = "[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx1\"\napp_secret = \"s3cret\"\n";

#[test]
fn the_example_is_complete_and_holds_the_defaults() {
    let (_folder, path) = file(EXAMPLE);
    let example = load(Some(&path), []).unwrap_or_else(|faults| panic!("{faults}"));
    let least = load_text(LEAST, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(example.broker.uri, least.broker.uri);
    assert_eq!(example.broker.prefix, "kf");
    assert_eq!(example.broker.window, least.broker.window);
    assert_eq!(example.broker.defer, least.broker.defer);
    assert_eq!(format!("{:?}", example.worker), format!("{:?}", least.worker));
    assert_eq!(format!("{:?}", example.retry), format!("{:?}", least.retry));
    assert_eq!(format!("{:?}", example.ledger), format!("{:?}", least.ledger));
    assert_eq!(example.wechat.base_urls, least.wechat.base_urls);
    assert_eq!(example.admin.listen, least.admin.listen);
    assert!(example.rules.0.is_empty());
}

#[test]
fn every_commented_line_of_the_example_is_a_key_that_is_known() {
    let uncommented: String = EXAMPLE.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    match load_text(&uncommented, &[]) {
        Ok(config) => assert!(!config.rules.0.is_empty()),
        Err(faults) => panic!("{faults}"),
    }
}

#[test]
fn all_faults_are_told_at_once_with_file_line_and_key() {
    let text = "[amqp]\nurl = 7\nprefixx = \"kf\"\n[worker]\nconcurrency = 0\nwindow = \"many\"\n[retry]\nmax_in_process = \"20m\"\ninitial = \"soon\"\n[ledger]\nurl = \"mysql:x\"\n";
    let faults = faults(text, &[]);
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    for key in [
        "amqp.url",
        "amqp.prefixx",
        "worker.concurrency",
        "worker.window",
        "retry.max_in_process",
        "retry.initial",
        "ledger.url",
        "official_account",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    let told = Faults(faults).to_string();
    assert!(told.contains(":3: amqp.prefixx: is not known; did you mean `amqp.prefix`?"), "{told}");
    assert!(told.contains(":5: worker.concurrency: is not a whole number from 1 to 10000"), "{told}");
}

#[test]
fn the_environment_goes_before_the_file() {
    let text = format!("[worker]\nconcurrency = 2\n{LEAST}");
    let environment = [
        ("KF_WORKER__CONCURRENCY", "9"),
        ("KF_RETRY__DEFER", "2s, 1m"),
        ("KF_OFFICIAL_ACCOUNT__0__APP_ID", "wx2"),
        ("KF_OFFICIAL_ACCOUNT__1__WECHAT_ID", "other"),
        ("KF_OFFICIAL_ACCOUNT__1__APP_ID", "wx3"),
        ("KF_OFFICIAL_ACCOUNT__1__APP_SECRET", "x"),
        ("KF_WORKER_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = load_text(&text, &environment).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.worker.concurrency, 9);
    assert_eq!(config.broker.defer.len(), 2);
    assert_eq!(config.wechat.official_accounts[0].app_id, "wx2");
    assert_eq!(config.wechat.official_accounts[1].wechat_id, "other");
    let unknown = faults(LEAST, &[("KF_WORKER__CONCURENCY", "9")]);
    assert!(
        Faults(unknown)
            .to_string()
            .contains("environment KF_WORKER__CONCURENCY: worker.concurency: is not known; did you mean `worker.concurrency`?")
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let (folder, _) = file("");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "from a file\n").unwrap();
    let text = format!("[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx1\"\napp_secret_file = \"{}\"\n", secret.display());
    let config = load_text(&text, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.wechat.official_accounts[0].app_secret.expose_secret(), "from a file");
    let environment = [("KF_OFFICIAL_ACCOUNT__0__APP_SECRET_FILE", secret.to_str().unwrap())];
    let config = load_text(LEAST, &environment).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.wechat.official_accounts[0].app_secret.expose_secret(), "from a file");
    let both = format!("{LEAST}app_secret_file = \"x\"\n");
    assert_eq!(faults(&both, &[])[0].key, "official_account.0.app_secret_file");
    let missing = faults(&text.replace("secret\"\n", "secret2\"\n"), &[]);
    assert!(missing[0].what.contains("can't be read"), "{missing:?}");
}

#[test]
fn no_fault_shows_a_secret() {
    let text = "[amqp]\nurl = \"http://hr:hunter2@host\"\n[[official_account]]\nwechat_id = \"a b\"\napp_id = \"\"\napp_secret = 5\n";
    let told = Faults(faults(text, &[])).to_string();
    assert!(told.contains("amqp.url") && told.contains("official_account.0.app_secret"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_token_travels_encrypted_except_on_this_machine() {
    for (url, taken) in [
        ("https://api.weixin.qq.com", true),
        ("http://127.0.0.1:9300", true),
        ("http://localhost:9300", true),
        ("http://[::1]:9300", true),
        ("http://api.weixin.qq.com", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://127.0.0.1@evil.example", false),
        ("ftp://x", false),
        ("https://", false),
        ("api.weixin.qq.com", false),
    ] {
        let result = load_text(&format!("[wechat]\nbase_url = \"{url}\"\n{LEAST}"), &[]);
        assert_eq!(result.is_ok(), taken, "{url}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    let told = Faults(faults("[amqp]\nurl = \n", &[])).to_string();
    assert!(told.contains("kf-worker.toml:2: is not TOML"), "{told}");
}
