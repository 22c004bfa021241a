//! What the configuration takes, what it refuses, and how it says so.

use super::*;
use crate::accounts::{OfficialAccountSettings, Ticket, TokenKind};

/// Writes a file that is gone with the folder's guard.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kf-worker.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let (_folder, path) = file(text);
    load(Some(&path), environment.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<Fault> {
    match load_text(text, environment) {
        Ok(_) => panic!("no fault was found"),
        Err(faults) => faults.0,
    }
}

/// The AppID and AppSecret of an account with a stable token.
fn app(account: &OfficialAccountSettings) -> (&str, &str) {
    match &account.token {
        TokenKind::Stable { app, .. } => (&app.app_id, app.app_secret.expose()),
        other => panic!("another kind: {other:?}"),
    }
}

const LEAST: &str = "[[official_account]]\nwechat_id = \"test\"\napp_id = \"wx1\"\napp_secret = \"s3cret\"\n";

#[test]
fn the_example_is_complete_and_holds_the_defaults() {
    let (_folder, path) = file(EXAMPLE);
    let example = load(Some(&path), []).unwrap_or_else(|faults| panic!("{faults}"));
    let least = load_text(LEAST, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(example.broker.url, least.broker.url);
    assert_eq!(example.broker.prefix, "kf");
    assert_eq!(example.broker.window, least.broker.window);
    assert_eq!(example.broker.defer, least.broker.defer);
    assert_eq!(format!("{:?}", example.worker), format!("{:?}", least.worker));
    assert_eq!(format!("{:?}", example.retry), format!("{:?}", least.retry));
    assert_eq!(format!("{:?}", example.ledger), format!("{:?}", least.ledger));
    assert_eq!(example.wechat.base_urls, least.wechat.base_urls);
    assert_eq!((example.admin.listen, example.admin.hosts), (least.admin.listen, least.admin.hosts));
    assert!(example.rules.0.is_empty());
    assert!(example.traces.is_none() && least.traces.is_none());
}

#[test]
fn every_commented_line_of_the_example_is_a_key_that_is_known() {
    let (_folder, path) = whole_example();
    match load(Some(&path), []) {
        Ok(config) => assert!(!config.rules.0.is_empty() && !config.accounts.platforms.is_empty()),
        Err(faults) => panic!("{faults}"),
    }
}

/// The example with every key in it, the commented ones included, and the folder with the files that it names.
fn whole_example() -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = file("");
    std::fs::create_dir(folder.path().join("official-accounts.d")).unwrap();
    let own = rcgen::generate_simple_self_signed(["worker".to_owned()]).unwrap();
    for name in ["rabbitmq-ca.pem", "wechat-ca.pem", "client.pem"] {
        std::fs::write(folder.path().join(name), own.cert.pem()).unwrap();
    }
    std::fs::write(folder.path().join("client-key.pem"), own.signing_key.serialize_pem()).unwrap();
    let uncommented: String = EXAMPLE.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    let here = format!("{}/", folder.path().display());
    let encrypted = uncommented.replace("/etc/kf-worker/", &here).replace("url = \"amqp://", "url = \"amqps://");
    std::fs::write(&path, encrypted).unwrap();
    (folder, path)
}

#[test]
fn every_key_of_the_example_is_shown_and_none_of_its_secrets() {
    let (_folder, path) = whole_example();
    let (shown, faults) = in_force(Some(&path), []);
    assert_eq!(faults, None);
    let given: Vec<String> = reader::Reader::open(Some(&path), []).unwrap().entries.into_keys().collect();
    for key in &given {
        let setting = shown.iter().find(|setting| setting.key == *key).unwrap_or_else(|| panic!("{key} is not shown"));
        assert_eq!(setting.source.as_str(), "file", "{setting:?}");
        assert!(!setting.value.is_null(), "{setting:?}");
    }
    for setting in &shown {
        let text = setting.value.to_string();
        for secret in ["change-me", "guest:guest", "tokens.example.com"] {
            assert!(!text.contains(secret), "{setting:?}");
        }
    }
    let sections: Vec<&str> = shown.iter().map(|setting| setting.key.split('.').next().unwrap()).collect();
    let mut once = sections.clone();
    once.dedup();
    once.sort_unstable();
    assert!(once.windows(2).all(|pair| pair[0] != pair[1]), "a section stands in one piece: {sections:?}");
}

#[test]
fn the_defaults_are_shown_as_the_example_writes_them() {
    let (_folder, path) = file(LEAST);
    let defaults = in_force(Some(&path), []).0;
    let (_folder, path) = file(EXAMPLE);
    for example in in_force(Some(&path), []).0 {
        let Some(default) = defaults.iter().find(|setting| setting.key == example.key && setting.source.as_str() == "default") else {
            continue;
        };
        // Two days are 48 hours.
        let same = |value: &serde_json::Value| value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        let equal = example.value == default.value || (same(&example.value).is_some() && same(&example.value) == same(&default.value));
        assert!(equal, "{example:?} {default:?}");
    }
}

#[test]
fn the_admin_ports_hosts_are_names_alone() {
    let text = format!("{LEAST}[admin]\nhosts = [\"kf.example.com\", \"kf\"]\n");
    assert_eq!(load_text(&text, &[]).unwrap_or_else(|faults| panic!("{faults}")).admin.hosts, ["kf.example.com", "kf"]);
    let faults = faults(LEAST, &[("KF_ADMIN__HOSTS", "kf, https://kf:9464")]);
    assert_eq!(faults[0].key, "admin.hosts");
    assert!(faults[0].what.contains("`https://kf:9464` is not a host name"), "{}", faults[0].what);
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
    assert_eq!(app(&config.accounts.official_accounts[0]).0, "wx2");
    assert_eq!(config.accounts.official_accounts[1].wechat_id, "other");
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
    assert_eq!(app(&config.accounts.official_accounts[0]).1, "from a file");
    let environment = [("KF_OFFICIAL_ACCOUNT__0__APP_SECRET_FILE", secret.to_str().unwrap())];
    let config = load_text(LEAST, &environment).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(app(&config.accounts.official_accounts[0]).1, "from a file");
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
fn each_fault_is_told_on_one_line_that_no_terminal_obeys() {
    let text = "[retry]\ndefer = [\"1m\\u001b[2J\\n\"]\n[\"new\\nline\"]\nx = 1\n";
    let told = Faults(faults(text, &[])).to_string();
    assert!(told.contains("retry.defer") && told.contains(r"1m\u{1b}[2J\n"), "{told}");
    assert!(told.lines().all(|line| !line.chars().any(char::is_control)), "{told:?}");
    assert_eq!(told.lines().count(), 1 + faults(text, &[]).len(), "{told}");
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

const PLATFORM: &str = "[[platform]]\napp_id = \"wxp\"\napp_secret = \"s\"\nverify_ticket_file = \"/run/ticket\"\n";

#[test]
fn each_source_of_tokens_has_its_own_keys() {
    let text = format!(
        "{PLATFORM}{LEAST}forced_refreshes = 2\nmax_rate = \"20/s\"\n\
         [[official_account]]\nwechat_id = \"a\"\ntoken = \"url\"\ntoken_url = \"https://tokens.example/a\"\ntoken_headers = [\"X-Key: k\"]\n\
         [[official_account]]\nwechat_id = \"b\"\ntoken = \"authorizer\"\napp_id = \"wxb\"\nrefresh_token = \"r\"\n"
    );
    let accounts = load_text(&text, &[]).unwrap_or_else(|faults| panic!("{faults}")).accounts;
    let [first, second, third] = accounts.official_accounts.as_slice() else { panic!("{}", accounts.official_accounts.len()) };
    assert!(matches!(first.token, TokenKind::Stable { forced_refreshes: 2, .. }) && first.max_rate == "20/s".parse().ok());
    let TokenKind::Url(server) = &second.token else { panic!("{second:?}") };
    assert_eq!(
        (server.url.expose(), server.headers[0].0.as_str(), server.headers[0].1.expose()),
        ("https://tokens.example/a", "X-Key", "k")
    );
    let TokenKind::Authorizer { platform, app_id, refresh_token } = &third.token else { panic!("{third:?}") };
    assert_eq!((platform.as_str(), app_id.as_str(), refresh_token.expose()), ("wxp", "wxb", "r"));
    assert_eq!(accounts.platforms[0].ticket, Ticket::File(PathBuf::from("/run/ticket")));
}

#[test]
fn what_a_source_of_tokens_lacks_is_told() {
    for (text, key) in [
        ("token = \"url\"\n", "official_account.0.token_url"),
        ("token = \"url\"\ntoken_url = \"http://tokens.example\"\n", "official_account.0.token_url"),
        ("token = \"url\"\ntoken_url = \"https://t\"\ntoken_headers = [\"no colon\"]\n", "official_account.0.token_headers"),
        ("token = \"authorizer\"\napp_id = \"x\"\nrefresh_token = \"r\"\n", "official_account.0.platform"),
        ("app_id = \"x\"\napp_secret = \"s\"\nmax_rate = \"fast\"\n", "official_account.0.max_rate"),
        ("app_id = \"x\"\napp_secret = \"s\"\nforced_refreshes = 21\n", "official_account.0.forced_refreshes"),
    ] {
        let faults = faults(&format!("[[official_account]]\nwechat_id = \"a\"\n{text}"), &[]);
        assert!(faults.iter().any(|fault| fault.key == key), "{text}: {faults:?}");
    }
    let no_ticket = format!("{}{LEAST}", PLATFORM.replace("verify_ticket_file = \"/run/ticket\"\n", ""));
    assert_eq!(faults(&no_ticket, &[])[0].key, "platform.0.verify_ticket_file");
}

#[test]
fn official_accounts_may_stand_in_a_folder_one_in_each_file() {
    let (folder, path) = file(&format!("[wechat]\nofficial_account_dir = \"accounts\"\n{LEAST}"));
    let accounts = folder.path().join("accounts");
    std::fs::create_dir(&accounts).unwrap();
    for number in 0..3_000 {
        let text = format!("wechat_id = \"oa{number}\"\napp_id = \"wx{number}\"\napp_secret = \"s\"\n");
        std::fs::write(accounts.join(format!("{number:04}.toml")), text).unwrap();
    }
    std::fs::write(accounts.join("README"), "not a configuration").unwrap();
    let config = load(Some(&path), []).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.accounts.official_accounts.len(), 3_001);
    assert_eq!(config.accounts.official_accounts[3].wechat_id, "oa2");

    std::fs::write(accounts.join("0001.toml"), "wechat_id = \"test\"\napp_id = \"x\"\nsecret = \"s\"\n").unwrap();
    let told = load(Some(&path), []).err().unwrap().to_string();
    assert!(told.contains("0001.toml:1: official_account.2.wechat_id: `test` is configured twice"), "{told}");
    assert!(told.contains("0001.toml:1: official_account.2.app_secret: is missing"), "{told}");
    assert!(told.contains("0001.toml:3: official_account.2.secret: is not known"), "{told}");
}

#[test]
fn spans_are_exported_where_an_address_is_given() {
    let traces = |lines: &str| load_text(&format!("[traces]\n{lines}\n{LEAST}"), &[]).unwrap_or_else(|faults| panic!("{faults}")).traces;
    assert!(traces("sample_ratio = 0.5").is_none());
    for (url, whole) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://collector/otlp/v1/traces", "https://collector/otlp/v1/traces"),
    ] {
        let settings = traces(&format!("otlp_url = \"{url}\"")).unwrap();
        assert_eq!((settings.otlp_url.as_str(), settings.sample_ratio), (whole, 1.0));
        assert!(settings.authorization.is_none());
    }
    for (ratio, taken) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)] {
        let settings = traces(&format!("otlp_url = \"http://c\"\nsample_ratio = {ratio}")).unwrap();
        assert_eq!(settings.sample_ratio, taken);
    }
    let environment = [("KF_TRACES__OTLP_URL", "https://c"), ("KF_TRACES__AUTHORIZATION", "Bearer x"), ("KF_TRACES__SAMPLE_RATIO", "0.1")];
    let settings = load_text(LEAST, &environment).unwrap_or_else(|faults| panic!("{faults}")).traces.unwrap();
    assert_eq!((settings.authorization.unwrap().expose(), settings.sample_ratio), ("Bearer x", 0.1));
}

