//! Hostile messages drawn from a seed, each with what has to become of it.

mod kinds;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::support::raw_amqp::Properties;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A dead letter for this reason, and no event.
    Dead(&'static str),
    /// A rejected event for this reason, and no dead letter.
    Rejected(&'static str),
    /// Both.
    Both(&'static str),
    /// A succeeded event: what is hostile about it is nobody's affair.
    Done,
}

/// One message.
pub struct Lie {
    pub command_id: String,
    pub routing_key: String,
    pub properties: Properties,
    pub body: Vec<u8>,
    pub fate: Fate,
}

/// Where a reply may be wanted: at no queue, at the worker's own, at the broker's pseudo-queue, at what is no name.
const REPLIES: [&str; 7] = [
    "",
    "nobody",
    "amq.rabbitmq.reply-to.g1h2AAJ",
    "amq.rabbitmq.reply-to.Zm9v.YmFy",
    "amq.rabbitmq.reply-to.",
    "amq.topic",
    "a\r\nb\u{202e}",
];

/// Draws so many, one of each kind after the other.
pub fn draw(rng: &mut StdRng, prefix: &str, count: usize) -> Vec<Lie> {
    let lies = (0..count).map(|number| {
        let mut lie = Lie::new(number);
        kinds::KINDS[number % kinds::KINDS.len()](&mut lie, rng);
        if rng.random_bool(0.3) {
            let own = format!("{prefix}.commands");
            let reply_to = if rng.random_bool(0.2) { own.as_str() } else { pick(rng, &REPLIES) };
            lie.properties = std::mem::take(&mut lie.properties).reply_to(reply_to.as_bytes());
        }
        lie
    });
    lies.collect()
}

impl Lie {
    /// A command that is right as yet: it deletes what never was.
    fn new(number: usize) -> Self {
        let command_id = format!("lie-{number}");
        let body = format!(r#"{{"command_id":"{command_id}","action":"delete","kf_account":"l{number}@test"}}"#).into_bytes();
        Self { command_id, routing_key: format!("l{number}@test"), properties: Properties::default(), body, fate: Fate::Done }
    }

    fn command(&self) -> Value {
        serde_json::from_slice(&self.body).expect("it is right as yet")
    }

    fn rewrite(&mut self, body: impl ToString, fate: Fate) {
        self.body = body.to_string().into_bytes();
        self.fate = fate;
    }

    fn change(&mut self, field: &str, value: Value, fate: Fate) {
        let mut command = self.command();
        command[field] = value;
        self.rewrite(command, fate);
    }

    fn with(&mut self, change: impl FnOnce(Properties) -> Properties) {
        self.properties = change(std::mem::take(&mut self.properties));
    }

    /// It can't be read: by the id beside the body it is answered all the same, where one is there.
    fn dies(&mut self, rng: &mut StdRng, reason: &'static str) {
        self.fate = Fate::Dead(reason);
        if rng.random_bool(0.5) {
            let command_id = self.command_id.clone();
            self.with(|properties| properties.message_id(command_id.as_bytes()));
            self.fate = Fate::Both(reason);
        }
    }
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}
