//! Decides after a failed attempt whether the command is tried again, and when. Pure; the only user of the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;
use jiff::{Timestamp, tz};

use crate::outcome::{Action, AttemptFailure, Class, Failure, Reason, Scope};

/// How patient the worker is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest first wait; each further one is twice as long at most.
    pub initial: Duration,
    /// The longest wait between attempts.
    pub max_interval: Duration,
    /// How long a delivery is held at most, lane and waits together; what must wait longer is put off through a queue.
    pub max_in_process: Duration,
    /// The delays of the deferred queues, ascending, each with its spelling in the configuration.
    pub defer: Vec<DeferDelay>,
    /// After this long a command is given up.
    pub max_age: Duration,
    /// How long an add waits for room among the 100 accounts.
    pub capacity_wait: Duration,
    /// Between probes of a paused Official Account.
    pub probe_interval: Duration,
    /// Retries that one Official Account may make beyond its successes before it is only probed.
    pub budget: u32,
    /// The same for all Official Accounts together.
    pub budget_in_all: u32,
}

/// The delay of one deferred queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferDelay {
    pub delay: Duration,
    /// As configured (`10m`): the queue's name ends in it.
    pub name: String,
}

/// What is known of a command when an attempt has failed.
#[derive(Debug, Clone, Copy)]
pub struct Attempted {
    /// What was called; nothing where there was no token to call with.
    pub called: Option<Action>,
    /// Calls begun so far, this one included.
    pub attempts: u32,
    /// Failures in a row in this process, those to fetch a token included: the backoff grows with them.
    pub tries: u32,
    /// Time since the command, or its replay, was first received.
    pub age: Duration,
    /// Time since it first met the trouble that it meets now.
    pub same_trouble_for: Duration,
    /// The token was refused before, in the attempt just before this one.
    pub token_refused_before: bool,
    /// It was the one call that probes whether a pause is over.
    pub probing: bool,
    pub now: Timestamp,
}

/// What becomes of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Once more, now: with another token.
    AtOnce,
    /// Once more after a wait.
    After(Duration),
    /// Once more after a wait, and nothing else of this scope is tried before.
    Pause(Scope, Duration),
    /// Never again.
    GiveUp(Failure),
}

/// An undocumented errcode is tried this often.
const UNKNOWN_ATTEMPTS: u32 = 5;
/// WeChat's day begins at 00:00 in this offset from UTC, in hours (unconfirmed).
pub const WECHAT_DAY: i8 = 8;
/// After midnight the quota's return is awaited for up to this long more, so that not everybody comes at once.
const DAY_JITTER: Duration = Duration::from_secs(300);
/// The same after the full minute.
const MINUTE_JITTER: Duration = Duration::from_secs(3);
/// Between probes of a daily quota that did not return when it was expected.
const DAY_PROBE: Duration = Duration::from_secs(3_600);

/// The longest wait between calls while everything fails, the first time and any time.
const FIRST_SPACING: Duration = Duration::from_millis(100);
const LONGEST_SPACING: Duration = Duration::from_secs(1);
/// The longest wait before the broker is tried again the first time, and any time.
const FIRST_RECONNECT: Duration = Duration::from_millis(500);
const LONGEST_RECONNECT: Duration = Duration::from_secs(10);

/// What limits retries: each failure that asks for one takes a token, each answer brings one back. Empty, it lets
/// nothing through but probes, so that an outage is met with less traffic than before and not with more.
#[derive(Debug)]
pub struct Budget {
    most: u32,
    left: u32,
}

impl Budget {
    /// A full budget.
    pub fn new(most: u32) -> Self {
        Self { most, left: most }
    }

    /// A failure takes a token. Answers whether none is left.
    pub fn spend(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.is_empty()
    }

