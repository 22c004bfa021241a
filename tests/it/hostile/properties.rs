//! Properties and headers that clients give up their connection over: too large for a copy, not UTF-8, nested without end.

use super::Scene;
use crate::support::raw_amqp::{MOST_PROPERTIES, Properties, nested};
use crate::support::stage::{add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::kf_worker;

/// So many bytes of properties and headers are read.
const LARGEST: usize = 64 * 1024;
/// The properties that are texts and that the broker does not look at itself, by their places.
const TEXTS: [u8; 8] = [0, 1, 5, 6, 8, 10, 12, 13];

/// Waits for the dead letter of a message whose properties can't be read.
async fn assert_dead(scene: &mut Scene, body: &str) {
    let letter = scene.dead.next().await;
    assert_eq!(letter.bytes, body.as_bytes());
    let headers = letter.headers();
    assert_eq!(headers["kf-reason"], "unreadable_properties", "{headers:?}");
    assert!(headers["kf-detail"].ends_with('.') && !headers.contains_key("filler") && !headers.contains_key("deep"), "{headers:?}");
}

/// The commands of an Official Account that is paused are put off, and come back soon.
async fn where_commands_are_put_off() -> Scene {
    let scene = Scene::with(|settings| {
        settings.set("retry.max_in_process", "1s").set("retry.probe_interval", "2s");
    });
    let scene = scene.await;
    scene.stage.wechat.next(Endpoint::Add, None, Answer::Errcode(48001));
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_too_large_for_a_copy_make_a_dead_letter_without_them() {
    let mut scene = Scene::new().await;
    let good = add("c1", "anna@test", "安娜").to_string();
    for size in [LARGEST + 1, MOST_PROPERTIES] {
        for body in ["no json", &good] {
            scene.publish(&Properties::default().filled(size), body).await;
            assert_dead(&mut scene, body).await;
        }
    }
    // By the id beside the body it is rejected as well, and nothing of it is tried.
    scene.publish(&Properties::default().message_id(b"c2").filled(MOST_PROPERTIES), "{}").await;
    scene.stage.events.of("c2").await.assert_ended("rejected", "unreadable_properties");
    assert_dead(&mut scene, "{}").await;
    assert_eq!(scene.stage.wechat.journal().len(), 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_headers_that_are_read_are_put_off_and_come_back() {
    let mut scene = where_commands_are_put_off().await;
    let command = add("c1", "anna@test", "安娜").to_string();
    scene.publish(&Properties::default().header(b"ticket", b"T-17").filled(LARGEST), &command).await;
    let event = scene.stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2, "it came back from a deferred queue");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_event_keeps_its_attributes_when_it_is_put_off_however_large_its_other_headers_are() {
    let mut scene = where_commands_are_put_off().await;
    let attributes = [("ce-specversion", "1.0"), ("ce-id", "c1"), ("ce-type", "kf.add"), ("ce-source", "hr")];
    let properties = attributes.into_iter().fold(Properties::default(), |all, (name, value)| all.header(name.as_bytes(), value.as_bytes()));
    scene.publish(&properties.filled(LARGEST), r#"{"kf_account":"anna@test","nickname":"安娜"}"#).await;
    scene.stage.events.of("c1").await.assert_succeeded("created");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_headers_that_are_read_survive_a_dead_letter_and_its_replay() {
    let mut scene = Scene::new().await;
    // What lies in the queue has to stay there for the program.
    drop(std::mem::replace(&mut scene.dead, scene.stage.broker.replies().await));
    scene.stage.wechat.next(Endpoint::Add, None, Answer::Errcode(65403));
    let command = add("c1", "anna@test", "安娜").to_string();
    scene.publish(&Properties::default().header(b"ticket", b"T-17").filled(LARGEST), &command).await;
    scene.stage.events.of("c1").await.assert_ended("failed", "nickname_refused");
    let dead = async |arguments: &[&str]| {
        let output = kf_worker().arg("--config").arg(scene.worker.config()).arg("dead").args(arguments).output().await;
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(dead(&["show", "c1/dead/0", "--json"]).await.contains("T-17"));
    dead(&["replay", "c1/dead/0"]).await;
    scene.stage.events.of("c1").await.assert_succeeded("created");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_no_utf_8_makes_a_dead_letter_and_ends_no_connection() {
    let mut scene = Scene::new().await;
    let command = add("c1", "anna@test", "安娜").to_string();
    let mut hostile: Vec<Properties> = TEXTS.iter().map(|place| Properties::default().text(*place, b"\xff\xfe")).collect();
    hostile.push(Properties::default().header(b"\xc3\x28", b"x"));
    hostile.push(Properties::default().typed_header(b"deep", b'F', b"\0\0\0\x05\x02\xc3\x28t\x01"));
    for properties in &hostile {
        scene.publish(properties, &command).await;
        assert_dead(&mut scene, &command).await;
    }
    // What stands in a header's value is its sender's affair.
    scene.publish(&Properties::default().header(b"latin", b"M\xfcller"), &command).await;
    scene.stage.events.of("c1").await.assert_succeeded("created");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_without_end_make_a_dead_letter_and_crash_nobody() {
    let mut scene = Scene::new().await;
    let command = delete("c1", "anna@test").to_string();
    for (kind, levels) in [(b'F', 33), (b'A', 33), (b'F', 5_000), (b'A', 12_000), (b'F', 21_000), (b'A', 26_000)] {
        scene.publish(&Properties::default().typed_header(b"deep", kind, &nested(kind, levels)), &command).await;
        assert_dead(&mut scene, &command).await;
    }
    for kind in [b'F', b'A'] {
        let properties = Properties::default().typed_header(b"deep", kind, &nested(kind, 32)).message_id(b"c1");
        scene.publish(&properties, &command).await;
        scene.stage.events.of("c1").await.assert_succeeded("none");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_properties_of_a_reply_come_back_in_it() {
    let mut scene = Scene::new().await;
    let mut replies = scene.stage.broker.replies().await;
    let long = "客".repeat(85);
    let properties = Properties::default().reply_to(replies.queue.as_str().as_bytes()).correlation_id(long.as_bytes());
    scene.publish(&properties, &add("c1", "anna@test", "安娜").to_string()).await;
    assert_eq!(replies.next().await.property(lapin::BasicProperties::correlation_id), Some(long.as_str()));
    // A queue of so long a name is nobody's.
    let nowhere = Properties::default().reply_to(long.as_bytes()).correlation_id(long.as_bytes());
    scene.publish(&nowhere, &delete("c2", "anna@test").to_string()).await;
    scene.stage.events.of("c1").await.assert_succeeded("created");
    scene.stage.events.of("c2").await.assert_succeeded("deleted");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reads_dead_letters_that_the_broker_itself_put_there() {
    let mut scene = Scene::new().await;
    drop(std::mem::replace(&mut scene.dead, scene.stage.broker.replies().await));
    let queue = scene.stage.broker.name("dead").to_string();
    let hostile = [
        Properties::default().filled(MOST_PROPERTIES),
        Properties::default().correlation_id(b"\xff"),
        Properties::default().typed_header(b"deep", b'A', &nested(b'A', 26_000)),
    ];
    for properties in &hostile {
        scene.producer.publish("", &queue, properties, b"{}").await;
    }
    // The second look finds what the first one gave back, which is delivered again.
    for _ in 0..2 {
        let listed = kf_worker().arg("--config").arg(scene.worker.config()).args(["dead", "list", "--json"]).output().await;
        let listed = listed.expect("the program runs");
        assert!(listed.status.success(), "{listed:?}");
        assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), hostile.len(), "{listed:?}");
    }
    scene.end().await;
}
