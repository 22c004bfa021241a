//! What the kernel knows of a process: its processor time and the most memory that it ever had.

use std::time::Duration;

/// Linux tells processor time in these, whatever its own clock: 100 a second.
const TICK: Duration = Duration::from_millis(10);

/// The processor time of all its threads so far, the kernel's on its behalf included.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is running");
    // The name may hold anything, and ends with the last bracket; utime and stime are the 14th and 15th of all fields.
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u32>().expect("a number of ticks"));
    TICK * ticks.sum::<u32>()
}

/// The most memory that it has had at once, resident, in MiB.
pub fn peak_memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is running");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    peak.expect("the kernel tells the peak") / 1_024.0
}
