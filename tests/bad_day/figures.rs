//! Throughput and latency of some commands.

use std::time::Duration;

use crate::traffic::Sent;

/// The latency of what was never answered.
pub const NEVER: Duration = Duration::MAX;

/// How commands fared on the whole.
pub struct Pace {
    commands: usize,
    answered: usize,
    /// Those with an event, over the time from the first one's publishing to the last one's event, or its publishing where
    /// events had ceased before.
    pub per_second: f64,
    /// From publishing to the event; half of the commands took no longer.
    pub p50: Duration,
    pub p99: Duration,
    max: Duration,
}

impl Pace {
    pub fn of<'a>(sent: impl IntoIterator<Item = &'a Sent>) -> Self {
        let sent: Vec<&Sent> = sent.into_iter().collect();
        let mut latencies: Vec<Duration> = sent.iter().map(|sent| sent.latency().unwrap_or(NEVER)).collect();
        latencies.sort_unstable();
        let share = |share: f64| {
            let rank = (latencies.len() as f64 * share).ceil() as usize;
            latencies.get(rank.saturating_sub(1)).copied().unwrap_or(NEVER)
        };
        let first = sent.iter().map(|sent| sent.published).min();
        let last = sent.iter().map(|sent| sent.answered.unwrap_or(sent.published)).max();
        let time = first.zip(last).map(|(first, last)| last.duration_since(first).as_secs_f64());
        let answered = sent.iter().filter(|sent| sent.answered.is_some()).count();
        Self {
            commands: sent.len(),
            answered,
            per_second: time.map_or(0.0, |time| answered as f64 / time),
            p50: share(0.5),
            p99: share(0.99),
            max: share(1.0),
        }
    }

    /// The cells of a table's row.
    pub fn cells(&self) -> Vec<String> {
        let Self { commands, answered, per_second, p50, p99, max } = self;
        vec![format!("{answered} of {commands}"), format!("{per_second:.1}"), show(*p50), show(*p99), show(*max)]
    }
}

/// The heads of those cells.
pub const PACE: [&str; 5] = ["answered", "a second", "p50", "p99", "max"];

/// A latency for people.
pub fn show(latency: Duration) -> String {
    match latency {
        NEVER => "never".to_owned(),
        long if long >= Duration::from_secs(1) => format!("{:.2} s", long.as_secs_f64()),
        short => format!("{:.1} ms", short.as_secs_f64() * 1_000.0),
    }
}
