//! What the producer of a chaos run publishes: random commands, repeats and wrong messages, all drawn from the seed beforehand.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::publication::{First, Kind, Publication, What};
use crate::support::broker::Message;

/// The WeChat IDs of the Official Accounts that the worker knows.
pub const OFFICIAL_ACCOUNTS: [&str; 3] = ["test", "other", "third"];
const KF_ACCOUNTS_EACH: usize = 20;
/// The first few kf accounts of each Official Account get a larger share, so that their commands queue up.
const BUSY: usize = 2;
/// An id is used again with other content only long after its first use: by then the first one was accepted.
const LONG_BEFORE: usize = 600;

/// Draws a plan of so many publications that rest for so long in all. What is repeated or used again is at most `reach`
/// publications old: later it might be forgotten.
pub fn draw(seed: u64, publications: usize, rests: Duration, reach: usize) -> Vec<Publication> {
    let mut artist = Artist { rng: StdRng::seed_from_u64(seed), reach, revisions: HashMap::new(), plan: Vec::new() };
    let rest = rests / u32::try_from(publications.max(1)).unwrap_or(u32::MAX);
    // Bursts, and pauses that make up for them.
    let mut burst = 0;
    while artist.plan.len() < publications {
        if burst == 0 && artist.rng.random_bool(0.02) {
            burst = artist.rng.random_range(10..60);
        }
        let rest = if burst > 0 { Duration::ZERO } else { rest.mul_f64(artist.rng.random_range(0.0..5.0)) };
        burst = usize::saturating_sub(burst, 1);
        let what = artist.next();
        artist.plan.push(Publication { rest, what });
    }
    artist.plan
}

struct Artist {
    rng: StdRng,
    reach: usize,
    /// The latest revision of each account that uses them.
    revisions: HashMap<String, i64>,
    plan: Vec<Publication>,
}

impl Artist {
    fn next(&mut self) -> What {
        let done = self.plan.len();
        match self.rng.random_range(0..100) {
            0..10 if done > 0 => What::RepeatOf(self.earlier(done)),
            10..15 => self.wrong(),
            _ => self.command(),
        }
    }

    /// An earlier publication within reach that is no repeat itself.
    fn earlier(&mut self, before: usize) -> usize {
        let oldest = self.plan.len().saturating_sub(self.reach);
        let at = self.rng.random_range(oldest..before);
        match self.plan[at].what {
            // What it repeats may be out of reach itself.
            What::RepeatOf(first) if first >= oldest => first,
            What::RepeatOf(_) => self.earlier(before),
            What::First(_) => at,
        }
    }

    fn command(&mut self) -> What {
        let official = *OFFICIAL_ACCOUNTS.choose(&mut self.rng).expect("there are some");
        let number = if self.rng.random_bool(0.3) { self.rng.random_range(0..BUSY) } else { self.rng.random_range(0..KF_ACCOUNTS_EACH) };
        let kf_account = format!("kf{number:02}@{official}");
        let command_id = format!("c-{:05}", self.plan.len());
        let add = self.rng.random_bool(0.5);
        let mut command = match add {
            true => json!({"command_id": command_id, "action": "add", "kf_account": kf_account, "nickname": format!("客服{number}")}),
            false => json!({"command_id": command_id, "action": "delete", "kf_account": kf_account}),
        };
        // Every other account uses revisions, and always.
        if number % 2 == 1 {
            let latest = self.revisions.entry(kf_account).or_default();
            let stale = self.rng.random_bool(0.05);
            if !stale {
                *latest += self.rng.random_range(1..4);
            }
            command["revision"] = json!(if stale { (*latest - self.rng.random_range(0..3)).max(0) } else { *latest });
        }
        if self.rng.random_bool(0.2) {
            command["meta"] = json!({"number": self.plan.len()});
        }
        let age = self.rng.random_bool(0.1).then(|| self.rng.random_range(0..20));
        What::First(Box::new(First { message: Message::json(&command), age, kind: Kind::Command(command) }))
    }

    fn wrong(&mut self) -> What {
        let number = self.plan.len();
        let command_id = format!("w-{number:05}");
        let (message, kind) = match self.rng.random_range(0..6) {
            0 => {
                let command = json!({"command_id": command_id, "action": "add", "kf_account": "kf00@test", "nickname": ""});
                (Message::json(&command), Kind::Wrong { command_id, dead_letter: false })
            }
            1 => {
                let command = json!({"command_id": command_id, "action": "delete", "kf_account": "kf00@elsewhere"});
                (Message::json(&command), Kind::Stranger { command_id })
            }
            2 => (Message::json(&json!({"action": "delete", "kf_account": "kf00@test", "meta": {"number": number}})), Kind::Nameless),
            3 => (Message::raw(format!("no JSON {number}")), Kind::Nameless),
            4 => {
                let message = Message::raw(format!("no JSON {number}")).message_id(&command_id);
                (message, Kind::Wrong { command_id, dead_letter: true })
            }
            _ => return self.reused(),
        };
        First::now(message, kind)
    }

    fn reused(&mut self) -> What {
        if self.plan.len() <= LONG_BEFORE {
            return self.command();
        }
        let first = self.earlier(self.plan.len() - LONG_BEFORE);
        let mut command = match &self.plan[first].what {
            What::First(first) if let Kind::Command(command) = &first.kind => command.clone(),
            What::First(_) | What::RepeatOf(_) => return self.command(),
        };
        command["meta"] = json!({"other": self.plan.len()});
        let command_id = command["command_id"].as_str().unwrap_or_default().to_owned();
        First::now(Message::json(&command), Kind::Reused { command_id })
    }
}
