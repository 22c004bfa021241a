//! What the program says: data to stdout, everything else to stderr, as text or as log lines in JSON.

use std::fmt;
use std::io::Write as _;
use std::sync::OnceLock;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::json;
use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::Exit;

/// How log lines are written.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// How log lines are written, once that is known.
static LOG_FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Prints a line of data. Where nobody reads any more (`… | head`) the program ends, since its work is for the reader.
pub fn print(line: impl fmt::Display) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(Exit::Failed as i32);
    }
}

/// Tells a person what is wrong; whoever reads JSON reads it as a log line.
pub fn tell(line: impl fmt::Display) {
    say(Level::ERROR, line);
}

/// Tells a person how it stands, likewise.
pub fn note(line: impl fmt::Display) {
    say(Level::INFO, line);
}

/// Where it can't be written, the exit code still says how it ended.
fn say(level: Level, line: impl fmt::Display) {
    let mut stderr = std::io::stderr();
    let _ = match LOG_FORMAT.get() {
        Some(LogFormat::Json) => {
            let (timestamp, message) = (Timestamp::now(), line.to_string());
            let line = json!({"timestamp": timestamp, "level": level.as_str(), "fields": {"message": message}, "target": module_path!()});
            writeln!(stderr, "{line}")
        }
        Some(LogFormat::Text) | None => writeln!(stderr, "kf-worker: {line}"),
    };
}

/// Lets what the parts log be written from now on.
pub fn start_logging(format: LogFormat) {
    // The broker's client takes it for an error when something that is asked for isn't there; what matters we tell ourselves.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,lapin=off"));
    // What libraries say of their work shows whole messages, passwords and nicknames included, whatever RUST_LOG asks for.
    let ours = filter_fn(|metadata| metadata.target().starts_with(env!("CARGO_CRATE_NAME")) || *metadata.level() <= Level::INFO);
    // A log that can't be written must not end a worker: told of it, the library would panic.
    let logs = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(std::io::stderr);
    let logs = match format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    tracing_subscriber::registry().with(logs.with_filter(filter.and(ours))).init();
    // The first to say it is this one.
    let _ = LOG_FORMAT.set(format);
    std::panic::set_hook(Box::new(|panic| tell(panic)));
}
