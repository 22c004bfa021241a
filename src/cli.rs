//! The command line: which subcommand, with which configuration, and which exit code it ends with.

mod bar;
mod check;
mod completions;
mod config;
mod dead;
#[cfg(test)]
mod documents;
mod drift;
mod exit;
mod healthcheck;
mod ledger;
mod manual;
mod outcomes;
mod output;
mod partitions;
mod result;
mod results;
mod run;
mod schema;
pub(crate) mod send;
mod watch;
mod when;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use rustix::process::DumpableBehavior;

use crate::broker;
use crate::config::{Config, Faults, load, load_broker, load_ledger};
use crate::ledger::Place;
use exit::Exit;
use output::{LogFormat, note, print, start_logging, tell};

/// Adds and deletes WeChat customer-service accounts on command from RabbitMQ, each command exactly one outcome.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// The configuration file (TOML). Every key can also come from the environment: KF_AMQP__URL and so on.
    #[arg(long, global = true, env = "KF_CONFIG", value_name = "FILE", help_heading = "Options of every subcommand")]
    config: Option<PathBuf>,
    /// How log lines are written to stderr; RUST_LOG chooses which.
    #[arg(long, global = true, env = "KF_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, help_heading = "Options of every subcommand")]
    log_format: LogFormat,
    #[command(subcommand)]
    subcommand: Command,
}

/// What stands below the help of the program.
const EXAMPLES: &str = "Examples:
  kf-worker check --config kf-worker.toml
  kf-worker run --config kf-worker.toml
  kf-worker send add anna@test 安娜 --id hire-4711 --wait

Exit codes: 0 done, 1 failed, 2 usage, 69 a needed service can't be reached, 78 configuration.";

#[derive(Subcommand)]
enum Command {
    /// Take commands and carry them out, until SIGTERM or SIGINT.
    #[command(after_help = run::EXAMPLES)]
    Run,
    /// Read the configuration and tell every fault in it; with --connect, prove that all that the worker needs is there.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
    /// Show what the configuration amounts to, or an example of it.
    Config {
        #[command(subcommand)]
        what: config::ConfigCommand,
    },
    /// Look at the dead letters, replay or drop them.
    Dead {
        #[command(subcommand)]
        what: dead::Dead,
    },
    /// Print what a shell needs to complete this program's words.
    #[command(after_help = completions::EXAMPLES)]
    Completions {
        /// The shell that is to read it.
        shell: Shell,
    },
    /// Compare WeChat's accounts with what the commands asked for. Nothing is changed; exit code 1 where they differ.
    #[command(after_help = drift::EXAMPLES)]
    Drift {
        /// Only these Official Accounts, by WeChat ID; all that are configured where none is given.
        #[arg(value_name = "WECHAT_ID")]
        wechat_ids: Vec<String>,
        /// Print what was found as JSON, a line for each Official Account.
        #[arg(long)]
        json: bool,
    },
    /// Ask the worker that runs here whether it can do its work, and print why not; exit code 1 where it can't.
    #[command(after_help = healthcheck::EXAMPLES)]
    Healthcheck {
        /// Ask only whether it is alive: whether nothing but a restart would help.
        #[arg(long)]
        live: bool,
    },
    /// Look after the ledger: move it into a database, forget old outcomes.
    Ledger {
        #[command(subcommand)]
        what: ledger::LedgerCommand,
    },
    /// Print the manual page, or write all of them into a folder.
    #[command(after_help = manual::EXAMPLES)]
    Man {
        /// Where to write a page for the program and for each subcommand.
        folder: Option<PathBuf>,
    },
    /// Show the queues that commands are spread over, and change their number.
    Partitions {
        #[command(subcommand)]
        what: partitions::What,
    },
    /// Send commands to the workers: one, or a file of them.
    #[command(after_help = send::EXAMPLES)]
    Send(send::Send),
    /// Show the outcome of a command from the ledger.
    #[command(after_help = result::EXAMPLES)]
    Result {
        /// The command's id.
        command_id: String,
        /// Print the result event's data as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the outcomes that the ledger keeps, the oldest first: the audit trail, read beside running workers.
    #[command(after_help = results::EXAMPLES)]
    Results(results::Results),
    /// Show the results as they come, until Ctrl-C.
    #[command(after_help = watch::EXAMPLES)]
    Watch {
        #[command(flatten)]
        filter: outcomes::Filter,
        /// One line of JSON for each: the data of its result event.
        #[arg(long)]
        json: bool,
    },
    /// Print what commands and results look like, as JSON for validators and generators of code. Needs no configuration.
    #[command(after_help = "Example:\n  kf-worker schema command > command.json")]
    Schema {
        /// Which document.
        #[arg(value_enum, default_value_t = schema::Name::Asyncapi)]
        document: schema::Name,
    },
}

/// Runs what needs the network to its end.
///
/// # Errors
/// Where no threads can be started; that is told here.
fn in_runtime<T>(work: impl Future<Output = T>) -> Result<T, Exit> {
    // One provider of cryptography for everything that speaks TLS. A second installation would be a mistake of ours,
    // and the first one would stand.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        tell(format_args!("threads can't be had: {error}"));
        Exit::Failed
    })?;
    let result = runtime.block_on(work);
    // A thread that still does blocking work must not keep a process alive that has ended.
    runtime.shutdown_background();
    Ok(result)
}