    /// An answer brings a token back; the first one after all were gone brings a quarter of them.
    pub fn earn(&mut self) {
        let earned = if self.is_empty() { (self.most / 4).max(1) } else { 1 };
        self.left = self.left.saturating_add(earned).min(self.most);
    }

    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

/// Decides what becomes of a command whose attempt has failed.
pub fn decide(settings: &Settings, attempted: Attempted, failed: &AttemptFailure) -> Decision {
    let give_up = |reason: Reason| Decision::GiveUp(Failure { reason, ..failed.failure.clone() });
    let wait = match failed.class {
        Class::Permanent | Class::Bug => return Decision::GiveUp(failed.failure.clone()),
        Class::Unknown if attempted.attempts >= UNKNOWN_ATTEMPTS => return give_up(Reason::UnknownErrcode),
        Class::Capacity if attempted.same_trouble_for >= settings.capacity_wait => return give_up(Reason::AccountLimitReached),
        _ if attempted.age >= settings.max_age => return too_old(settings, failed),
        Class::Token if !attempted.token_refused_before => return Decision::AtOnce,
        Class::Retry | Class::Unknown => {
            Decision::After(full_jitter(settings.initial, settings.max_interval, attempted.attempts.max(attempted.tries)))
        }
        Class::Capacity => Decision::Pause(Scope::Room, settings.probe_interval),
        Class::Minute => Decision::Pause(quota_of(attempted), until_next_minute(attempted.now) + jitter(MINUTE_JITTER)),
        Class::Day => Decision::Pause(quota_of(attempted), until_quota_returns(attempted)),
        Class::Token => Decision::Pause(Scope::OfficialAccount, settings.probe_interval),
        Class::TokenUnchanged { wait } => Decision::Pause(Scope::OfficialAccount, wait),
        Class::Account { probe } => Decision::Pause(Scope::OfficialAccount, settings.probe_interval.max(probe)),
    };
    // The last attempt comes no later than the command's end.
    let left = settings.max_age.saturating_sub(attempted.age);
    match wait {
        Decision::After(delay) => Decision::After(delay.min(left)),
        other => other,
    }
}

/// The end of a command that waited for too long.
fn too_old(settings: &Settings, failed: &AttemptFailure) -> Decision {
    Decision::GiveUp(exhausted(settings, Some(failed.failure.clone())))
}

/// Quotas are counted by call; without a token, nothing can be called.
fn quota_of(attempted: Attempted) -> Scope {
    attempted.called.map_or(Scope::OfficialAccount, Scope::of)
}

/// When a daily quota returns is not confirmed: where it has not at midnight in China, one call an hour asks for it.
fn until_quota_returns(attempted: Attempted) -> Duration {
    let midnight = until_wechats_midnight(attempted.now) + jitter(DAY_JITTER);
    if attempted.probing { midnight.min(DAY_PROBE) } else { midnight }
}

/// What is told of a command that waited longer than `max_age`, with the trouble that it met last.
pub fn exhausted(settings: &Settings, last: Option<Failure>) -> Failure {
    let age = humantime::format_duration(settings.max_age);
    let (answer, trouble) = match last {
        Some(last) => (last.answer, format!(" The last trouble was `{}`: {}", last.reason, last.detail)),
        None => (None, String::new()),
    };
    let detail = format!("It could not be done within `retry.max_age` ({age}). Replay it once the cause is mended.{trouble}");
    Failure { reason: Reason::RetriesExhausted, answer, detail }
}

/// The deferred queue for a wait: the longest that does not overshoot it, else the shortest there is.
pub fn defer_for(settings: &Settings, wait: Duration) -> Option<&DeferDelay> {
    settings.defer.iter().rev().find(|defer| defer.delay <= wait).or_else(|| settings.defer.first())
}

/// How long a paused command is put off: until its pause is over, or for a quarter of the time that the pause has
/// lasted already, whichever is longer. So a backlog comes round ever more rarely, and what is mended after an hour is
/// noticed by all within a quarter of one.
pub fn while_paused(left: Duration, paused_for: Duration) -> Duration {
    left.max(paused_for / 4)
}

/// The wait before an Official Account whose calls have failed so often in a row is probed again.
pub fn before_probing(settings: &Settings, failures: u32) -> Duration {
    full_jitter(settings.initial, settings.max_interval, failures)
}

/// The wait between calls while everything fails, after so many failures in a row.
pub fn while_everything_fails(failures: u32) -> Duration {
    full_jitter(FIRST_SPACING, LONGEST_SPACING, failures)
}

/// The wait before the broker is tried again after so many failures in a row.
pub fn before_reconnecting(failures: u32) -> Duration {
    full_jitter(FIRST_RECONNECT, LONGEST_RECONNECT, failures)
}

/// A wait drawn evenly from nothing up to an interval that doubles with each attempt.
fn full_jitter(initial: Duration, most: Duration, attempts: u32) -> Duration {
    // The crate spreads an interval evenly over (1 ± factor): half the interval with factor 1 is the whole, from 0.
    let mut backoff = ExponentialBackoffBuilder::new()
        .with_initial_interval(initial / 2)
        .with_max_interval(most / 2)
        .with_multiplier(2.0)
        .with_randomization_factor(1.0)
        .with_max_elapsed_time(None)
        .build();
    // The crate counts by being asked; past 32 doublings every interval is at its maximum.
    for _ in 1..attempts.min(32) {
        backoff.next_backoff();
    }
    backoff.next_backoff().unwrap_or(most)
}

/// A wait of up to `most`.
pub fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::random())
}

fn until_next_minute(now: Timestamp) -> Duration {
    let into_minute = now.as_millisecond().rem_euclid(60_000);
    Duration::from_millis(60_000 - into_minute.unsigned_abs())
}