#[test]
fn an_export_that_cannot_be_is_told_and_its_secret_is_not() {
    for (lines, key) in [
        ("otlp_url = \"collector:4318\"", "traces.otlp_url"),
        ("otlp_url = \"http://hr:hunter2@collector\"", "traces.otlp_url"),
        ("otlp_url = \"http://collector:4318\"\nauthorization = \"Bearer hunter2\"", "traces.otlp_url"),
        ("otlp_url = \"https://collector\"\nauthorization = \"hunter2\\n\"", "traces.authorization"),
        ("sample_ratio = 1.1", "traces.sample_ratio"),
        ("sample_ratio = \"all\"", "traces.sample_ratio"),
        ("sample_ratio = nan", "traces.sample_ratio"),
    ] {
        let faults = faults(&format!("[traces]\n{lines}\n{LEAST}"), &[]);
        assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), [key], "{lines}");
        assert!(!Faults(faults).to_string().contains("hunter2"), "{lines}");
    }
}

#[test]
fn what_is_no_text_in_the_environment_is_a_fault_where_it_is_ours_and_else_nobodys() {
    use std::os::unix::ffi::OsStringExt as _;
    let (_folder, path) = file(LEAST);
    let broken = || OsString::from_vec(vec![b'a', 0xff]);
    let with = |name: OsString| load(Some(&path), [(name, broken())]).map(drop);
    assert_eq!(with(OsString::from("HOME")), Ok(()));
    assert_eq!(with(broken()), Ok(()));
    let faults = with(OsString::from("KF_AMQP__PREFIX")).unwrap_err().0;
    assert_eq!((faults[0].key.as_str(), faults[0].what.as_str()), ("amqp.prefix", "is not UTF-8"));
}

