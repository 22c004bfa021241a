//! A ledger moves from a file into a database: what was known is known there, and the file is not used any more.

use std::process::Output;

use serde_json::Value;

use crate::support::postgres;
use crate::support::stage::{Stage, add, delete, with};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, kf_worker};

/// Runs `kf-worker ledger` without any configuration.
async fn ledger(arguments: &[&str]) -> Output {
    kf_worker().arg("ledger").args(arguments).output().await.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_moves_into_a_database_and_goes_on_there() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.max_in_process", "200ms").set("retry.max_interval", "100ms");
    let mut worker = stage.worker_with(&settings).await;
    let first = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    stage.outcome(&with(add("c3", "ben@test", "本"), "revision", 7)).await.assert_succeeded("created");
    // This one is in a deferred queue while its ledger moves.
    stage.wechat.next(Endpoint::Add, Some("carl@test"), Answer::Errcode(48001));
    stage.send(&add("c4", "carl@test", "卡尔")).await;
    stage.ledger().until("c4", "waiting").await;

    let from = format!("sqlite:{}", stage.path("ledger.db").display());
    let database = postgres::database();
    let used = ledger(&["migrate", "--from", &from, "--to", database.url()]).await;
    assert_eq!(used.status.code(), Some(78), "the worker has it: {}", text(&used.stderr));
    assert_eq!(worker.terminate().await, Some(0));
    let moved = ledger(&["migrate", "--from", &from, "--to", database.url(), "--json"]).await;
    assert!(moved.status.success(), "{}", text(&moved.stderr));
    let counts: Value = serde_json::from_slice(&moved.stdout).expect("JSON");
    assert_eq!((&counts["commands"], &counts["unfinished"], &counts["accounts"]), (&4.into(), &1.into(), &3.into()), "{counts}");

    let mut on_the_file = stage.spawn(&settings);
    assert_eq!(on_the_file.exit_code().await, Some(78));
    assert!(on_the_file.log().contains("was moved into a database"), "{}", on_the_file.log());
    settings.set("ledger.url", database.url());
    let worker = stage.worker_with(&settings).await;
    first.assert_repeated_by(&stage.outcome(&add("c1", "anna@test", "安娜")).await);
    assert!(!stage.wechat.has("anna@test"), "a repeat brings nobody back");
    stage.outcome(&with(add("c5", "ben@test", "本"), "revision", 7)).await.assert_ended("superseded", "stale_revision");
    stage.events.of("c4").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
    let again = ledger(&["migrate", "--from", &from, "--to", database.url()]).await;
    assert_eq!(again.status.code(), Some(78));
    assert!(text(&again.stderr).contains("moved already"), "{}", text(&again.stderr));
}

/// A move into a database that refuses the last command, so that it ends in the middle.
async fn interrupted_move(stage: &mut Stage, settings: &Settings, from: &str) -> postgres::Database {
    let database = postgres::database();
    let mut maker = settings.clone();
    maker.set("ledger.url", database.url());
    let mut worker = stage.worker_with(&maker).await;
    assert_eq!(worker.terminate().await, Some(0));
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON kf_worker.command FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let interrupted = ledger(&["migrate", "--from", from, "--to", database.url()]).await;
    assert_eq!(interrupted.status.code(), Some(1), "{}", text(&interrupted.stderr));
    assert!(text(&interrupted.stderr).contains("refused"), "{}", text(&interrupted.stderr));
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_was_interrupted_goes_on_and_neither_end_can_be_used_meanwhile() {
    let mut stage = Stage::new().await;
    let settings = stage.settings();
    let mut worker = stage.worker_with(&settings).await;
    for number in 0..5 {
        stage.outcome(&add(&format!("c{number}"), "anna@test", "安娜")).await;
    }
    assert_eq!(worker.terminate().await, Some(0));
    let from = format!("sqlite:{}", stage.path("ledger.db").display());
    let database = interrupted_move(&mut stage, &settings, &from).await;
    let mut on_the_database = settings.clone();
    on_the_database.set("ledger.url", database.url());
    for (settings, told) in [(&settings, "is being moved"), (&on_the_database, "still being filled")] {
        let mut worker = stage.spawn(settings);
        assert_eq!(worker.exit_code().await, Some(78));
        assert!(worker.log().contains(told), "{told}: {}", worker.log());
    }
    database.execute("DROP TRIGGER refuse ON kf_worker.command");
    let finished = ledger(&["migrate", "--from", &from, "--to", database.url()]).await;
    assert!(finished.status.success(), "{}", text(&finished.stderr));
    assert_eq!(database.rows("SELECT count(*), max(position) FROM kf_worker.command"), [["5", "5"]]);
    assert_eq!(database.rows("SELECT nextval('kf_worker.position')"), [["6"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_can_be_given_up_and_a_database_that_holds_something_is_left_alone() {
    let mut stage = Stage::new().await;
    let settings = stage.settings();
    let mut worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await;
    assert_eq!(worker.terminate().await, Some(0));
    let from = format!("sqlite:{}", stage.path("ledger.db").display());

    let mut other = Stage::on_postgres().await;
    let mut worker = other.worker().await;
    other.outcome(&add("x1", "anna@test", "安娜")).await;
    let migrate = ["migrate", "--from", &from, "--to", other.database().url()];
    let used = ledger(&migrate).await;
    assert!(used.status.code() == Some(78) && text(&used.stderr).contains("stop them"), "{}", text(&used.stderr));
    assert_eq!(worker.terminate().await, Some(0));
    let occupied = ledger(&migrate).await;
    assert!(occupied.status.code() == Some(78) && text(&occupied.stderr).contains("another ledger"), "{}", text(&occupied.stderr));

    // One that was begun and ended in the middle.
    let database = interrupted_move(&mut stage, &settings, &from).await;
    let given_up = ledger(&["migrate", "--from", &from, "--to", database.url(), "--abandon"]).await;
    assert!(given_up.status.success(), "{}", text(&given_up.stderr));
    assert_eq!(database.rows("SELECT count(*) FROM kf_worker.account"), [["0"]]);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await;
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_outcomes_are_forgotten_by_hand() {
    let mut stage = Stage::on_postgres().await;
    let worker = stage.worker().await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await;
    stage.outcome(&add("c2", "ben@test", "本")).await;
    stage.database().execute(
        "UPDATE kf_worker.command SET received_at = received_at - interval '91 days', finished_at = finished_at - interval '91 days' WHERE command_id = 'c1'",
    );
    let pruned = kf_worker().args(["ledger", "prune", "--json", "--config"]).arg(worker.config()).output().await.expect("the program runs");
    assert_eq!(text(&pruned.stdout).trim(), r#"{"forgotten":1}"#, "{}", text(&pruned.stderr));
    assert_eq!(stage.database().rows("SELECT command_id FROM kf_worker.command"), [["c2"]]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test]
async fn a_move_from_or_to_where_none_can_be_made_is_refused_with_the_reason() {
    for (arguments, told) in [
        (["migrate", "--from", "postgres://a/b", "--to", "postgres://a/b"], "from a file"),
        (["migrate", "--from", "sqlite:x", "--to", "sqlite:y"], "no database to move to"),
        (["migrate", "--from", "nonsense", "--to", "postgres://a/b"], "--from is neither"),
    ] {
        let refused = ledger(&arguments).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused.stderr).contains(told), "{}", text(&refused.stderr));
    }
    let database = postgres::database();
    let missing = ledger(&["migrate", "--from", "sqlite:/nowhere/ledger.db", "--to", database.url()]).await;
    assert_eq!(missing.status.code(), Some(78), "{}", text(&missing.stderr));
}
