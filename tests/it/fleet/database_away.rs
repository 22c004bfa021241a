//! The database goes away: nothing is executed that can't be recorded, the worker says so, and goes on when it can.

use crate::support::postgres::OwnServer;
use crate::support::stage::{Stage, add};
use crate::support::wechat::Endpoint;
use crate::support::worker::Settings;

fn on(server: &OwnServer, stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.set("ledger.url", server.database().url());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_nothing_is_executed_and_it_goes_on_by_itself() {
    let mut stage = Stage::new().await;
    let mut server = OwnServer::start();
    let mut worker = stage.worker_with(&on(&server, &stage)).await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    server.kill();
    // This call began before, and its end can't be recorded now.
    held.release();
    stage.send(&add("c2", "ben@test", "本")).await;
    let reason = worker.without_ledger().await;
    assert!(reason.contains("database"), "{reason}");
    assert_eq!(worker.get("/livez").await.map(|(status, _)| status), Some(200));
    assert_eq!(stage.wechat.changes("ben@test").len(), 0);
    assert_eq!(stage.events.rest().await.len(), 0, "nothing is told that isn't recorded");

    server.start_again();
    worker.ready().await;
    let event = stage.events.of("c1").await;
    event.assert_succeeded(if event.attempts() == 1 { "created" } else { "unknown" });
    assert_eq!(stage.wechat.changes("anna@test").len() as u64, event.attempts(), "every call is counted");
    let event = stage.events.of("c2").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_database_the_next_command_takes_one_attempt() {
    let mut stage = Stage::new().await;
    let mut server = OwnServer::start();
    let worker = stage.worker_with(&on(&server, &stage)).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    server.restart();
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_started_before_its_database_waits_for_it() {
    let mut stage = Stage::new().await;
    let mut server = OwnServer::start();
    let settings = on(&server, &stage);
    server.kill();
    let mut worker = stage.spawn(&settings);
    let reason = worker.without_ledger().await;
    assert!(reason.contains("can't be used"), "{reason}");
    server.start_again();
    worker.ready().await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_operator_can_mend_ends_the_worker_and_tells_no_password() {
    let mut stage = Stage::on_postgres().await;
    let url = stage.database().url().to_owned();
    let server = url.rsplit_once('/').expect("a URL with a database").0.to_owned();
    let wrong = server.replace("://kf@", "://guarded:hunter2@");
    for (url, told) in [(format!("{server}/no_such_database"), "create the database"), (format!("{wrong}/postgres"), "28P01")] {
        let mut settings = stage.settings();
        settings.set("ledger.url", url);
        let mut worker = stage.spawn(&settings);
        assert_eq!(worker.exit_code().await, Some(78));
        assert!(worker.log().contains(told) && !worker.log().contains("hunter2"), "{}", worker.log());
    }
}
