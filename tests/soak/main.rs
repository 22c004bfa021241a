//! An hour of mixed traffic with faults at WeChat, cut connections and a broker that dies, and a worker that lives through it all: it must keep every promise and must not grow.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

#[path = "../chaos/drain.rs"]
mod drain;
mod exposition;
mod figures;
mod flatness;
#[path = "../chaos/form.rs"]
mod form;
mod history;
#[path = "../chaos/hurry.rs"]
mod hurry;
#[path = "../chaos/ledger.rs"]
mod ledger;
#[path = "../chaos/node.rs"]
mod node;
mod picture;
#[path = "../chaos/plan.rs"]
mod plan;
#[path = "../chaos/publication.rs"]
mod publication;
mod sample;
#[path = "../bad_day/simulator.rs"]
#[allow(dead_code, reason = "shared with the bad day, which uses all of it")]
mod simulator;
mod stage;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;
#[path = "../chaos/traffic.rs"]
mod traffic;
#[path = "../chaos/verdict.rs"]
mod verdict;
#[path = "../chaos/wechat.rs"]
#[allow(dead_code, reason = "shared with the chaos run, which uses all of it")]
mod wechat;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use sample::Sample;
use stage::{RETENTION_SHARE, Stage};

/// How the run calls itself.
const NAME: &str = "soak";
/// Where the figures and the picture go, beside what Cargo builds.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/soak");

/// A long run of one worker that must not grow.
#[derive(Parser)]
struct Arguments {
    /// What all chance is drawn from (the moments of what happens vary)
    #[arg(long, default_value_t = rand::random::<u32>().into())]
    seed: u64,
    /// How long commands are published
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Where the picture goes
    #[arg(long, default_value = "target/soak/soak.svg")]
    picture: PathBuf,
    /// Only judges the figures of an earlier run again, and draws its picture
    #[arg(long, value_name = "FIGURES")]
    again: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.again {
        let grown = judge(&figures::read(path), &arguments.picture);
        grown.iter().for_each(|grown| println!("soak: BROKEN: {grown}"));
        return if grown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("soak: seed {} for {} min (make soak SEED={0} MINUTES={1})", arguments.seed, arguments.minutes);
    let folder = tempfile::Builder::new().prefix("kf-soak-").tempdir().expect("a temporary folder").keep();
    let violations = run(&arguments, &folder).await;
    if violations.is_empty() {
        // Nobody needs it now; where it can't be removed it is only litter.
        let _ = std::fs::remove_dir_all(&folder);
        println!("soak: all promises held, and nothing grew");
        return ExitCode::SUCCESS;
    }
    for violation in &violations {
        println!("soak: BROKEN: {violation}");
    }
    println!("soak: {} violations with seed {}; logs and ledger are in {}", violations.len(), arguments.seed, folder.display());
    ExitCode::FAILURE
}

/// The whole run; gives every promise that was broken, and what has grown.
async fn run(arguments: &Arguments, folder: &Path) -> Vec<String> {
    let length = Duration::from_secs(u64::from(arguments.minutes) * 60);
    let mut stage = Stage::set(folder, length).await;
    let (samples, drained) = stage.play(arguments.seed, length).await;
    figures::write(&samples, &Path::new(FOLDER).join("samples.csv"));
    let grown = judge(&samples, &arguments.picture);
    let mut violations: Vec<String> = drained.err().into_iter().collect();
    if length >= stage.retention * RETENTION_SHARE / 3 {
        violations.extend(grown);
    } else {
        println!("soak: too short to tell whether anything grows: outcomes are kept for {:?}", stage.retention);
    }
    violations.extend(stage.end().await);
    violations
}

/// Tells the figures, draws their picture, and gives what has grown.
fn judge(samples: &[Sample], picture: &Path) -> Vec<String> {
    picture::draw(samples, picture);
    figures::summarise(samples);
    flatness::judge(samples)
}

/// Rests, unless it is time to stop; then it says `false`.
async fn rest(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = sleep(time) => !stop.is_cancelled(),
        () = stop.cancelled() => false,
    }
}
