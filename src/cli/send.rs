//! `kf-worker send`: publishes commands as a producer does, one or a whole file, and shows what becomes of them.

pub(crate) mod batch;
mod delivery;
pub(crate) mod failed;
pub(crate) mod order;
pub(crate) mod progress;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Configuration, Exit};
use crate::broker::Settings;
use crate::outcome::Action;
use batch::Format;
use delivery::Delivery;
use order::{Fields, Order};
use progress::Progress;
use report::{Report, Summary};

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker send add anna@test 安娜 --id hire-4711 --wait
  kf-worker send delete anna@test --id leave-4711 --wait --timeout 2m
  kf-worker send --file hires.csv --dry-run
  kf-worker send --file hires.csv --wait --failed not-hired.csv

Exit codes: 0 all is sent (with --wait: has succeeded); 1 something did not succeed, has no result yet, or was there before (see
--resume); 2 a rule is broken; 69 the broker can't be reached; 78 it refuses.";

/// What to send.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Send {
    #[command(subcommand)]
    single: Option<Single>,
    /// A file of commands: CSV with the header action,kf_account,nickname,command_id,revision (the last two may be missing), or
    /// a JSON object a line (.jsonl). It is checked as a whole first; with a fault in it nothing is sent.
    #[arg(long, value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// The first part of the ids of rows that have none; the second is the row. By default the fingerprint of the file, so that
    /// the same file sent again repeats its commands and doubles none.
    #[arg(long, value_name = "NAME", value_parser = batch_name)]
    batch: Option<String>,
    /// Write the commands that did not succeed into this file, with why; mended, it can be sent as it is.
    #[arg(long, value_name = "FILE", requires = "wait")]
    failed: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Subcommand)]
enum Single {
    /// Ask for an account.
    #[command(after_help = "Example:\n  kf-worker send add anna@test 安娜 --id hire-4711 --wait")]
    Add {
        /// The account: <prefix>@<WeChat ID of the Official Account>.
        kf_account: String,
        /// What customers see: 1 to 16 characters.
        nickname: String,
        #[command(flatten)]
        command: Extras,
    },
    /// Ask for an account to be gone.
    #[command(after_help = "Example:\n  kf-worker send delete anna@test --id leave-4711 --wait")]
    Delete {
        /// The account: <prefix>@<WeChat ID of the Official Account>.
        kf_account: String,
        #[command(flatten)]
        command: Extras,
    },
}

/// What a single command may say besides.
#[derive(Args)]
struct Extras {
    /// The command's id. Sent again under the same id it is never carried out twice. One is made up where none is given.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Your own order of this account's commands: one that is not above the latest is superseded.
    #[arg(long, value_name = "NUMBER")]
    revision: Option<i64>,
    /// Data of your own, a JSON object of at most 4 KiB; it comes back in the result.
    #[arg(long, value_name = "JSON", value_parser = json_text)]
    meta: Option<Box<RawValue>>,
    #[command(flatten)]
    how: How,
}

/// How it is sent.
#[derive(Args, Clone, Copy)]
struct How {
    /// Wait for each result and show it; exit code 1 where one did not succeed.
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this, such as 30s or 10m; exit code 1 where a result is missing then.
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Take a result that was there before for a good one: for going on after an interruption.
    #[arg(long, requires = "wait")]
    resume: bool,
    /// Only check the commands; nothing is sent or connected to.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, an object a line.
    #[arg(long)]
    json: bool,
}

/// Where the commands came from.
enum Source {
    CommandLine,
    File { format: Format, failed: Option<PathBuf> },
}

/// Sends what is asked and answers the exit code.
///
/// # Errors
/// Where it can't be sent; that has been told.
pub(super) fn send(configuration: &Configuration, send: Send) -> Result<Exit, Exit> {
    let (orders, how, source) = match send.single {
        Some(single) => {
            let (order, how) = single.order().map_err(|what| usage(&what))?;
            (vec![order], how, Source::CommandLine)
        }
        None => {
            let path = send.file.unwrap_or_default();
            let format = Format::of(&path).ok_or_else(|| usage("The name of the file must end in .csv or .jsonl."))?;
            let orders = batch::read(&path, format, send.batch.as_deref()).map_err(|error| {
                super::tell(error);
                Exit::Failed
            })?;
            (orders, send.how, Source::File { format, failed: send.failed })
        }
    };
    if how.dry_run {
        show_orders(&orders, how.json);
        return Ok(Exit::Done);
    }
    let settings = configuration.broker()?;
    super::in_runtime(carry_out(&orders, &settings, how, &source))
}

