//! A background worker that adds and deletes WeChat customer-service ("kf") accounts on command from RabbitMQ, each
//! command with exactly one outcome.
//!
//! # The way of one command
//!
//! delivery → publisher allowed? → decode and validate → accept in the ledger, in delivery order (repeat? superseded?)
//! → lane of its account → claim → execute with retry → record → publish, confirmed → acknowledge
//!
//! The delivery that is not yet acknowledged is the outbox. As long as the event is not confirmed the delivery comes
//! back, the ledger finds the outcome, and the same event is published again.
//!
//! # Where things are, in reading order
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`worker`] | the story: take deliveries, carry one command to its outcome, settle |
//! | [`supervisor`] | one session with the broker after the other, and the orderly end |
//! | [`command`], [`outcome`], [`event`] | pure: bytes → command, the closed word lists, the published event |
//! | [`schema`] | what commands and results look like, for machines: JSON Schemas and an AsyncAPI document |
//! | [`retry`] | pure: what becomes of a command whose attempt has failed |
//! | [`lanes`] | one at a time for each account, lowest position first |
//! | [`calls`] | who may call WeChat next: fair among Official Accounts |
//! | [`accounts`] | what is known of each Official Account: paused and why, its token, its rate |
//! | [`drift`] | what WeChat lists, compared with what the commands asked for |
//! | [`authorisation`] | who may order what |
//! | [`ledger`] | what is remembered; the only SQL |
//! | [`wechat`] | the only client of WeChat: calls, tokens, what every answer means |
//! | [`broker`] | the only AMQP client: sessions, topology, partitions and who takes which, deliveries, confirms |
//! | [`metrics`], [`traces`], [`readiness`], [`admin`] | what operators see |
//! | [`systemd`] | what systemd is told: ready, alive, stopping, and what is the matter |
//! | [`config`], [`cli`] | what operators say |
//! | [`proof`] | what `check --connect` has looked at |
//! | [`secret`], [`tls`] | a text that is never shown; whom the worker believes on an encrypted connection |
//! | [`simulator`] | a faithful WeChat for demos and staging, apart from all of the above |
//!
//! # Invariants
//!
//! * A delivery is acknowledged only when its outcome is in the ledger and its event is confirmed, or when a confirmed
//!   copy is in another queue.
//! * An add or a delete is sent to WeChat only under a claim on its account that outlasts the call.
//! * A command's call is counted in the ledger before it is made.
//! * A changed refresh token is in the ledger before the access token that came with it is used.
//! * Calls for one account never overlap, whatever session brought the command.
//! * An outcome is written once; whoever comes second publishes the first.
//!
//! # When it dies
//!
//! | it dies after… | the ledger says | when the command comes back |
//! | --- | --- | --- |
//! | decode | nothing | it starts anew |
//! | accept | accepted, its position | it keeps its position, whatever order redelivery takes |
//! | claim, before WeChat answered | claimed | it waits until the claim of another worker has run out, and is executed again; `65406` or `65401` then reads as success with `effect: unknown` |
//! | WeChat did it, before record | claimed | the same |
//! | record, before publish | finished | the stored outcome is published, and acknowledged |
//! | publish confirmed, before acknowledge | finished | the same event id is published again, and acknowledged |
//! | copied to a deferred queue, before the ledger is told or before acknowledge | accepted or waiting | two copies: the first to finish is the outcome, the other repeats it |

pub mod accounts;
pub mod admin;
pub mod authorisation;
pub mod broker;
pub mod calls;
pub mod cli;
pub mod command;
pub mod config;
pub mod drift;
pub mod event;
/// What whoever thinks up input for fuzzing calls; tests call it with the inputs that are kept.
#[cfg(any(test, fuzzing))]
#[path = "../fuzz/properties/mod.rs"]
#[allow(clippy::expect_used, clippy::panic, reason = "a broken promise is told by a panic")]
pub mod fuzzing;
pub mod lanes;
pub mod ledger;
pub mod metrics;
pub mod outcome;
pub mod proof;
pub mod readiness;
pub mod retry;
pub mod schema;
pub mod secret;
pub mod simulator;
pub mod supervisor;
pub mod systemd;
pub mod tls;
pub mod traces;
pub mod wechat;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use accounts::OfficialAccounts;
use calls::Calls;
use config::Config;
use lanes::Lanes;
use ledger::{Ledger, Recall};
use metrics::Metrics;
use readiness::Readiness;
use traces::Traces;
use wechat::WeChat;
use worker::Worker;

