//! The most calls that one Official Account makes in a while, spread evenly and given out in the order of asking.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;

/// So many calls in so long, written `20/s`, `300/m` or `5000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxRate {
    calls: NonZeroU32,
    per: Duration,
}

/// So much of the rate may be used at once, so that fast rates do not hang on how finely the system keeps time.
const BURST: Duration = Duration::from_millis(50);

impl FromStr for MaxRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "is not a rate such as \"20/s\", \"300/m\" or \"5000/h\"";
        let (calls, unit) = text.split_once('/').ok_or(FORM)?;
        let per = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(FORM),
        };
        let calls = calls.trim().parse().map_err(|_| FORM)?;
        Ok(Self { calls, per: Duration::from_secs(per) })
    }
}

/// Lets calls through at a rate.
pub struct Rate {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    /// Whoever is next holds it and waits; the others line up behind. That makes it fair among lanes, each of which
    /// asks for one call at a time.
    line: Mutex<()>,
}

impl Rate {
    pub fn new(most: MaxRate) -> Self {
        let between = (most.per / most.calls.get()).max(Duration::from_nanos(1));
        let burst = u32::try_from(BURST.as_nanos() / between.as_nanos()).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // A period of nothing is refused, and there is none.
        let quota = Quota::with_period(between).unwrap_or(Quota::per_second(most.calls)).allow_burst(burst);
        Self { limiter: RateLimiter::direct(quota), clock: DefaultClock::default(), line: Mutex::new(()) }
    }

    /// Takes a call's turn, where it may go at once, and counts it.
    pub fn try_turn(&self) -> bool {
        self.line.try_lock().is_ok_and(|_next| self.limiter.check().is_ok())
    }

    /// Waits for a call's turn, and counts it.
    pub async fn turn(&self) {
        let _next = self.line.lock().await;
        while let Err(early) = self.limiter.check() {
            tokio::time::sleep(early.wait_time_from(self.clock.now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let rate = |text: &str| text.parse::<MaxRate>().map(|rate| (rate.calls.get(), rate.per.as_secs()));
        assert_eq!(rate("20/s"), Ok((20, 1)));
        assert_eq!(rate("300 / m"), Ok((300, 60)));
        assert_eq!(rate("5000/h"), Ok((5_000, 3_600)));
        for wrong in ["", "20", "0/s", "-1/s", "1.5/s", "20/d", "/s", "s/20"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn calls_are_spread_and_come_in_the_order_of_asking() {
        let rate = Rate::new("100/s".parse().unwrap());
        let began = std::time::Instant::now();
        let order = std::sync::Mutex::new(Vec::new());
        let ask = async |who: usize| {
            rate.turn().await;
            order.lock().unwrap().push(who);
        };
        futures_util::future::join_all((0..20).map(ask)).await;
        assert!(began.elapsed() >= Duration::from_millis(140), "5 at once, then 15 of them 10 ms apart: {:?}", began.elapsed());
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        assert!(!rate.try_turn());
    }
}
