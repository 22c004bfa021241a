//! Who may order what: only listed users, whom the broker has validated, and nobody in another's name.

use lapin::BasicProperties;

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, kf_worker};

/// The user of every test's connection, as RabbitMQ ships it.
const USER: &str = "guest";

/// Settings that let the tests' user add accounts of `hr…@test`, and nothing else.
fn rules(stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.publisher("somebody-else", &["add", "delete"], &["*"]).publisher(USER, &["add"], &["hr*@test"]);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_user_may_order_what_its_rule_says() {
    let mut stage = Stage::new().await;
    let worker = stage.worker_with(&rules(&stage)).await;
    let command = add("c1", "hr1@test", "安娜");
    stage.broker.publish(Message::json(&command).user_id(USER)).await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    stage.broker.publish(Message::json(&command).user_id(USER)).await;
    event.assert_repeated_by(&stage.events.of("c1").await);
    assert_eq!(stage.broker.dead().await.rest().await.len(), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_validated_sender_is_a_dead_letter_and_answered_to_its_sender_alone() {
    let mut stage = Stage::new().await;
    let worker = stage.worker_with(&rules(&stage)).await;
    let mut dead = stage.broker.dead().await;
    let mut replies = stage.broker.replies().await;
    let known = add("known", "hr1@test", "安娜");
    stage.broker.publish(Message::json(&known).user_id(USER)).await;
    stage.events.of("known").await.assert_succeeded("created");

    let reply_to = replies.queue.to_string();
    // What the body says is of no account, not even where the id is known or nothing can be read.
    for body in [add("c1", "hr2@test", "本").to_string(), known.to_string(), "no json".to_owned()] {
        stage.broker.publish(Message::raw(body.as_str()).message_id("their-id").reply_to(&reply_to).correlation_id("theirs")).await;
        let letter = dead.next().await;
        assert_eq!(letter.bytes, body.as_bytes());
        assert_eq!(letter.headers()["kf-reason"], "not_authorised");
        let reply = replies.next().await;
        reply.assert_ended("rejected", "not_authorised");
        assert_eq!(reply.property(BasicProperties::correlation_id), Some("theirs"));
        assert_ne!(reply.event_id(), "their-id/result/0", "it can't be taken for the outcome of the real command");
    }
    // Without `reply_to` nobody is told.
    stage.broker.publish(Message::json(&add("c1", "hr2@test", "本"))).await;
    assert_eq!(dead.next().await.headers()["kf-reason"], "not_authorised");

    for command_id in ["c1", "their-id"] {
        assert_eq!(stage.ledger().entry(command_id), None, "the ledger has not heard of {command_id}");
    }
    assert_eq!(stage.wechat.journal().len(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0, "no event for the world");
    assert_eq!(replies.rest().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_user_outside_its_rule_is_refused_and_the_id_is_not_used_up() {
    let mut stage = Stage::new().await;
    let worker = stage.worker_with(&rules(&stage)).await;
    let mut dead = stage.broker.dead().await;
    let mut replies = stage.broker.replies().await;
    let reply_to = replies.queue.to_string();
    stage.wechat.put("hr1@test");
    let outside = [delete("c1", "hr1@test"), add("c2", "anna@test", "安娜"), add("c3", "hr1@other", "安娜")];
    for command in &outside {
        stage.broker.publish(Message::json(command).user_id(USER).reply_to(&reply_to)).await;
        let letter = dead.next().await;
        assert_eq!(letter.bytes, command.to_string().into_bytes());
        assert_eq!(letter.headers()["kf-reason"], "not_authorised");
        replies.of(command["command_id"].as_str().expect("an id")).await.assert_ended("rejected", "not_authorised");
    }
    assert_eq!(stage.wechat.journal().len(), 0);
    assert_eq!(stage.events.rest().await.len(), 0);

    for command_id in ["c1", "c2", "c3"] {
        assert_eq!(stage.ledger().entry(command_id), None);
        stage.broker.publish(Message::json(&add(command_id, &format!("hr{command_id}@test"), "安娜")).user_id(USER)).await;
        stage.events.of(command_id).await.assert_succeeded("created");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_put_off_header_authorises_nothing() {
    let mut stage = Stage::new().await;
    let worker = stage.worker_with(&rules(&stage)).await;
    let mut dead = stage.broker.dead().await;
    let known = add("known", "hr1@test", "安娜");
    stage.broker.publish(Message::json(&known).user_id(USER)).await;
    stage.events.of("known").await.assert_succeeded("created");

    let unknown = add("c1", "hr2@test", "本");
    let other_content = delete("known", "hr1@test");
    for command in [&unknown, &other_content] {
        // Neither an invented value nor the ledger's own id, which whoever reads a deferred queue knows.
        for value in ["invented".to_owned(), stage.ledger().id()] {
            stage.broker.publish(Message::json(command).header("kf-put-off", &value)).await;
            assert_eq!(dead.next().await.headers()["kf-reason"], "ledger_lost");
        }
    }
    assert_eq!(stage.ledger().entry("c1"), None);
    assert_eq!(stage.wechat.journal().len(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0, "no event in another's name");
}

/// Settings under which a blocked Official Account has its commands put off, and is probed again soon.
fn soon_put_off(mut settings: Settings) -> Settings {
    settings.set("retry.max_in_process", "1s").set("retry.probe_interval", "2s");
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_off_command_comes_back_and_is_carried_out_though_its_copy_names_no_user() {
    let mut stage = Stage::new().await;
    let worker = stage.worker_with(&soon_put_off(rules(&stage))).await;
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(48001));
    stage.broker.publish(Message::json(&add("c1", "hr1@test", "安娜")).user_id(USER)).await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2);
    assert!(worker.log().contains("a command was put off"), "it went through a queue");
    assert_eq!(stage.broker.dead().await.rest().await.len(), 0);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_off_copy_that_finds_another_ledger_is_a_dead_letter() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker_with(&soon_put_off(stage.settings())).await;
    let mut dead = stage.broker.dead().await;
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(48001));
    let command = add("c1", "anna@test", "安娜");
    stage.send(&command).await;
    eventually("the copy is on its way", async || {
        let copies = [stage.broker.ready("deferred.1s").await, stage.broker.ready("deferred.2s").await];
        copies.contains(&Some(1)).then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await, Some(0));
    stage.ledger().delete();

    worker.restart().await;
    let letter = dead.next().await;
    assert_eq!(letter.bytes, command.to_string().into_bytes());
    assert_eq!(letter.headers()["kf-reason"], "ledger_lost");
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add], "only the call of the former life");
    assert_eq!(stage.ledger().entry("c1"), None);
    assert_eq!(stage.settle(worker).await.len(), 0, "nobody knows the outcome, so none is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_again_pauses_the_official_account_until_it_answers() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1s");
    let worker = stage.worker_with(&settings).await;
    // A token that ends is replaced without anybody noticing.
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.wechat.end_token("test");
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2);

    let calls = [stage.wechat.hold(Endpoint::Add, "carl@test"), stage.wechat.hold(Endpoint::Add, "carl@test")];
    stage.send(&add("c3", "carl@test", "卡尔")).await;
    for mut call in calls {
        call.arrived().await;
        stage.wechat.end_token("test");
        call.release();
    }
    stage.wechat.until_answered(Endpoint::Add, "carl@test", 2).await;
    stage.ledger().until("c3", "waiting").await;
    // Others of the same Official Account wait without a call, and strangers don't.
    stage.send(&add("c4", "dora@test", "朵拉")).await;
    stage.outcome(&add("c5", "emil@other", "埃米尔")).await.assert_succeeded("created");
    assert_eq!(stage.wechat.changes("dora@test").len(), 0, "the Official Account is paused");
    let event = stage.events.of("c3").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 3);
    let event = stage.events.of("c4").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_replays_a_command_who_can_not_read_the_dead_letters() {
    let mut stage = Stage::new().await;
    // Before there were rules an add was ordered, and failed.
    let mut worker = stage.worker().await;
    stage.wechat.next(Endpoint::Add, None, Answer::Errcode(65403));
    let command = add("c1", "anna@test", "安娜");
    stage.outcome(&command).await.assert_ended("failed", "nickname_refused");
    let mut dead = stage.broker.dead().await;
    let letter = dead.next().await;
    assert_eq!(worker.terminate().await, Some(0));

    // Whoever sends this may only delete.
    let mut settings = stage.settings();
    settings.publisher(USER, &["delete"], &["*@test"]).publisher("hr-onboarding", &["add"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    let proof = letter.headers()["kf-dead-proof"].clone();
    let replay = |proof: Option<&str>| {
        let replay = Message::json(&command).user_id(USER).header("kf-replay", "c1/dead/0");
        proof.into_iter().fold(replay, |replay, proof| replay.header("kf-dead-proof", proof))
    };
    for forged in [None, Some("00000000000000000000000000000000"), Some(&proof.replace(|c: char| c.is_ascii_digit(), "a"))] {
        stage.broker.publish(replay(forged)).await;
        assert_eq!(dead.next().await.headers()["kf-reason"], "ledger_lost");
    }
    assert_eq!(stage.wechat.changes("anna@test"), [Endpoint::Add]);
    // Whoever can read them could have read the proof as well.
    stage.broker.publish(replay(Some(&proof))).await;
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_put_off_copy_brings_nobody_a_result() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.publisher(USER, &["add"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    let mut dead = stage.broker.dead().await;
    let mut replies = stage.broker.replies().await;
    let command = add("c1", "anna@test", "安娜");
    stage.broker.publish(Message::json(&command).user_id(USER)).await;
    stage.events.of("c1").await.assert_succeeded("created");
    // The same content without a sender, as somebody might guess it.
    let forged = Message::json(&command).header("kf-put-off", "invented").reply_to(replies.queue.as_str());
    stage.broker.publish(forged).await;
    assert_eq!(dead.next().await.headers()["kf-reason"], "ledger_lost");
    assert_eq!(replies.rest().await.len(), 0, "nothing is told to whoever has guessed it");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mended_rule_allows_to_the_operator_is_carried_out_by_a_replay() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.publisher("hr-onboarding", &["add"], &["*@test"]);
    let mut worker = stage.worker_with(&settings).await;
    stage.broker.publish(Message::json(&add("c1", "anna@test", "安娜")).user_id(USER)).await;
    eventually("it is refused", async || (stage.broker.ready("dead").await == Some(1)).then_some(())).await;
    assert_eq!(worker.terminate().await, Some(0));
    settings.publisher(USER, &["add"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    let replayed = kf_worker().arg("--config").arg(worker.config()).args(["dead", "replay", "--reason", "not_authorised"]).output();
    assert!(replayed.await.expect("the program runs").status.success());
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.broker.ready("dead").await, Some(0));
    assert_eq!(stage.settle(worker).await.len(), 0);
}
