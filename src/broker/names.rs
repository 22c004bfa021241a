//! The names of all exchanges and queues under one prefix.

/// The names under one prefix.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The exchange that producers publish to, and the queue that workers consume where there is but one partition.
    pub fn commands(&self) -> String {
        format!("{}.commands", self.prefix)
    }

    /// The queue of one partition of several, counted from 0.
    pub fn partition(&self, number: u16) -> String {
        format!("{}.commands.{number}", self.prefix)
    }

    /// The queues that the commands are spread over.
    pub fn command_queues(&self, partitions: u16) -> Vec<String> {
        match partitions {
            1 => vec![self.commands()],
            _ => (0..partitions).map(|number| self.partition(number)).collect(),
        }
    }

    /// The exchange that spreads the commands over several partitions.
    pub fn partitions(&self) -> String {
        format!("{}.partitions", self.prefix)
    }

    /// The exchange through which commands are parked; it exists for just as long as they are.
    pub fn parking(&self) -> String {
        format!("{}.parking", self.prefix)
    }

    /// The queue of the commands that came while the number of partitions was changed.
    pub fn parked(&self) -> String {
        format!("{}.parked", self.prefix)
    }

    /// The exclusive queue of whoever changes the number of partitions, or takes the parked commands.
    pub fn parked_owner(&self) -> String {
        format!("{}.parked-owner", self.prefix)
    }

    /// The exchange that says: the new partitions are declared, and are about to take the place of the parking.
    pub fn unparking(&self) -> String {
        format!("{}.unparking", self.prefix)
    }

    /// The exchange that results are published to.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The queue of the dead letters.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The exchange, and the queue, of one delay; the delay is spelled as configured.
    pub fn deferred(&self, delay: &str) -> String {
        format!("{}.deferred.{delay}", self.prefix)
    }

    /// The exclusive queue of the one worker with a ledger in a file.
    pub fn sqlite_owner(&self) -> String {
        format!("{}.sqlite-owner", self.prefix)
    }

    /// A queue of somebody's own for replies. Its name does not stand under the prefix: no reply goes to those.
    pub fn replies(&self, random: u64) -> String {
        format!("{}-replies-{random:016x}", self.prefix)
    }

    /// The queue of one who watches the results.
    pub fn watch(&self, random: u64) -> String {
        format!("{}-watch-{random:016x}", self.prefix)
    }

    /// The queue of one who looks what it may do.
    pub fn check(&self, mark: &str) -> String {
        format!("{}.check-{mark}", self.prefix)
    }

    /// Whether a queue name is one of ours, which no reply may go to.
    pub fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_under_the_prefix() {
        let names = Names::new("kf");
        assert_eq!(names.deferred("10m"), "kf.deferred.10m");
        assert!(
            !names.owns(&names.replies(7))
                && names.owns("kf.dead")
                && !names.owns("kfx.dead")
                && !names.owns("kf")
                && !names.owns("amq.gen-1")
        );
    }

    #[test]
    fn one_partition_is_the_queue_that_always_was() {
        let names = Names::new("kf");
        assert_eq!(names.command_queues(1), ["kf.commands"]);
        assert_eq!(names.command_queues(2), ["kf.commands.0", "kf.commands.1"]);
    }
}
