//! Traces go on from the command into the call and the result, spans tell what was done where they are asked for, and nothing secret is ever shown.

mod export;
mod logs;
mod passed_on;
mod secrets;

use crate::support::broker::Message;
use crate::support::collector::Collector;
use crate::support::stage::Stage;
use crate::support::worker::Settings;

/// A producer's context, as it sends it.
const PRODUCER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Its trace, and what it calls the cause.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CAUSE: &str = "00f067aa0ba902b7";

/// A command with a producer's trace.
fn traced(command: &serde_json::Value) -> Message {
    Message::json(command).header("traceparent", PRODUCER)
}

/// The usual settings, and a collector for the spans.
fn exporting(stage: &Stage, collector: &Collector) -> Settings {
    let mut settings = stage.settings();
    settings.set("traces.otlp_url", collector.url());
    settings
}
