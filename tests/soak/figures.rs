//! The figures of a run as a file, and in a few lines.

use std::path::Path;

use crate::flatness::median;
use crate::sample::Sample;

pub fn write(samples: &[Sample], path: &Path) {
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder can be made");
    let mut file = csv::Writer::from_path(path).expect("the file can be written");
    for sample in samples {
        file.serialize(sample).expect("the file can be written");
    }
    file.flush().expect("the file can be written");
    println!("soak: figures in {}", path.display());
}

pub fn read(path: &Path) -> Vec<Sample> {
    let mut file = csv::Reader::from_path(path).expect("the file can be read");
    file.deserialize().collect::<Result<_, _>>().expect("it holds the figures of a run")
}

/// What a sample says of one thing, where it could be asked.
type Column = fn(&Sample) -> Option<f64>;

/// Tells what was usual and what was the most.
pub fn summarise(samples: &[Sample]) {
    let columns: [(&str, Column); 7] = [
        ("outcomes a second", |sample| Some(sample.outcomes_per_second)),
        ("resident MiB", |sample| Some(sample.resident_mib)),
        ("ledger MiB", |sample| Some(sample.ledger_mib)),
        ("file descriptors", |sample| Some(sample.file_descriptors.into())),
        ("threads", |sample| Some(sample.threads.into())),
        ("p50 in seconds", |sample| sample.p50_seconds),
        ("p99 in seconds", |sample| sample.p99_seconds),
    ];
    for (name, of) in columns {
        let values: Vec<f64> = samples.iter().filter_map(of).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        println!("soak: {name}: median {:.3}, most {most:.3}", median(values.into_iter()).unwrap_or_default());
    }
}
