//! What came of one run, for whoever has started many.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The figures of a run and its verdict.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    pub seconds: f64,
    pub messages: u64,
    pub commands: usize,
    pub worker_kills: u32,
    pub calls_cut_off: u64,
    pub broker_kills: u32,
    pub fault_changes: u32,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

impl Report {
    pub fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).expect("a report is JSON");
        std::fs::write(path, text).expect("the report can be written");
    }

    /// `None` where a run has ended without a verdict.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Adds the figures of another run.
    pub fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.messages += other.messages;
        self.commands += other.commands;
        self.worker_kills += other.worker_kills;
        self.calls_cut_off += other.calls_cut_off;
        self.broker_kills += other.broker_kills;
        self.fault_changes += other.fault_changes;
        self.violations.extend(other.violations);
    }

    /// The figures in a line.
    pub fn figures(&self) -> String {
        let Self { seconds, messages, commands, worker_kills, calls_cut_off, broker_kills, fault_changes, .. } = self;
        format!(
            "{seconds:.0} s, {messages} messages with {commands} commands, {worker_kills} SIGKILLs of the worker (with {calls_cut_off} \
             calls in flight), {broker_kills} of the broker, {fault_changes} changes of faults"
        )
    }
}