/// How often outcomes past their retention are looked for at least; more often where the retention is short.
const PRUNING: Duration = Duration::from_secs(3_600);

/// Why the worker could not run, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Ledger(#[from] ledger::OpenError),
    #[error("the ledger can't be read: {0}")]
    Memory(#[from] ledger::LedgerError),
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error(transparent)]
    WeChat(#[from] wechat::BuildError),
    #[error(transparent)]
    Traces(#[from] traces::StartError),
    #[error("the metrics can't be made: {0}")]
    Metrics(String),
    #[error(transparent)]
    GaveUp(#[from] supervisor::GaveUp),
}

/// Runs the worker until it is told to shut down, then ends what is in flight. Of a configuration that comes over `changes`
/// meanwhile the Official Accounts are taken up, while calls under way end as they would have, and the users and passwords
/// for broker and database, for the connections that are made from then on.
///
/// # Errors
/// Where it can't begin, or has given up the broker.
pub async fn run(config: Config, changes: mpsc::Receiver<Config>, shutdown: CancellationToken) -> Result<(), RunError> {
    for exposed in config.secret_files.exposed() {
        tracing::warn!("{exposed}");
    }
    let readiness = Arc::new(Readiness::default());
    let systemd = systemd::tell(&readiness);
    let ended = work(config, changes, shutdown, readiness).await;
    systemd.finish().await;
    ended
}

/// Builds the parts and waits until they have ended.
async fn work(
    config: Config,
    changes: mpsc::Receiver<Config>,
    shutdown: CancellationToken,
    readiness: Arc<Readiness>,
) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new().map_err(|error| RunError::Metrics(error.to_string()))?);
    metrics.commands_held_limit.set(config.broker.window.into());
    let accounts = Arc::new(OfficialAccounts::new(&config.accounts, config.retry.budget, Arc::clone(&metrics)));
    let traces = Traces::start(config.traces.as_ref())?;
    // It answers while draining, and ends with this function.
    let ended = CancellationToken::new();
    let _ends_here = ended.clone().drop_guard();
    let shown = admin::Shown {
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        accounts: Arc::clone(&accounts),
        recall: Arc::new(Recall::new(config.ledger.place.clone())),
    };
    admin::serve(config.admin.clone(), shown, ended).await?;
    let Some(ledger) = open_ledger(&config.ledger, &metrics, &readiness, &shutdown).await? else { return Ok(()) };
    tokio::spawn(ledger::look_over(config.ledger.clone(), Arc::clone(&metrics)));
    accounts.restore(ledger.pauses().await?);
    tokio::spawn(prune(ledger.clone(), between_prunings(config.ledger.retention)));
    let (broker_changes, broker) = watch::channel(config.broker.clone());
    let changing =
        Changing { accounts: Arc::clone(&accounts), ledger: ledger.clone(), place: config.ledger.place.clone(), broker: broker_changes };
    tokio::spawn(changing.follow(changes));
    let worker = Arc::new(assemble(&config, ledger, accounts, metrics, traces.clone(), readiness, shutdown)?);
    if let Some(interval) = config.worker.drift_interval {
        let watching = Arc::clone(&worker);
        worker.tasks.spawn(async move { watching.watch(interval).await });
    }
    let served = supervisor::supervise(&worker, &broker).await;
    traces.finish().await;
    Ok(served?)
}

/// Opens the ledger. One that can't be reached is waited for, as the broker is. `None` where the worker was told to shut
/// down meanwhile.
async fn open_ledger(
    settings: &ledger::Settings,
    metrics: &Arc<Metrics>,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> Result<Option<Ledger>, ledger::OpenError> {
    let mut failures = 0;
    loop {
        let opened = tokio::select! {
            opened = Ledger::open(settings, Arc::clone(metrics)) => opened,
            () = shutdown.cancelled() => {
                readiness.draining();
                return Ok(None);
            }
        };
        let error = match opened {
            Ok(ledger) => {
                readiness.ledger_trouble(None);
                return Ok(Some(ledger));
            }
            Err(error) => error,
        };
        failures += 1;
        if !error.may_pass() || failures >= supervisor::MOST_FAILURES {
            return Err(error);
        }
        readiness.ledger_trouble(Some(error.to_string()));
        tracing::warn!(%error, failures, "the ledger can't be opened; trying again");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(retry::before_reconnecting(failures)) => {}
        }
    }
}

