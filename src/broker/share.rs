//! Which partitions are whose, and how many messages of each are taken at once.

use std::time::Duration;

/// This worker's place among the workers alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Counted from 0.
    pub index: usize,
    /// How many workers there are, this one included.
    pub of: usize,
}

impl Share {
    /// The only worker.
    pub const ALONE: Self = Self { index: 0, of: 1 };

    /// Whether a partition is this worker's.
    pub fn owns(self, partition: u16) -> bool {
        usize::from(partition) % self.of.max(1) == self.index
    }

    /// How many partitions are this worker's.
    pub fn owned(self, partitions: u16) -> usize {
        (0..partitions).filter(|partition| self.owns(*partition)).count()
    }

    /// How many messages of one partition are taken at once, so that they come to the window in all. One who only stands
    /// by would have one partition, if ever.
    pub fn prefetch(self, window: u16, partitions: u16) -> u16 {
        let each = usize::from(window) / self.owned(partitions).max(1);
        u16::try_from(each).unwrap_or(window).max(1)
    }

    /// Whether a partition's consumer must begin anew to take so many messages at once: the broker takes another number
    /// from new consumers only. One that begins anew goes to the back of the line, so with others in it only for a
    /// difference that matters.
    pub fn is_worth_changing(self, prefetch: u16, wanted: u16) -> bool {
        let twice = |less: u16, more: u16| u32::from(more) >= 2 * u32::from(less);
        prefetch != wanted && (self.of <= 1 || twice(prefetch, wanted) || twice(wanted, prefetch))
    }
}

/// How long a worker waits before it steps back from what isn't its own: the others hear of a new worker at about the
/// same time, and by then the owner is in line.
pub const STEP_BACK: Duration = Duration::from_secs(3);
/// A worker that still gets what isn't its own, since the owner was behind it in line, steps back again after this time.
pub const STEP_BACK_AGAIN: Duration = Duration::from_secs(10);
/// How long the first message of a partition that another worker may have just stepped back from is kept, so that what
/// that worker has taken last is in the ledger before it.
pub const HAND_OVER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_owner() {
        for of in 1..=5 {
            for partition in 0..16 {
                let owners = (0..of).filter(|index| Share { index: *index, of }.owns(partition));
                assert_eq!(owners.count(), 1, "{partition} of {of}");
            }
        }
    }

    #[test]
    fn what_is_taken_at_once_comes_to_the_window() {
        assert_eq!(Share::ALONE.prefetch(256, 1), 256);
        assert_eq!(Share::ALONE.prefetch(256, 4), 64);
        assert_eq!(Share { index: 1, of: 2 }.prefetch(256, 4), 128);
        assert_eq!(Share { index: 7, of: 8 }.prefetch(256, 4), 256, "one who stands by");
        assert_eq!(Share::ALONE.prefetch(100, 1_000), 1);
    }

    #[test]
    fn a_place_in_line_is_given_up_for_what_matters_alone() {
        let two = Share { index: 0, of: 2 };
        assert!(Share::ALONE.is_worth_changing(64, 65) && !Share::ALONE.is_worth_changing(64, 64));
        assert!(two.is_worth_changing(64, 128) && two.is_worth_changing(128, 64) && !two.is_worth_changing(64, 100));
    }
}
