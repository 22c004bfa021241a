//! How many calls are left in the current minute and day.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::errcode::{DAY_QUOTA, MINUTE_QUOTA};

/// WeChat's days begin at midnight in Beijing.
const UTC_PLUS_8: u64 = 8 * 3600;

/// What has a quota of its own at each Official Account.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Add,
    Del,
    Getkflist,
}

/// A quota that overrides the one for all; what is left out is not overridden.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Override {
    pub minute: Option<u32>,
    pub day: Option<u32>,
}

/// What was used of a quota in the current minute and day.
#[derive(Default)]
pub(super) struct Quota {
    /// Set for this quota alone.
    pub own: Override,
    minute: u64,
    in_minute: u32,
    day: u64,
    in_day: u32,
}

impl Quota {
    /// Takes one call from both, or says which is used up; a refused call costs nothing.
    pub fn spend(&mut self, a_minute: u32, a_day: u32, now: SystemTime) -> Result<(), i32> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (minute, day) = (seconds / 60, (seconds + UTC_PLUS_8) / 86_400);
        if self.minute != minute {
            (self.minute, self.in_minute) = (minute, 0);
        }
        if self.day != day {
            (self.day, self.in_day) = (day, 0);
        }
        if self.in_day >= self.own.day.unwrap_or(a_day) {
            return Err(DAY_QUOTA);
        }
        if self.in_minute >= self.own.minute.unwrap_or(a_minute) {
            return Err(MINUTE_QUOTA);
        }
        // Both stay below a limit that is itself a u32.
        self.in_minute += 1;
        self.in_day += 1;
        Ok(())
    }
}
