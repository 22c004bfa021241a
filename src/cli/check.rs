//! `kf-worker check`: every fault of the configuration, what it amounts to, and with `--connect` whether the worker would find what
//! it needs.

mod accounts;

use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde_json::json;

use super::bar::bar;
use super::outcomes::shown;
use super::{Config, Configuration, Exit};
use crate::config::{Fault, Faults, load};
use crate::metrics::Metrics;
use crate::proof::{Proof, Verdict};
use crate::{admin, broker, ledger};

/// How much is checked, and how it is told.
#[derive(Args)]
pub struct Check {
    /// Connect as well: look at broker, permissions, ledger, each Official Account's token and list, and the admin port. Nothing that
    /// exists is changed, and nobody's token ends.
    #[arg(long)]
    connect: bool,
    /// One JSON object a line for each thing that was looked at.
    #[arg(long)]
    json: bool,
}

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker check                                            # before a deployment: every fault at once
  kf-worker check --connect                                  # on the machine where the worker will run
  kf-worker check --connect --json | jq 'select(.result != \"ok\")'

With --connect each line begins with ok, missing (the worker makes it), unproven, or FAILED with what to do. Exit code 0; 69 where
something can't be reached; 78 where something must be changed.";

/// So many Official Accounts are named, the others counted.
const MOST_NAMES: usize = 20;
/// More Official Accounts than this take a while.
const WORTH_A_BAR: usize = 16;

/// Checks what is asked for. No secret is shown.
pub fn check(configuration: &Configuration, asked: &Check) -> Exit {
    let config = match load(configuration.file(), std::env::vars_os()) {
        Ok(config) => config,
        Err(faults) => {
            tell_faults(&faults, asked.json);
            return Exit::Configuration;
        }
    };
    if asked.json {
        print(&Proof::ok("configuration", "sound"), true);
    } else {
        summarise(&config);
    }
    for exposed in config.secret_files.exposed() {
        super::tell(format_args!("warning: {exposed}"));
    }
    if !asked.connect {
        return Exit::Done;
    }
    match super::in_runtime(connect(config, asked.json)) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn tell_faults(faults: &Faults, as_json: bool) {
    super::tell(faults);
    for Fault { key, origin, what } in faults.0.iter().filter(|_| as_json) {
        let origin = origin.as_ref().map(ToString::to_string);
        super::print(json!({"check": "configuration", "result": "wrong", "key": key, "where": origin, "detail": what}));
    }
}

/// Tells what the worker would run with.
fn summarise(config: &Config) {
    let official_accounts = &config.accounts.official_accounts;
    let mut accounts: Vec<&str> = official_accounts.iter().take(MOST_NAMES).map(|account| account.wechat_id.as_str()).collect();
    let more = format!("and {} more", official_accounts.len().saturating_sub(MOST_NAMES));
    if official_accounts.len() > MOST_NAMES {
        accounts.push(&more);
    }
    super::print(format_args!("The configuration is sound."));
    super::print(format_args!("  broker             {} on {}", config.broker.prefix, config.broker.url));
    super::print(format_args!("  partitions         {}", config.broker.partitions));
    super::print(format_args!("  WeChat             {}", config.wechat.base_urls.join(", ")));
    super::print(format_args!("  Official Accounts  {}", accounts.join(", ")));
    super::print(format_args!("  ledger             {}", config.ledger.place));
    super::print(format_args!("  admin port         {}", config.admin.listen));
    if config.rules.0.is_empty() {
        super::print(format_args!("  publishers         everybody whom RabbitMQ lets publish"));
    } else {
        super::print(format_args!("  publishers         {} rules", config.rules.0.len()));
    }
}

/// Proves one thing after the other, and tells all of them.
async fn connect(config: Config, as_json: bool) -> Exit {
    let mut told = Told { as_json, worst: Exit::Done };
    for proof in broker::prove(&config.broker).await {
        told.tell(&proof);
    }
    let (proof, reader) = ledger::prove(&config.ledger.place).await;
    told.tell(&proof);
    // The parts count what they do; nobody asks for the numbers here.
    let metrics = match Metrics::new() {
        Ok(metrics) => Arc::new(metrics),
        Err(error) => {
            super::tell(error);
            return Exit::Failed;
        }
    };
    let listen = config.admin.listen;
    let count = config.accounts.official_accounts.len();
    let bar = bar("{bar:40} {pos}/{len} Official Accounts  {eta} left", count, count >= WORTH_A_BAR);
    let proven = accounts::prove(config, reader.as_ref(), metrics, |proof| {
        bar.suspend(|| told.tell(&proof));
        bar.inc(1);
    });
    let proven = proven.await;
    bar.finish_and_clear();
    if let Err(error) = proven {
        told.tell(&Proof::wrong("WeChat", error.to_string()));
    }
    told.tell(&admin::prove(listen).await);
    told.worst
}

/// What was told, and the exit code that it makes.
struct Told {
    as_json: bool,
    worst: Exit,
}

impl Told {
    fn tell(&mut self, proof: &Proof) {
        print(proof, self.as_json);
        self.worst = match (self.worst, proof.verdict) {
            (_, Verdict::Wrong) | (Exit::Configuration, _) => Exit::Configuration,
            (_, Verdict::Unreachable) => Exit::Unavailable,
            (worst, Verdict::Ok | Verdict::Missing | Verdict::Unproven) => worst,
        };
    }
}

fn print(proof: &Proof, as_json: bool) {
    let Proof { what, verdict, detail } = proof;
    if as_json {
        return super::print(json!({"check": what, "result": verdict.as_str(), "detail": detail}));
    }
    let (word, colour) = match verdict {
        Verdict::Ok => ("ok", AnsiColor::Green),
        Verdict::Missing => ("missing", AnsiColor::Yellow),
        Verdict::Unproven => ("unproven", AnsiColor::Yellow),
        Verdict::Unreachable | Verdict::Wrong => ("FAILED", AnsiColor::Red),
    };
    let coloured = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    let style = if coloured { colour.on_default() } else { Style::new() };
    super::print(format_args!("{style}{word:8}{style:#}  {}: {}", shown(what), shown(detail)));
}
