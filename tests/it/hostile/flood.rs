//! Thousands of hostile messages beside good commands: each is answered for, none is lost, and nobody else notices.

use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::Scene;
use super::lies::{self, Fate, Lie};
use crate::support::broker::Received;
use crate::support::eventually;
use crate::support::stage::add;
use crate::support::worker::kf_worker;

/// All chance comes from here, so that what once failed fails again; another seed is told in the environment.
const SEED: u64 = 20_261_130;
const LIES: usize = 2_400;
/// After so many of them comes a good command; an Official Account has room for a hundred.
const EACH: usize = 25;
/// The worker may need so much more memory while they pass: what lies in its window and in the client's buffers.
const MORE_MEMORY: f64 = 120e6;

fn seed() -> u64 {
    std::env::var("KF_HOSTILE_SEED").map_or(SEED, |seed| seed.parse().expect("a number"))
}

fn good(number: usize) -> serde_json::Value {
    add(&format!("good-{number}"), &format!("g{number}@other"), "好")
}

/// How many dead letters there are of each body and reason.
fn dead_by_body(dead: impl IntoIterator<Item = (Vec<u8>, String)>) -> BTreeMap<(Vec<u8>, String), usize> {
    let mut counted = BTreeMap::new();
    for letter in dead {
        *counted.entry(letter).or_default() += 1;
    }
    counted
}

/// Fails where an event says otherwise than the lie must end.
fn assert_told(lie: &Lie, event: &Received) {
    match lie.fate {
        Fate::Done => event.assert_succeeded("none"),
        Fate::Rejected(reason) | Fate::Both(reason) => event.assert_ended("rejected", reason),
        Fate::Dead(reason) => panic!("{reason} is not told: {event:?}"),
    }
}

/// Fails where the dead letters are others than the lies must leave, whatever order they came in.
async fn assert_dead(scene: &mut Scene, lies: &[Lie]) {
    let owed = lies.iter().filter_map(|lie| match lie.fate {
        Fate::Dead(reason) | Fate::Both(reason) => Some((lie.body.clone(), reason.to_owned())),
        Fate::Rejected(_) | Fate::Done => None,
    });
    let owed = dead_by_body(owed);
    let letters = scene.dead.rest().await;
    let found = dead_by_body(letters.iter().map(|letter| (letter.bytes.clone(), letter.headers()["kf-reason"].clone())));
    let shown = |((body, reason), count): (&(Vec<u8>, String), &usize)| {
        format!("{count} {reason} {:.200}", String::from_utf8_lossy(body).escape_debug().to_string())
    };
    let differing: Vec<String> = found.iter().filter(|(key, count)| owed.get(*key) != Some(*count)).map(shown).collect();
    assert!(found == owed, "owed otherwise:\n{}", differing.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_message_is_answered_for_and_every_good_command_beside_it_is_done() {
    let mut scene = Scene::new().await;
    let lies = lies::draw(&mut StdRng::seed_from_u64(seed()), &scene.stage.broker.prefix, LIES);
    let exchange = scene.stage.broker.name("commands").to_string();
    let before = scene.worker.metric("process_resident_memory_bytes").await.expect("the worker answers");
    for (number, lie) in lies.iter().enumerate() {
        scene.producer.publish(&exchange, &lie.routing_key, &lie.properties, &lie.body).await;
        if number % EACH == 0 {
            scene.stage.send(&good(number)).await;
        }
    }
    // As many came as were sent: no message was delivered twice.
    let sent = (LIES + LIES.div_ceil(EACH)) as f64;
    // In steps, since a busy machine may take long for all of them.
    for quarter in 1..4 {
        let received = async || {
            scene.worker.metric("kf_commands_received_total").await.filter(|received| *received >= sent * f64::from(quarter) / 4.0)
        };
        eventually(&format!("{quarter} quarters of seed {} are taken", seed()), received).await;
    }
    let all_done = async || {
        let (received, held) = (scene.worker.metric("kf_commands_received_total").await?, scene.worker.metric("kf_commands_held").await?);
        (received == sent && held == 0.0).then_some(())
    };
    eventually(&format!("everything of seed {} is done", seed()), all_done).await;
    let mut events: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for event in scene.stage.events.rest().await {
        events.entry(event.command_id().to_owned()).or_default().push(event);
    }
    let mut only_event = |command_id: &str| match events.remove(command_id).unwrap_or_default().as_slice() {
        [event] => event.clone(),
        others => panic!("{command_id} has {} events: {others:?}", others.len()),
    };
    for number in (0..LIES).step_by(EACH) {
        let event = only_event(&format!("good-{number}"));
        event.assert_succeeded("created");
        assert_eq!(event.attempts(), 1, "{event:?}");
    }
    for lie in lies.iter().filter(|lie| !matches!(lie.fate, Fate::Dead(_))) {
        assert_told(lie, &only_event(&lie.command_id));
    }
    assert!(events.is_empty(), "nobody ordered {events:?}");
    assert_dead(&mut scene, &lies).await;
    let memory = scene.worker.metric("process_resident_memory_bytes").await.expect("the worker answers");
    assert!(memory < before + MORE_MEMORY, "{before} bytes of memory have become {memory}");
    assert_shows_nothing_to_obey(&scene.worker.log());
    assert_shows_nothing_to_obey(&printed(&scene, &["results"]).await);
    scene.end().await;
}

/// What the program prints of its ledger.
async fn printed(scene: &Scene, arguments: &[&str]) -> String {
    let output = kf_worker().arg("--config").arg(scene.worker.config()).args(arguments).output().await.expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Lines of text alone: nothing that moves a cursor, hides, or turns the direction of writing, and no line but one's own.
pub fn assert_shows_nothing_to_obey(text: &str) {
    let obeyed = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
    };
    let found: Vec<char> = text.chars().filter(obeyed).collect();
    assert!(found.is_empty(), "{:?} in what is shown", &found[..found.len().min(20)]);
    assert!(!text.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z ERROR")), "a forged line");
}