fn assemble(
    config: &Config,
    ledger: Ledger,
    accounts: Arc<OfficialAccounts>,
    metrics: Arc<Metrics>,
    traces: Traces,
    readiness: Arc<Readiness>,
    shutdown: CancellationToken,
) -> Result<Worker, RunError> {
    let worker::Settings { concurrency, calls_share, .. } = config.worker;
    let calls = calls::Settings { at_once: concurrency, ahead: concurrency / 4, share: calls_share, budget: config.retry.budget_in_all };
    Ok(Worker {
        settings: config.worker,
        retry: config.retry.clone(),
        rules: config.rules.clone(),
        ledger,
        wechat: WeChat::new(config.wechat.clone(), Arc::clone(&metrics), traces.clone())?,
        traces,
        accounts,
        calls: Calls::new(calls, Arc::clone(&metrics)),
        metrics,
        readiness,
        lanes: Lanes::new(),
        tasks: TaskTracker::new(),
        draining: shutdown,
        aborted: CancellationToken::new(),
    })
}

/// What a changed configuration changes in a worker that runs.
struct Changing {
    accounts: Arc<OfficialAccounts>,
    ledger: Ledger,
    place: ledger::Place,
    broker: watch::Sender<broker::Settings>,
}

impl Changing {
    /// Takes up configurations as they come.
    async fn follow(self, mut changes: mpsc::Receiver<Config>) {
        while let Some(config) = changes.recv().await {
            if !self.broker.send_if_modified(|settings| settings.url.take_up(&config.broker.url)) {
                tracing::warn!("`amqp.url` says more than another user or password: it is not taken up before a restart");
            }
            if !self.place.take_up(&config.ledger.place) {
                tracing::warn!("`ledger.url` says more than another user or password: it is not taken up before a restart");
            }
            let accounts::Replaced { added, changed, removed, forgotten } = self.accounts.replace(&config.accounts);
            for (wechat_id, scope) in forgotten {
                if let Err(error) = self.ledger.forget_pause(wechat_id, scope).await {
                    tracing::warn!(%error, "a pause that is over will be taken up again after a restart");
                }
            }
            let in_all = config.accounts.official_accounts.len();
            tracing::info!(
                added,
                changed,
                removed,
                in_all,
                "the Official Accounts were read again, and the passwords for broker and database; anything else needs a restart"
            );
        }
    }
}

/// Forgets outcomes past their retention, a few at a time, so that nobody waits for it.
async fn prune(ledger: Ledger, interval: Duration) {
    loop {
        match ledger.prune_all(|_| {}).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "outcomes past their retention were forgotten"),
            Err(error) => tracing::warn!(%error, "outcomes past their retention could not be forgotten"),
        }
        tokio::time::sleep(interval).await;
    }
}

/// So that nothing is kept much longer than it has to be: a tenth of its retention, or an hour.
fn between_prunings(retention: Duration) -> Duration {
    (retention / 10).clamp(Duration::from_secs(1), PRUNING)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn what_is_past_its_retention_is_looked_for_within_a_tenth_of_it_and_within_an_hour() {
        let between = |seconds| between_prunings(Duration::from_secs(seconds)).as_secs();
        assert_eq!([2, 180, 36_000, 7_776_000].map(between), [1, 18, 3_600, 3_600]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_never_reached_is_given_up_in_the_end() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        // Port 1 refuses at once; the waits between pass in no time.
        let environment = [
            ("KF_AMQP__URL", "amqp://guest:guest@127.0.0.1:1/%2f".to_owned()),
            ("KF_LEDGER__URL", format!("sqlite:{}", folder.path().join("ledger.db").display())),
            ("KF_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("KF_OFFICIAL_ACCOUNT__0__WECHAT_ID", "test".to_owned()),
            ("KF_OFFICIAL_ACCOUNT__0__APP_ID", "wx1".to_owned()),
            ("KF_OFFICIAL_ACCOUNT__0__APP_SECRET", "secret".to_owned()),
        ];
        let config = config::load(None, environment.map(|(name, value)| (name.into(), value.into()))).unwrap();
        let begun = Instant::now();
        let (_never, changes) = mpsc::channel(1);
        let ended = run(config, changes, CancellationToken::new()).await;
        assert!(matches!(ended, Err(RunError::GaveUp(supervisor::GaveUp::Unreachable(_)))), "{ended:?}");
        assert!(begun.elapsed() > Duration::from_secs(60), "it is patient first: {:?}", begun.elapsed());
    }
}