impl Single {
    fn order(self) -> Result<(Order, How), String> {
        let (action, kf_account, nickname, command) = match self {
            Self::Add { kf_account, nickname, command } => (Action::Add, kf_account, Some(nickname), command),
            Self::Delete { kf_account, command } => (Action::Delete, kf_account, None, command),
        };
        let command_id = command.id.unwrap_or_else(|| format!("send-{:032x}", rand::random::<u128>()));
        let fields = Fields {
            command_id: Some(&command_id),
            action: action.as_str(),
            kf_account: &kf_account,
            nickname: nickname.as_deref(),
            revision: command.revision,
            meta: command.meta.as_deref(),
        };
        Ok((Order::of(&fields, None, String::new)?, command.how))
    }
}

/// Sends, and tells what became of it.
async fn carry_out(orders: &[Order], settings: &Settings, how: How, source: &Source) -> Exit {
    let report = Report::new(orders.len(), how.wait, how.json);
    let mut delivery = Delivery::new(orders, settings, how.wait);
    let timeout = async {
        match how.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = delivery.carry_out(&report) => ended.map_err(|error| (exit_of(&error), error.to_string())),
        () = timeout => Err((Exit::Failed, "the time is up".to_owned())),
        _ = tokio::signal::ctrl_c() => Err((Exit::Failed, "interrupted".to_owned())),
    };
    report.finish();
    let (done, progress) = (delivery.done(), &delivery.progress);
    let summary = Summary::of(orders, progress);
    let told = tell_end(orders, how, source, progress, &summary);
    match ended {
        Err((exit, why)) => {
            let what = if how.wait { "have a result" } else { "are sent" };
            super::tell(format_args!("{why}; {done} of {} {what}. {}", orders.len(), way_on(orders, source, how)));
            exit
        }
        Ok(()) if !told || !summary.is_all_well(how.wait) => Exit::Failed,
        Ok(()) if summary.repeats > 0 && !how.resume => {
            super::tell(
                "what was there before was not carried out again: use new ids for new commands, or --resume where this went on after an interruption",
            );
            Exit::Failed
        }
        Ok(()) => Exit::Done,
    }
}

/// Shows what there is to show at the end. Answers whether it could.
fn tell_end(orders: &[Order], how: How, source: &Source, progress: &[Progress], summary: &Summary) -> bool {
    let (format, failed) = match source {
        Source::CommandLine => {
            let is_sent = matches!(progress.first(), Some(Progress::Sent));
            if let (false, true, Some(order)) = (how.wait, is_sent, orders.first()) {
                match how.json {
                    true => super::print(as_json(order)),
                    false => super::print(order.command_id()),
                }
            }
            return true;
        }
        Source::File { format, failed } => (*format, failed),
    };
    for line in summary.lines(how.wait) {
        super::note(line);
    }
    let Some(path) = failed else { return true };
    match failed::write(path, format, orders, progress) {
        Ok(count) => {
            super::note(format_args!("{count} commands that did not succeed are in {}", path.display()));
            true
        }
        Err(error) => {
            super::tell(format_args!("{} can't be written: {error}", path.display()));
            false
        }
    }
}

/// What can be done where it was not carried to its end.
fn way_on(orders: &[Order], source: &Source, how: How) -> String {
    match (source, orders) {
        (Source::CommandLine, [order]) if how.wait => {
            format!("Once it is sent it is carried out all the same: `kf-worker result '{}'` shows its result", order.command_id())
        }
        (Source::CommandLine, [order]) => format!("Send it again with --id '{}': it is never carried out twice", order.command_id()),
        _ => "Run the same command again with --wait --resume: what was carried out is recognised and not repeated".to_owned(),
    }
}

fn show_orders(orders: &[Order], json: bool) {
    for order in orders {
        let Order { line, action, kf_account, .. } = order;
        match json {
            true => super::print(as_json(order)),
            false => {
                let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                super::print(format_args!("{line}{action} {kf_account} as {}", order.command_id()));
            }
        }
    }
    let what = if orders.len() == 1 { "the command keeps".to_owned() } else { format!("{} commands keep", orders.len()) };
    super::note(format_args!("{what} the rules; nothing was sent"));
}

fn as_json(order: &Order) -> serde_json::Value {
    json!({"line": order.line, "command_id": order.command_id(), "action": order.action, "kf_account": order.kf_account})
}

fn exit_of(error: &delivery::SendError) -> Exit {
    if error.needs_an_operator() { Exit::Configuration } else { Exit::Unavailable }
}

fn usage(what: &str) -> Exit {
    super::tell(format_args!("{what} `kf-worker send --help` shows how."));
    Exit::Usage
}

/// Ids must stay within 128 characters with a row behind the name.
fn batch_name(text: &str) -> Result<String, String> {
    let fits = (1..=100).contains(&text.len()) && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    fits.then(|| text.to_owned()).ok_or_else(|| "is not 1 to 100 printable ASCII characters".to_owned())
}

fn json_text(text: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text.to_owned()).map_err(|error| format!("is not JSON: {error}"))
}
