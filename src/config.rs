//! Assembles the parts' settings from file and environment, checks them together, and reports every fault at once.

mod faults;
mod file;
mod in_force;
mod official_accounts;
mod reader;
mod secret_files;
mod secrets;
mod tls;
mod traces;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::authorisation::{Rule, Rules};
use crate::broker::Topology;
use crate::outcome::Action;
use crate::retry::DeferDelay;
use crate::{accounts, admin, broker, ledger, retry, wechat, worker};
use official_accounts::read_official_accounts;
use reader::Reader;
use tls::{read_authorities, read_broker_tls};
use traces::read_traces;

pub use faults::{Fault, Faults};
pub use in_force::Setting;
pub use secret_files::{Exposed, SecretFiles};

/// The complete example: every key with its default and what it means.
pub const EXAMPLE: &str = include_str!("../deploy/kf-worker.toml");

/// Everything the worker is told.
pub struct Config {
    pub broker: broker::Settings,
    pub worker: worker::Settings,
    pub wechat: wechat::Settings,
    pub accounts: accounts::Settings,
    pub retry: retry::Settings,
    pub ledger: ledger::Settings,
    pub admin: admin::Settings,
    pub rules: Rules,
    /// Nothing where no spans are exported.
    pub traces: Option<crate::traces::Settings>,
    /// Where secrets came from.
    pub secret_files: SecretFiles,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// RabbitMQ takes a delivery away, and closes its channel, when it is not acknowledged for 30 minutes by default. What
/// is held must have ended well before.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// A claim lasts for one call and so much longer: a worker may be slow between claiming and calling.
const CLAIM_SPARE: Duration = Duration::from_secs(5);

/// Reads the configuration: environment over file over defaults.
///
/// # Errors
/// All faults there are, each with its key.
pub fn load(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, Faults> {
    let mut reader = Reader::open(file, environment)?;
    let config = read(&mut reader, file);
    reader.finish(config)
}

/// What every key amounts to, secrets hidden, and the faults, where there are any.
pub fn in_force(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> (Vec<Setting>, Option<Faults>) {
    let mut reader = match Reader::open(file, environment) {
        Ok(reader) => reader,
        Err(faults) => return (Vec::new(), Some(faults)),
    };
    read(&mut reader, file);
    (reader.settings(), reader.finish(()).err())
}

fn read(reader: &mut Reader, file: Option<&Path>) -> Config {
    let broker = read_broker(reader);
    let request_timeout = reader.duration("wechat.request_timeout", 5 * SECOND);
    let config = Config {
        worker: read_worker(reader, usize::from(broker.window), request_timeout),
        broker,
        wechat: read_wechat(reader, request_timeout),
        accounts: read_official_accounts(reader, file),
        retry: read_retry(reader),
        ledger: read_ledger(reader, request_timeout),
        admin: read_admin(reader),
        rules: read_rules(reader),
        traces: read_traces(reader),
        secret_files: reader.secret_files(),
    };
    check_together(reader, config)
}

/// Reads how the broker is reached, and nothing else: who sends commands or reads results knows of no Official Account.
///
/// # Errors
/// What is wrong with the file as a whole, or under `amqp`.
pub fn load_broker(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<broker::Settings, Faults> {
    let mut reader = Reader::open(file, environment)?;
    let settings = read_broker(&mut reader);
    reader.finish_section("amqp", settings)
}

/// Reads where the ledger is, and nothing else: who looks at outcomes needs no more.
///
/// # Errors
/// What is wrong with the file as a whole, or under `ledger`.
pub fn load_ledger(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<ledger::Place, Faults> {
    let mut reader = Reader::open(file, environment)?;
    let settings = read_ledger(&mut reader, SECOND);
    reader.finish_section("ledger", settings.place)
}

/// Reads where the admin port is, and nothing else: what is wrong elsewhere is no concern of who asks the port.
///
/// # Errors
/// What is wrong with the file as a whole, or with the port's own keys.
pub fn load_admin(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<admin::Settings, Faults> {
    let mut reader = Reader::open(file, environment)?;
    let settings = read_admin(&mut reader);
    reader.finish_part(settings)
}

fn read_broker(reader: &mut Reader) -> broker::Settings {
    let url = reader.secret_or("amqp.url", "amqp://guest:guest@127.0.0.1:5672/%2f", may_hold_password);
    let url = match broker::BrokerUrl::parse(&url) {
        Ok(url) => {
            reader.settings.show("amqp.url", url.to_string());
            url
        }
        Err(trouble) => {
            reader.fault("amqp.url", trouble);
            Default::default()
        }
    };
    let tls = read_broker_tls(reader, &url);
    let prefix = reader.text("amqp.prefix", "kf");
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(fits) {
        reader.fault("amqp.prefix", "is not 1 to 100 of A-Z a-z 0-9 . _ -");
    }
    let partitions = reader.integer("amqp.partitions", 1, 1..=1_000).try_into().unwrap_or(1);
    let choices = [("declare", Topology::Declare), ("check", Topology::Check), ("none", Topology::None)];
    let topology = reader.choice("amqp.topology", &choices, Topology::Declare);
    let window = reader.integer("worker.window", 256, 1..=65_535).try_into().unwrap_or(u16::MAX);
    broker::Settings { url, tls, prefix, topology, partitions, alone: false, window, defer: Vec::new() }
}

fn read_worker(reader: &mut Reader, window: usize, request_timeout: Duration) -> worker::Settings {
    let concurrency: usize = reader.integer("worker.concurrency", 64, 1..=10_000).try_into().unwrap_or(64);
    let calls_percent: usize = reader.integer("worker.calls_percent", 50, 1..=100).try_into().unwrap_or(50);
    let window_percent: usize = reader.integer("worker.window_percent", 50, 1..=100).try_into().unwrap_or(50);
    let verify = reader.flag("verify.enabled", false);
    let drift_interval = reader.duration("verify.drift_interval", HOUR);
    worker::Settings {
        concurrency,
        calls_share: (concurrency * calls_percent / 100).max(1),
        window_share: (window * window_percent / 100).max(1),
        slow_after: reader.duration("worker.slow_after", 5 * SECOND),
        drain: reader.duration("worker.drain", 20 * SECOND),
        request_timeout,
        drift_interval: verify.then_some(drift_interval),
    }
}

fn read_wechat(reader: &mut Reader, request_timeout: Duration) -> wechat::Settings {
    let mut base_urls = vec![reader.text("wechat.base_url", "https://api.weixin.qq.com")];
    if let Some(trouble) = trouble_with_url(&base_urls[0]) {
        reader.fault("wechat.base_url", trouble);
    }
    let fallbacks = reader.list("wechat.fallback_urls", &[]);
    if let Some(trouble) = fallbacks.iter().find_map(|url| trouble_with_url(url)) {
        reader.fault("wechat.fallback_urls", trouble);
    }
    base_urls.extend(fallbacks);
    let encrypted = base_urls.iter().any(|url| url.starts_with("https://"));
    wechat::Settings { base_urls, tls: read_authorities(reader, "wechat.ca_file", encrypted), request_timeout }
}

/// Whether a URL may hold a password.
fn may_hold_password(url: &str) -> bool {
    url.contains('@') || url.contains("password=")
}

/// A token goes to these hosts, so they must be who they say; on this machine itself there is nobody else.
fn trouble_with_url(url: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Some("is not a URL of the form https://HOST") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match scheme {
        _ if host.is_empty() || authority.contains('@') => Some("is not a URL of the form https://HOST"),
        "https" => None,
        "http" if loopback => None,
        "http" => Some("is http: the access token would be readable on the way; use https (http is taken for this machine alone)"),
        _ => Some("is neither https nor http"),
    }
}

fn read_retry(reader: &mut Reader) -> retry::Settings {
    let names = reader.list("retry.defer", &["1m", "10m", "1h"]);
    let mut defer = Vec::new();
    for name in names {
        match humantime::parse_duration(&name) {
            Ok(delay) if !delay.is_zero() && !name.contains(char::is_whitespace) => defer.push(DeferDelay { delay, name }),
            _ => reader.fault("retry.defer", format!("`{}` is not a delay such as 1m, written in one word", name.escape_debug())),
        }
    }
    if defer.is_empty() || !defer.is_sorted_by(|a, b| a.delay < b.delay) {
        reader.fault("retry.defer", "must hold at least one delay, the shortest first and none twice");
    }
    retry::Settings {
        initial: reader.duration("retry.initial", SECOND / 2),
        max_interval: reader.duration("retry.max_interval", 30 * SECOND),
        max_in_process: reader.duration("retry.max_in_process", 2 * MINUTE),
        defer,
        max_age: reader.duration("retry.max_age", 48 * HOUR),
        capacity_wait: reader.duration("retry.capacity_wait", 10 * MINUTE),
        probe_interval: reader.duration("retry.probe_interval", MINUTE),
        budget: reader.integer("retry.budget", 20, 1..=1_000_000).try_into().unwrap_or(20),
        budget_in_all: reader.integer("retry.budget_in_all", 200, 1..=1_000_000).try_into().unwrap_or(200),
    }
}

fn read_ledger(reader: &mut Reader, request_timeout: Duration) -> ledger::Settings {
    let url = reader.secret_or("ledger.url", "sqlite:kf-ledger.db", may_hold_password);
    let place = match ledger::Place::parse(&url) {
        Ok(place) => {
            reader.settings.show("ledger.url", place.to_string());
            place
        }
        Err(trouble) => {
            reader.fault("ledger.url", trouble);
            ledger::Place::Sqlite(PathBuf::new())
        }
    };
    if let Err(error) = place.certificates() {
        reader.fault("ledger.url", error.to_string());
    }
    let retention = reader.duration("ledger.retention", 90 * DAY);
    ledger::Settings { place, retention, patience: Duration::ZERO, lease: request_timeout + CLAIM_SPARE }
}

fn read_admin(reader: &mut Reader) -> admin::Settings {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let text = reader.text("admin.listen", "127.0.0.1:9464");
    let listen = text.parse().unwrap_or_else(|_| {
        reader.fault("admin.listen", "is not an address and a port such as 127.0.0.1:9464");
        default
    });
    let hosts = reader.list("admin.hosts", &[]);
    if let Some(wrong) = hosts.iter().find(|host| !admin::is_host_name(host)) {
        reader.fault(
            "admin.hosts",
            format!("`{}` is not a host name such as kf-worker.example.com, without scheme and port", wrong.escape_debug()),
        );
    }
    admin::Settings { listen, hosts }
}

fn read_rules(reader: &mut Reader) -> Rules {
    let rule = |reader: &mut Reader, entry: String| Rule {
        user: reader.required(&format!("{entry}.user")),
        actions: {
            let key = format!("{entry}.actions");
            let words = reader.list(&key, &["add", "delete"]);
            let actions: Vec<Action> = words.iter().filter_map(|word| Action::from_word(word)).collect();
            if actions.len() != words.len() || actions.is_empty() {
                reader.fault(&key, "must hold `add`, `delete` or both");
            }
            actions
        },
        accounts: reader.list(&format!("{entry}.accounts"), &["*"]),
    };
    let entries = reader.tables("publisher");
    Rules(entries.into_iter().map(|entry| rule(reader, entry)).collect())
}

/// What must fit together across the parts.
fn check_together(reader: &mut Reader, mut config: Config) -> Config {
    let retry = &config.retry;
    let longest_defer = retry.defer.last().map_or(Duration::ZERO, |defer| defer.delay);
    let show = |duration: Duration| humantime::format_duration(duration).to_string();
    // The last attempt may fetch a token and a platform's, ask for the list before and after, and call.
    let held = retry.max_in_process + 8 * config.worker.request_timeout;
    if held > LONGEST_HOLD {
        let limit = show(LONGEST_HOLD);
        reader.fault("retry.max_in_process", format!("with wechat.request_timeout a delivery could be held for {}; RabbitMQ takes one away after 30m, so at most {limit} are taken", show(held)));
    }
    if retry.initial > retry.max_interval {
        reader.fault("retry.initial", "is longer than retry.max_interval");
    }
    if retry.max_interval > retry.max_in_process {
        reader.fault("retry.max_interval", "is longer than retry.max_in_process: every backoff would go through a queue");
    }
    if retry.max_age <= retry.max_in_process {
        reader.fault("retry.max_age", "is not longer than retry.max_in_process");
    }
    if config.ledger.retention <= retry.max_age + longest_defer {
        reader.fault(
            "ledger.retention",
            "is not longer than retry.max_age and the longest retry.defer: a command would be forgotten before it ends",
        );
    }
    if usize::from(config.broker.window) < config.worker.concurrency {
        reader.fault("worker.window", "is smaller than worker.concurrency: so many calls can never be in flight");
    }
    config.broker.alone = !config.ledger.place.is_shared();
    config.ledger.patience = retry.max_age + longest_defer;
    config.broker.defer = retry.defer.iter().map(|defer| (defer.name.clone(), defer.delay)).collect();
    config
}

#[cfg(test)]
mod tests;
