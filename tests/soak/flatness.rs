//! Whether the worker has grown: its last third held against the third before it.

use crate::sample::Sample;

/// One thing that must not grow.
struct Size {
    name: &'static str,
    of: fn(&Sample) -> Option<f64>,
    /// By how much its median may be larger in the last third than in the second.
    allowed: fn(f64) -> f64,
}

const SIZES: [Size; 6] = [
    Size { name: "resident memory (MiB)", of: |sample| Some(sample.resident_mib), allowed: a_tenth },
    Size { name: "ledger (MiB)", of: |sample| Some(sample.ledger_mib), allowed: a_tenth },
    Size { name: "file descriptors", of: |sample| Some(sample.file_descriptors.into()), allowed: |_| 2.0 },
    Size { name: "threads", of: |sample| Some(sample.threads.into()), allowed: |_| 1.0 },
    // What happens at WeChat and on the machine moves these too.
    Size { name: "latency, p50 (ms)", of: |sample| sample.p50_seconds.map(in_ms), allowed: a_half },
    Size { name: "latency, p99 (ms)", of: |sample| sample.p99_seconds.map(in_ms), allowed: a_half },
];

fn a_tenth(of: f64) -> f64 {
    of / 10.0
}

fn a_half(of: f64) -> f64 {
    of / 2.0
}

fn in_ms(seconds: f64) -> f64 {
    seconds * 1_000.0
}

/// Tells the figures, and gives what has grown.
pub fn judge(samples: &[Sample]) -> Vec<String> {
    let third = samples.len() / 3;
    let (second, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let mut grown = Vec::new();
    for Size { name, of, allowed } in &SIZES {
        let (Some(before), Some(after)) = (median(second.iter().filter_map(of)), median(last.iter().filter_map(of))) else {
            grown.push(format!("there are too few samples to judge {name}"));
            continue;
        };
        println!("soak: {name}: {before:.1} in the second third, {after:.1} in the last");
        if after > before + allowed(before) {
            grown.push(format!("{name} has grown from {before:.1} to {after:.1}"));
        }
    }
    grown
}

/// The one in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