#[test]
fn the_environment_goes_before_the_file_also_for_headers_with_secrets() {
    let text =
        "[[official_account]]\nwechat_id = \"test\"\ntoken = \"url\"\ntoken_url = \"https://tokens.example\"\ntoken_headers = [\"A: b\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "Authorization: Bearer x\n\n").unwrap();
    let config = load_text(text, &[("KF_OFFICIAL_ACCOUNT__0__TOKEN_HEADERS_FILE", headers.to_str().unwrap())])
        .unwrap_or_else(|faults| panic!("{faults}"));
    let TokenKind::Url(server) = &config.accounts.official_accounts[0].token else { panic!("another kind") };
    assert_eq!(server.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["Authorization"]);
}

#[test]
fn the_reference_page_has_every_key_with_its_default_and_variable_and_no_other() {
    let page = include_str!("../../docs/configuration.md");
    let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").collect()).collect();
    let row = |key: &str| rows.iter().find(|row| row[0] == format!("| `{key}`"));
    // Entries of lists are told once, whichever of them it is.
    let told_as = |key: &str| key.split('.').filter(|word| word.parse::<usize>().is_err()).collect::<Vec<_>>().join(".");
    let (_folder, path) = whole_example();
    // A platform has its ticket from a file, as in the example, or from a server.
    let (_other_folder, other) = file(&PLATFORM.replace("_file = \"/run/ticket\"", "_url = \"https://tickets.example\""));
    let mut known = std::collections::BTreeSet::new();
    for path in [path, other] {
        let mut reader = reader::Reader::open(Some(&path), []).unwrap();
        read(&mut reader, Some(&path));
        known.extend(reader.known.iter().map(|key| told_as(key)));
    }
    for key in &known {
        assert!(row(key).is_some(), "docs/configuration.md has no row for `{key}`");
    }
    for row in rows.iter().filter(|row| row.len() == 4) {
        let key = row[0].trim_start_matches("| ").trim_matches('`');
        assert!(known.contains(key), "docs/configuration.md has `{key}`, which the program does not know");
        let variable = key.to_ascii_uppercase().split('.').collect::<Vec<_>>().join("__");
        let (section, name) = variable.split_once("__").unwrap();
        let names = [format!("KF_{variable}"), format!("KF_{section}__N__{name}")];
        assert!(names.iter().any(|name| row[3].contains(name.as_str())), "`{key}` has another variable than {}", row[3]);
    }
    // The example holds the defaults, as another test sees to.
    let mut section = "";
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
        } else if let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let value = value.split("  #").next().unwrap_or_default().trim();
            let key = format!("{section}.{name}");
            let row = row(&key).unwrap_or_else(|| panic!("docs/configuration.md has no row for `{key}`"));
            assert!(section == "official_account" || row[2].contains(value), "the default of `{key}` is {value}, not {}", row[2]);
        }
    }
}
