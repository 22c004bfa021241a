//! Many runs, one after the other, each in a process of its own with its own seed and its own log.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;

use tokio::process::Command;

use crate::report::Report;

/// Where logs and reports go, beside what Cargo builds.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/chaos");

/// Which seeds: so many new ones (`20`), or these (`1-20`, `1,5,7`).
#[derive(Clone)]
pub struct Seeds(Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| word.trim().parse::<u64>().map_err(|error| format!("`{word}`: {error}"));
        if !text.contains([',', '-']) {
            return Ok(Self((0..number(text)?).map(|_| rand::random::<u32>().into()).collect()));
        }
        let mut seeds = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('-') {
                Some((first, last)) => seeds.extend(number(first)?..=number(last)?),
                None => seeds.push(number(part)?),
            }
        }
        Ok(Self(seeds))
    }
}

/// Runs them all, with a line for each, and says whether every promise held every time.
pub async fn run(seeds: &Seeds, seconds: u32) -> bool {
    std::fs::create_dir_all(FOLDER).expect("the folder can be made");
    let (mut all, mut broken) = (Report::default(), Vec::new());
    for seed in &seeds.0 {
        let again = format!("make chaos SEED={seed} SECONDS={seconds}");
        let report = one(*seed, seconds).await;
        match report.violations.first() {
            None => println!("chaos: seed {seed}: held; {} ({again})", report.figures()),
            Some(first) => {
                println!("chaos: seed {seed}: BROKEN; {}; {} violations, the first: {first}", report.figures(), report.violations.len());
                println!("chaos: again with {again}; its log is {FOLDER}/{seed}.log");
                broken.push(again);
            }
        }
        all.add(report);
    }
    println!("chaos: {} seeds in all: {}, {} violations", seeds.0.len(), all.figures(), all.violations.len());
    for again in &broken {
        println!("chaos: BROKEN: {again}");
    }
    broken.is_empty()
}

/// One run; what ends without a verdict is broken as well.
async fn one(seed: u64, seconds: u32) -> Report {
    let (log, report) = (Path::new(FOLDER).join(format!("{seed}.log")), Path::new(FOLDER).join(format!("{seed}.json")));
    // The verdict of an earlier run with this seed must not be taken for this one's. Mostly there is none.
    let _ = std::fs::remove_file(&report);
    let log = File::create(log).expect("the log can be written");
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--seed", &seed.to_string(), "--seconds", &seconds.to_string(), "--report"]).arg(&report);
    command.stdin(Stdio::null()).stderr(log.try_clone().expect("the log opens twice")).stdout(log);
    let status = command.status().await.expect("the run can be started");
    Report::read(&report)
        .unwrap_or_else(|| Report { violations: vec![format!("it ended without a verdict: {status}")], ..Report::default() })
}
