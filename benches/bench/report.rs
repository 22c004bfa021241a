//! The table of all rows, and the raw figures behind it as JSON.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::table::print;

/// What has to be reached.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Of the ratio.
    AtLeast(f64),
    /// Of the ratio.
    AtMost(f64),
    /// Of the worker's own figure.
    Below(f64),
}

/// One line of the table. Figures are one for each run.
#[derive(Serialize)]
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub worker: Vec<f64>,
    /// Empty where the floor has no such thing.
    pub floor: Vec<f64>,
    /// What the ratio is to: mostly the floor's median.
    pub against: Option<f64>,
    pub target: Target,
    /// What the ratio to the floor was, with room for a disturbed machine: it must not become worse again.
    pub guard: Option<Target>,
}

/// All that was measured.
pub struct Report {
    machine: Machine,
    notes: Vec<String>,
    rows: Vec<Row>,
    /// Every run, as it was measured.
    runs: Vec<Value>,
}

/// The one in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.against.map(|against| median(&self.worker) / against)
    }

    fn is_reached(&self) -> bool {
        self.holds(self.target, self.ratio())
    }

    fn is_guarded(&self) -> bool {
        self.guard.is_none_or(|guard| self.holds(guard, Some(median(&self.worker) / median(&self.floor))))
    }

    fn holds(&self, target: Target, ratio: Option<f64>) -> bool {
        match (target, ratio) {
            (Target::Below(most), _) => median(&self.worker) < most,
            (Target::AtLeast(least), Some(ratio)) => ratio >= least,
            (Target::AtMost(most), Some(ratio)) => ratio <= most,
            (_, None) => panic!("{} has nothing to be compared with", self.what),
        }
    }

    fn cells(&self) -> Vec<String> {
        let nothing = || "-".to_owned();
        let target = match self.target {
            Target::AtLeast(least) => format!("ratio ≥ {least:.2}"),
            Target::AtMost(most) => format!("ratio ≤ {most:.2}"),
            Target::Below(most) => format!("below {most:.0}"),
        };
        vec![
            self.what.clone(),
            self.unit.to_owned(),
            figure(median(&self.worker)),
            if self.floor.is_empty() { nothing() } else { figure(median(&self.floor)) },
            self.ratio().map_or_else(nothing, |ratio| format!("{ratio:.2}")),
            target,
            if self.is_reached() { "reached" } else { "NOT REACHED" }.to_owned(),
        ]
    }
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self { machine, notes: Vec::new(), rows: Vec::new(), runs: Vec::new() }
    }

    /// Something that whoever reads the table should know.
    pub fn note(&mut self, note: String) {
        println!("bench: {note}");
        self.notes.push(note);
    }

    /// One run of one contender.
    pub fn run(&mut self, part: &str, contender: &str, measured: &(impl Serialize + Display)) {
        println!("bench: {part}, {contender}: {measured}");
        self.runs.push(json!({"part": part, "contender": contender, "measured": measured}));
    }

    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints the table and keeps the figures.
    pub fn show(&self, took: Duration) {
        let heads = ["", "unit", "worker", "floor", "ratio", "target", ""];
        let rows: Vec<Vec<String>> = self.rows.iter().map(Row::cells).collect();
        print(&self.machine.sentence(), &heads, &rows);
        let reached = self.rows.iter().filter(|row| row.is_reached()).count();
        println!("\nbench: {reached} of {} targets reached, in {:.0} s", self.rows.len(), took.as_secs_f64());
        let file = self.keep(took);
        println!("bench: every single figure is in {file}");
    }

    /// Names the rows that are worse than they once were; whether there is none.
    pub fn is_guarded(&self) -> bool {
        let worse: Vec<&Row> = self.rows.iter().filter(|row| !row.is_guarded()).collect();
        for Row { what, guard, .. } in &worse {
            println!("bench: worse than it was: {what}; to the floor it was {guard:?}");
        }
        worse.is_empty()
    }

    fn keep(&self, took: Duration) -> String {
        let now = Timestamp::now();
        let rows = self.rows.iter().map(|row| json!({"row": row, "ratio": row.ratio(), "reached": row.is_reached()}));
        let all = json!({
            "at": now,
            "took_seconds": took.as_secs(),
            "machine": self.machine,
            "notes": self.notes,
            "rows": rows.collect::<Vec<_>>(),
            "runs": self.runs,
        });
        let folder = Path::new(env!("CARGO_BIN_EXE_kf-worker")).ancestors().nth(2).expect("cargo's own folder").join("bench");
        std::fs::create_dir_all(&folder).expect("a folder for the figures");
        let file = folder.join(format!("{}.json", now.strftime("%Y%m%dT%H%M%SZ")));
        let text = serde_json::to_string_pretty(&all).expect("figures are JSON");
        std::fs::write(&file, text).expect("the figures can be kept");
        file.display().to_string()
    }
}
