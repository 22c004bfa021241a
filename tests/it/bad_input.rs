//! Wrong messages get the documented answer, and neither harm the worker nor the good commands beside them.

use serde_json::{Value, json};

use crate::support::broker::{Inbox, Message, Received};
use crate::support::stage::{Stage, add, delete, with};
use crate::support::worker::Worker;

/// A worker, its dead letters, and the good commands that must not suffer.
struct Scene {
    stage: Stage,
    worker: Worker,
    dead: Inbox,
}

impl Scene {
    async fn new() -> Self {
        let mut stage = Stage::new().await;
        let worker = stage.worker().await;
        let dead = stage.broker.dead().await;
        stage.outcome(&add("good-before", "good@test", "好")).await.assert_succeeded("created");
        Self { stage, worker, dead }
    }

    /// What has an id and breaks a rule is rejected, never tried and not kept among the dead letters.
    async fn assert_rejected(&mut self, message: Message, command_id: &str, reason: &str) -> Received {
        self.stage.broker.publish(message).await;
        let event = self.stage.events.of(command_id).await;
        event.assert_ended("rejected", reason);
        assert_eq!(event.attempts(), 0);
        assert!(event.field("error")["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{}", event.data);
        event
    }

    /// What can't be answered lies among the dead letters as it came, and says why.
    async fn assert_dead(&mut self, message: Message, reason: &str) -> Received {
        let body = message.body.clone();
        self.stage.broker.publish(message).await;
        let letter = self.dead.next().await;
        assert_eq!(letter.bytes, body, "the original body");
        assert_dead_headers(&letter, reason);
        letter
    }

    /// The same process goes on working, and nothing else was said or kept.
    async fn end(mut self) -> String {
        assert!(self.worker.is_running(), "the worker lives");
        assert_eq!(self.worker.get("/readyz").await.map(|(status, _)| status), Some(200));
        self.stage.outcome(&delete("good-after", "good@test")).await.assert_succeeded("deleted");
        assert_eq!(self.dead.rest().await.len(), 0, "no other dead letter");
        let log = self.worker.log();
        assert_eq!(self.stage.settle(self.worker).await.len(), 0, "no other event");
        log
    }
}

fn assert_dead_headers(letter: &Received, reason: &str) {
    let headers = letter.headers();
    assert_eq!(headers.get("kf-reason").map(String::as_str), Some(reason), "{headers:?}");
    assert!(headers.get("kf-dead-id").is_some_and(|id| !id.is_empty()), "{headers:?}");
    assert!(headers.get("kf-detail").is_some_and(|detail| detail.len() > 10), "{headers:?}");
    let failed_at = headers.get("kf-failed-at").expect("when it failed");
    assert!(failed_at.parse::<jiff::Timestamp>().is_ok(), "RFC 3339: {failed_at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_json_without_an_id_is_a_dead_letter() {
    let mut scene = Scene::new().await;
    let first = scene.assert_dead(Message::raw("{\"command_id\": \"c1\""), "not_a_json_object").await;
    let second = scene.assert_dead(Message::raw("[1, 2]"), "not_a_json_object").await;
    assert_ne!(first.headers()["kf-dead-id"], second.headers()["kf-dead-id"], "each has an id of its own");
    scene.assert_dead(Message::raw(""), "not_a_json_object").await;
    scene.assert_dead(Message::raw([0xff, 0xfe, 0x00]), "not_a_json_object").await;
    scene.assert_dead(Message::raw("{\"action\": \"\u{1}"), "not_a_json_object").await;
    scene.assert_dead(Message::raw("[".repeat(60_000)), "not_a_json_object").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_its_headers() {
    let mut scene = Scene::new().await;
    let message = Message::raw("nothing").header("ticket", "T-17").correlation_id("theirs");
    let letter = scene.assert_dead(message, "not_a_json_object").await;
    assert_eq!(letter.headers().get("ticket").map(String::as_str), Some("T-17"));
    assert_eq!(letter.property(lapin::BasicProperties::correlation_id), Some("theirs"));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_json_with_a_message_id_is_both_a_dead_letter_and_rejected() {
    let mut scene = Scene::new().await;
    let message = Message::raw("no json").message_id("c1");
    let event = scene.assert_rejected(message, "c1", "not_a_json_object").await;
    assert_eq!(event.routing_key, "unknown.rejected");
    let letter = scene.dead.next().await;
    assert_eq!(letter.bytes, b"no json");
    assert_dead_headers(&letter, "not_a_json_object");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_breaks_a_rule_is_rejected_by_its_id() {
    let mut scene = Scene::new().await;
    let good = add("c", "anna@test", "安娜");
    let cases: Vec<(&str, Value, &str)> = vec![
        ("unknown-field", with(good.clone(), "surprise", 1), "unknown_field"),
        ("password", with(good.clone(), "password", "x"), "unknown_field"),
        ("number-as-account", with(good.clone(), "kf_account", 17), "wrong_type"),
        ("list-as-nickname", with(good.clone(), "nickname", json!(["安娜"])), "wrong_type"),
        ("number-as-action", with(good.clone(), "action", 1), "wrong_type"),
        ("text-as-revision", with(good.clone(), "revision", "7"), "wrong_type"),
        ("text-as-meta", with(good.clone(), "meta", "x"), "wrong_type"),
        ("other-action", with(good.clone(), "action", "update"), "invalid_action"),
        ("no-action", without(good.clone(), "action"), "missing_field"),
        ("no-account", without(good.clone(), "kf_account"), "missing_field"),
        ("no-nickname", without(good.clone(), "nickname"), "invalid_nickname"),
        ("17-characters", with(good.clone(), "nickname", "客".repeat(17)), "invalid_nickname"),
        ("no-characters", with(good.clone(), "nickname", ""), "invalid_nickname"),
        ("white-space", with(good.clone(), "nickname", " \u{3000}"), "invalid_nickname"),
        ("control-character", with(good.clone(), "nickname", "an\nna"), "invalid_nickname"),
        ("nickname-of-a-delete", with(delete("c", "anna@test"), "nickname", "安娜"), "invalid_nickname"),
        ("11-characters", with(good.clone(), "kf_account", "abcdefghijk@test"), "invalid_kf_account"),
        ("no-prefix", with(good.clone(), "kf_account", "@test"), "invalid_kf_account"),
        ("no-suffix", with(good.clone(), "kf_account", "anna"), "invalid_kf_account"),
        ("31-characters", with(good.clone(), "kf_account", format!("anna@{}", "x".repeat(31))), "invalid_kf_account"),
        ("chinese-prefix", with(good.clone(), "kf_account", "安娜@test"), "invalid_kf_account"),
        ("negative-revision", with(good.clone(), "revision", -1), "invalid_revision"),
        ("large-revision", with(good.clone(), "revision", 9_223_372_036_854_775_808_u64), "invalid_revision"),
        ("large-meta", with(good.clone(), "meta", json!({"x": "y".repeat(4096)})), "invalid_meta"),
    ];
    for (command_id, command, reason) in cases {
        let command = with(command, "command_id", command_id);
        scene.assert_rejected(Message::json(&command), command_id, reason).await;
    }
    let twice = "{\"command_id\":\"twice\",\"action\":\"delete\",\"action\":\"add\",\"kf_account\":\"anna@test\",\"nickname\":\"x\"}";
    scene.assert_rejected(Message::raw(twice), "twice", "duplicate_key").await;
    assert_eq!(scene.stage.wechat.changes("anna@test").len(), 0, "WeChat never hears of them");
    scene.end().await;
}

fn without(mut command: Value, field: &str) -> Value {
    command.as_object_mut().expect("a command is an object").remove(field);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_just_within_the_rules_is_carried_out() {
    let mut scene = Scene::new().await;
    let nickname = "客".repeat(16);
    scene.stage.outcome(&add("c1", "abcdefghi_@test", &nickname)).await.assert_succeeded("created");
    assert_eq!(scene.stage.wechat.nickname("abcdefghi_@test"), Some(nickname));
    let long_id = "~".repeat(128);
    scene.stage.outcome(&add(&long_id, "a@test", "𝒜")).await.assert_succeeded("created");
    scene.stage.outcome(&with(delete("c2", "a@test"), "revision", i64::MAX)).await.assert_succeeded("deleted");
    let by_message_id = without(delete("c3", "b@test"), "command_id");
    scene.stage.broker.publish(Message::json(&by_message_id).message_id("c3")).await;
    scene.stage.events.of("c3").await.assert_succeeded("none");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_read_up_to_64_kib_and_not_a_byte_further() {
    let mut scene = Scene::new().await;
    let command = add("c1", "anna@test", "安娜").to_string();
    let padded = |size: usize| format!("{command}{}", " ".repeat(size - command.len()));
    scene.assert_dead(Message::raw(padded(64 * 1024 + 1)), "body_too_large").await;
    scene.assert_rejected(Message::raw(padded(64 * 1024 + 1)).message_id("c2"), "c2", "body_too_large").await;
    assert_dead_headers(&scene.dead.next().await, "body_too_large");
    scene.stage.broker.publish(Message::raw(padded(64 * 1024))).await;
    scene.stage.events.of("c1").await.assert_succeeded("created");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_id_cannot_be_read_is_a_dead_letter() {
    let mut scene = Scene::new().await;
    let good = add("c1", "anna@test", "安娜");
    scene.assert_dead(Message::json(&good).message_id("c2"), "id_mismatch").await;
    scene.assert_dead(Message::json(&without(good.clone(), "command_id")), "missing_command_id").await;
    scene.assert_dead(Message::json(&with(good.clone(), "command_id", "")), "invalid_command_id").await;
    scene.assert_dead(Message::json(&with(good.clone(), "command_id", "x".repeat(129))), "invalid_command_id").await;
    scene.assert_dead(Message::json(&with(good.clone(), "command_id", "客服")), "invalid_command_id").await;
    assert_eq!(scene.stage.wechat.changes("anna@test").len(), 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_an_unknown_official_account_fails_and_is_kept() {
    let mut scene = Scene::new().await;
    let command = add("c1", "anna@nobody", "安娜");
    let event = scene.stage.outcome(&command).await;
    event.assert_ended("failed", "unknown_official_account");
    assert_eq!(event.attempts(), 0);
    let letter = scene.dead.next().await;
    assert_eq!(letter.bytes, command.to_string().into_bytes());
    assert_dead_headers(&letter, "unknown_official_account");
    // A repeat is answered, and not kept a second time.
    event.assert_repeated_by(&scene.stage.outcome(&command).await);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_command_shows_what_could_be_read_of_it() {
    let mut scene = Scene::new().await;
    let command = json!({
        "command_id": "c1", "action": "add", "kf_account": "anna@test", "nickname": 17, "revision": 3,
        "meta": {"ticket": "T-17"},
    });
    let event = scene.assert_rejected(Message::json(&command), "c1", "wrong_type").await;
    assert_eq!(event.routing_key, "add.rejected");
    assert_eq!(event.field("kf_account"), "anna@test");
    assert_eq!(event.field("revision"), 3);
    assert_eq!(event.field("meta"), &json!({"ticket": "T-17"}));
    assert!(event.json["data"].get("nickname").is_none(), "what can't be read in its type is left out");
    assert!(event.json["data"].get("effect").is_none());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_finds_a_person_or_a_secret_in_the_logs() {
    let mut scene = Scene::new().await;
    let good = with(add("c1", "anna@test", "王小明"), "meta", json!({"employee": "E-4711-private"}));
    scene.stage.outcome(&good).await.assert_succeeded("created");
    let wrong = with(with(good.clone(), "command_id", "c2"), "surprise", 1);
    scene.assert_rejected(Message::json(&wrong), "c2", "unknown_field").await;
    scene.assert_dead(Message::raw("{\"nickname\": \"王小明\", \"meta\": \"E-4711-private\""), "not_a_json_object").await;
    let official = scene.stage.wechat.official_accounts();
    let tokens: Vec<String> = scene.stage.wechat.journal().into_iter().map(|call| call.token).collect();
    let log = scene.end().await;
    let secrets = official.into_iter().map(|official| official.app_secret).chain(tokens);
    for private in secrets.chain(["王小明".to_owned(), "E-4711-private".to_owned(), "access_token=".to_owned()]) {
        assert!(!log.contains(&private), "the log holds {private:?}");
    }
}