/// Parses the arguments, does what they say, and answers the exit code. Data goes to stdout, everything else to stderr.
pub fn main() -> ExitCode {
    keep_memory_private();
    let arguments = Arguments::parse();
    start_logging(arguments.log_format);
    let (Ok(exit) | Err(exit)) = carry_out(arguments.subcommand, Configuration(arguments.config));
    exit.into()
}

/// Hands over to the subcommand, with as much of the configuration as it needs.
///
/// # Errors
/// Where the configuration has faults; they are told here.
fn carry_out(subcommand: Command, configuration: Configuration) -> Result<Exit, Exit> {
    Ok(match subcommand {
        Command::Run => run::run(configuration.whole()?, configuration.0),
        Command::Check(asked) => check::check(&configuration, &asked),
        Command::Completions { shell } => completions::completions(shell, Arguments::command()),
        Command::Man { folder } => manual::manual(Arguments::command(), folder.as_deref()),
        Command::Config { what } => config::config(&configuration, &what),
        Command::Drift { wechat_ids, json } => drift::drift(configuration.whole()?, &wechat_ids, json),
        Command::Ledger { what } => ledger::ledger(&configuration, what)?,
        Command::Healthcheck { live } => healthcheck::healthcheck(configuration.file(), live),
        Command::Dead { what } => dead::dead(&configuration.broker()?, what),
        Command::Partitions { what } => partitions::partitions(&configuration.whole()?, what),
        Command::Send(what) => send::send(&configuration, what)?,
        Command::Result { command_id, json } => result::show(&configuration.ledger()?, &command_id, json),
        Command::Results(asked) => results::results(&configuration, &asked)?,
        Command::Watch { filter, json } => watch::watch(&configuration.broker()?, &filter, json),
        Command::Schema { document } => schema::schema(document),
    })
}

/// The configuration, of which each subcommand reads as much as it needs: who only talks to the broker is not held up by an
/// Official Account that lacks its secret.
struct Configuration(Option<PathBuf>);

impl Configuration {
    fn file(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    fn whole(&self) -> Result<Config, Exit> {
        told(load(self.file(), std::env::vars_os()))
    }

    fn broker(&self) -> Result<broker::Settings, Exit> {
        told(load_broker(self.file(), std::env::vars_os()))
    }

    fn ledger(&self) -> Result<Place, Exit> {
        told(load_ledger(self.file(), std::env::vars_os()))
    }
}

/// What was read; its faults are told where it has any.
fn told<T>(read: Result<T, Faults>) -> Result<T, Exit> {
    read.map_err(|faults| {
        tell(faults);
        Exit::Configuration
    })
}

/// Keeps what is in memory, secrets among it, out of core dumps and out of reach of other programs of the same user. Where
/// the kernel refuses, everything works as well.
fn keep_memory_private() {
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