fn until_wechats_midnight(now: Timestamp) -> Duration {
    let shifted = now.as_millisecond() + i64::from(tz::offset(WECHAT_DAY).seconds()) * 1_000;
    let into_day = shifted.rem_euclid(86_400_000);
    Duration::from_millis(86_400_000 - into_day.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        let defer = [("1m", 60), ("10m", 600), ("1h", 3_600)];
        Settings {
            initial: SECOND / 2,
            max_interval: 30 * SECOND,
            max_in_process: 120 * SECOND,
            defer: defer.map(|(name, seconds)| DeferDelay { delay: seconds * SECOND, name: name.to_owned() }).into(),
            max_age: 48 * 3_600 * SECOND,
            capacity_wait: 600 * SECOND,
            probe_interval: 60 * SECOND,
            budget: 20,
            budget_in_all: 200,
        }
    }

    fn attempted() -> Attempted {
        let now = "2026-03-01T15:59:30Z".parse().unwrap();
        Attempted {
            called: Some(Action::Add),
            attempts: 1,
            tries: 1,
            age: SECOND,
            same_trouble_for: Duration::ZERO,
            token_refused_before: false,
            probing: false,
            now,
        }
    }

    fn failed(class: Class) -> AttemptFailure {
        AttemptFailure::new(class, Failure::new(Reason::SystemBusy, "busy"))
    }

    fn reason(decision: Decision) -> Reason {
        match decision {
            Decision::GiveUp(failure) => failure.reason,
            other => panic!("not given up: {other:?}"),
        }
    }

    #[test]
    fn a_backoff_is_spread_from_nothing_to_an_interval_that_doubles_up_to_its_limit() {
        for (attempts, most) in [(1, SECOND / 2), (2, SECOND), (4, 4 * SECOND), (40, 30 * SECOND), (u32::MAX, 30 * SECOND)] {
            let drawn: Vec<Duration> = (0..400).map(|_| full_jitter(settings().initial, settings().max_interval, attempts)).collect();
            let (least, greatest) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(*greatest <= most && *greatest > most.mul_f64(0.8), "{attempts}: {greatest:?}");
            assert!(*least < most.mul_f64(0.2), "{attempts}: {least:?}");
        }
    }

    /// The least and the greatest of many waits.
    fn spread(draw: impl Fn() -> Duration) -> (Duration, Duration) {
        let drawn: Vec<Duration> = (0..400).map(|_| draw()).collect();
        (*drawn.iter().min().unwrap(), *drawn.iter().max().unwrap())
    }

    #[test]
    fn who_waits_for_the_same_thing_does_not_come_back_at_once() {
        let probing = |failures| spread(move || before_probing(&settings(), failures));
        let reconnecting = |failures| spread(move || before_reconnecting(failures));
        for ((least, greatest), most) in [
            (spread(|| jitter(10 * SECOND)), 10 * SECOND),
            (probing(1), SECOND / 2),
            (probing(20), 30 * SECOND),
            (reconnecting(1), SECOND / 2),
            (reconnecting(20), 10 * SECOND),
            (spread(|| while_everything_fails(1)), SECOND / 10),
            (spread(|| while_everything_fails(20)), SECOND),
        ] {
            assert!(greatest <= most && greatest > most.mul_f64(0.8) && least < most.mul_f64(0.2), "{least:?} {greatest:?} of {most:?}");
        }
        // Whoever is told to come back after the quota's return is not there a moment before it.
        let day = || match decide(&settings(), attempted(), &failed(Class::Day)) {
            Decision::Pause(_, wait) => wait,
            other => panic!("{other:?}"),
        };
        let (least, greatest) = spread(day);
        assert!(least >= 30 * SECOND && greatest > 200 * SECOND && greatest <= 330 * SECOND, "{least:?} {greatest:?}");
    }

    #[test]
    fn the_last_attempt_comes_no_later_than_the_commands_end() {
        let left = SECOND / 100;
        let nearly = Attempted { attempts: 20, age: settings().max_age - left, ..attempted() };
        let (_, greatest) = spread(|| match decide(&settings(), nearly, &failed(Class::Retry)) {
            Decision::After(wait) => wait,
            other => panic!("{other:?}"),
        });
        assert_eq!(greatest, left);
    }

    #[test]
    fn an_official_account_in_trouble_is_probed_no_sooner_than_wechat_asks_for() {
        let paused = |class| decide(&settings(), attempted(), &failed(class));
        let pause = |wait| Decision::Pause(Scope::OfficialAccount, wait);
        assert_eq!(paused(Class::ACCOUNT), pause(60 * SECOND));
        assert_eq!(paused(Class::Account { probe: 3_600 * SECOND }), pause(3_600 * SECOND));
        assert_eq!(paused(Class::TokenUnchanged { wait: 7 * SECOND }), pause(7 * SECOND));
        for hopeless in [Class::Permanent, Class::Bug] {
            assert_eq!(paused(hopeless), Decision::GiveUp(failed(hopeless).failure));
        }
    }

    #[test]
    fn a_refused_token_is_replaced_once_then_pauses_the_official_account() {
        let again = Attempted { token_refused_before: true, ..attempted() };
        assert_eq!(decide(&settings(), attempted(), &failed(Class::Token)), Decision::AtOnce);
        assert_eq!(decide(&settings(), again, &failed(Class::Token)), Decision::Pause(Scope::OfficialAccount, 60 * SECOND));
    }

    #[test]
    fn quotas_wait_for_the_next_minute_and_for_midnight_in_china() {
        let Decision::Pause(scope, minute) = decide(&settings(), attempted(), &failed(Class::Minute)) else { panic!() };
        assert_eq!(scope, Scope::Adds);
        let token = Attempted { called: None, ..attempted() };
        assert!(matches!(decide(&settings(), token, &failed(Class::Minute)), Decision::Pause(Scope::OfficialAccount, _)));
        assert!((30 * SECOND..=33 * SECOND).contains(&minute), "{minute:?}");
        let Decision::Pause(_, day) = decide(&settings(), attempted(), &failed(Class::Day)) else { panic!() };
        assert!((30 * SECOND..=330 * SECOND).contains(&day), "{day:?}");
        let after = Attempted { probing: true, now: "2026-03-01T16:05:00Z".parse().unwrap(), ..attempted() };
        assert_eq!(decide(&settings(), after, &failed(Class::Day)), Decision::Pause(Scope::Adds, 3_600 * SECOND));
    }

    #[test]
    fn an_unknown_errcode_is_given_up_after_five_attempts() {
        let fifth = Attempted { attempts: 5, ..attempted() };
        assert!(matches!(decide(&settings(), attempted(), &failed(Class::Unknown)), Decision::After(_)));
        assert_eq!(reason(decide(&settings(), fifth, &failed(Class::Unknown))), Reason::UnknownErrcode);
    }

    #[test]
    fn capacity_is_awaited_for_its_time_and_no_longer() {
        let nearly = Attempted { same_trouble_for: 599 * SECOND, ..attempted() };
        let over = Attempted { same_trouble_for: 600 * SECOND, ..attempted() };
        assert_eq!(decide(&settings(), attempted(), &failed(Class::Capacity)), Decision::Pause(Scope::Room, 60 * SECOND));
        assert_eq!(decide(&settings(), nearly, &failed(Class::Capacity)), Decision::Pause(Scope::Room, 60 * SECOND));
        assert_eq!(reason(decide(&settings(), over, &failed(Class::Capacity))), Reason::AccountLimitReached);
    }

    #[test]
    fn what_is_too_old_is_given_up_with_its_last_trouble() {
        let old = Attempted { age: settings().max_age, ..attempted() };
        let Decision::GiveUp(failure) = decide(&settings(), old, &failed(Class::Retry)) else { panic!() };
        assert_eq!(failure.reason, Reason::RetriesExhausted);
        assert!(failure.detail.contains("system_busy"), "{}", failure.detail);
        let account = failed(Class::ACCOUNT);
        assert_eq!(reason(decide(&settings(), old, &account)), Reason::RetriesExhausted);
    }

    #[test]
    fn a_budget_is_spent_by_failures_and_earned_by_answers() {
        let mut budget = Budget::new(8);
        assert!((0..7).all(|_| !budget.spend()));
        budget.earn();
        assert!(!budget.spend() && budget.spend() && budget.spend(), "it does not go below nothing");
        budget.earn();
        assert!(!budget.spend() && budget.spend(), "the first answer brings a quarter");
        (0..100).for_each(|_| budget.earn());
        assert!((0..7).all(|_| !budget.spend()) && budget.spend(), "it holds no more than it did");
    }

    #[test]
    fn what_is_paused_for_long_comes_round_rarely() {
        assert_eq!(while_paused(50 * SECOND, 40 * SECOND), 50 * SECOND);
        assert_eq!(while_paused(50 * SECOND, 4 * 3_600 * SECOND), 3_600 * SECOND);
    }

    #[test]
    fn a_wait_goes_to_the_longest_queue_that_does_not_overshoot_it() {
        let name = |wait: Duration| defer_for(&settings(), wait).unwrap().name.clone();
        assert_eq!(name(5 * SECOND), "1m");
        assert_eq!(name(599 * SECOND), "1m");
        assert_eq!(name(600 * SECOND), "10m");
        assert_eq!(name(9 * 3_600 * SECOND), "1h");
    }
}
