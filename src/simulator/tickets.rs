//! The verify tickets that WeChat pushes to a third-party platform.

use std::time::{Duration, SystemTime};

use super::errcode::{TICKET_EXPIRED, TICKET_INVALID};
use super::tokens::random_text;

/// How far apart they are pushed.
pub(super) const PUSHED_APART: Duration = Duration::from_secs(10 * 60);
/// How long each is good.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// All that were pushed to one platform. None is forgotten, so that one which has expired is told from one which never was;
/// there are 144 a day.
pub(super) struct Tickets {
    current: Ticket,
    former: Vec<Ticket>,
    /// `None` while no more are pushed.
    next_push: Option<SystemTime>,
}

struct Ticket {
    text: String,
    expires_at: SystemTime,
}

impl Tickets {
    /// The first is pushed now.
    pub fn new(now: SystemTime) -> Self {
        Self { current: Ticket::new(now), former: Vec::new(), next_push: Some(now + PUSHED_APART) }
    }

    /// Pushes a ticket, and the next ones as usual.
    pub fn push(&mut self, now: SystemTime) {
        let former = std::mem::replace(&mut self.current, Ticket::new(now));
        self.former.push(former);
        self.next_push = Some(now + PUSHED_APART);
    }

    /// Pushes those that were due by now.
    fn catch_up(&mut self, now: SystemTime) {
        while let Some(due) = self.next_push.filter(|due| *due <= now) {
            self.push(due);
        }
    }

    /// Ends all tickets, and pushes none until told to.
    pub fn expire(&mut self, now: SystemTime) {
        self.catch_up(now);
        for ticket in self.former.iter_mut().chain([&mut self.current]) {
            ticket.expires_at = ticket.expires_at.min(now);
        }
        self.next_push = None;
    }

    /// Whether a ticket is good.
    pub fn check(&mut self, text: &str, now: SystemTime) -> Result<(), i32> {
        self.catch_up(now);
        // A caller shows the current one, if all is well.
        let mut tickets = [&self.current].into_iter().chain(&self.former);
        let ticket = tickets.find(|ticket| ticket.text == text).ok_or(TICKET_INVALID)?;
        if ticket.expires_at <= now { Err(TICKET_EXPIRED) } else { Ok(()) }
    }

    /// The ticket that was pushed last, good or not.
    pub fn current(&mut self, now: SystemTime) -> &str {
        self.catch_up(now);
        &self.current.text
    }

    /// When another is pushed.
    pub fn next_push(&self) -> Option<SystemTime> {
        self.next_push
    }
}

impl Ticket {
    fn new(now: SystemTime) -> Self {
        Self { text: random_text("ticket@@@"), expires_at: now + LIFETIME }
    }
}
