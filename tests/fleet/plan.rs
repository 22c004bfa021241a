//! What the producers of a fleet run publish: adds, deletes and repeats for many kf accounts, drawn from the seed beforehand.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::publication::{First, Kind, Publication, What};
use crate::support::broker::Message;

/// An Official Account holds 100 kf accounts at most, so there are several.
pub const OFFICIAL_ACCOUNTS: [&str; 10] = ["oa0", "oa1", "oa2", "oa3", "oa4", "oa5", "oa6", "oa7", "oa8", "oa9"];
pub const KF_ACCOUNTS: usize = 500;
/// These get a larger share, so that their commands queue up.
const BUSY: usize = 25;
/// Producers that publish at the same time, each for its own kf accounts, in their order.
pub const PRODUCERS: usize = 4;

/// The name of a kf account.
pub fn kf_account(number: usize) -> String {
    format!("kf{number:03}@{}", OFFICIAL_ACCOUNTS[number % OFFICIAL_ACCOUNTS.len()])
}

/// What an add calls the kf account, so that the call tells whose it is.
pub fn nickname(command_id: &str) -> String {
    format!("客服{command_id}")
}

/// The part of a plan that is one producer's, each publication with its place in the whole.
pub type Part = Vec<(usize, Publication)>;

/// Draws so many publications, parted among the producers, each of which rests for so long in all.
pub fn draw(seed: u64, publications: usize, rests: Duration) -> Vec<Part> {
    let mut artist = Artist { rng: StdRng::seed_from_u64(seed), latest: BTreeMap::new(), revisions: BTreeMap::new() };
    let each = rests.mul_f64(PRODUCERS as f64 / publications.max(1) as f64);
    let mut parts: Vec<Part> = (0..PRODUCERS).map(|_| Vec::new()).collect();
    for place in 0..publications {
        let number = artist.number();
        let what = artist.next(place, number);
        let rest = each.mul_f64(artist.rng.random_range(0.0..2.0));
        parts[number % PRODUCERS].push((place, Publication { rest, what }));
    }
    parts
}

struct Artist {
    rng: StdRng,
    /// The places of each kf account's commands so far.
    latest: BTreeMap<usize, Vec<usize>>,
    /// The latest revision of each kf account that uses them.
    revisions: BTreeMap<usize, i64>,
}

impl Artist {
    fn number(&mut self) -> usize {
        let among = if self.rng.random_bool(0.2) { BUSY } else { KF_ACCOUNTS };
        self.rng.random_range(0..among)
    }

    fn next(&mut self, place: usize, number: usize) -> What {
        let before = self.latest.entry(number).or_default();
        if !before.is_empty() && self.rng.random_bool(0.05) {
            return What::RepeatOf(before[self.rng.random_range(0..before.len())]);
        }
        before.push(place);
        let command_id = format!("c{place:05}");
        let mut command = json!({"command_id": command_id, "action": "delete", "kf_account": kf_account(number)});
        if self.rng.random_bool(0.5) {
            command["action"] = json!("add");
            command["nickname"] = json!(nickname(&command_id));
        }
        // Every third kf account uses revisions, and always.
        if number.is_multiple_of(3) {
            let latest = self.revisions.entry(number).or_default();
            let stale = self.rng.random_bool(0.03);
            *latest += if stale { 0 } else { self.rng.random_range(1..4) };
            command["revision"] = json!(if stale { (*latest - 1).max(0) } else { *latest });
        }
        if self.rng.random_bool(0.2) {
            command["meta"] = json!({"number": place});
        }
        What::First(Box::new(First { message: Message::json(&command), age: None, kind: Kind::Command(command) }))
    }
}
