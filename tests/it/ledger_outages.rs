//! The ledger goes away: nothing is executed that can't be recorded, the worker says so, and goes on when it can.

use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::Endpoint;

#[tokio::test(flavor = "multi_thread")]
async fn while_another_program_locks_the_ledger_nothing_is_executed() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("c1", "anna@test", "安娜")).await;
    held.arrived().await;
    let lock = stage.ledger().lock();
    stage.send(&add("c2", "ben@test", "本")).await;
    // This call began before the lock, and its end can't be recorded while it lasts.
    held.release();
    let reason = worker.without_ledger().await;
    assert!(reason.contains("locked"), "{reason}");
    assert!(worker.is_running());
    assert_eq!(worker.get("/livez").await.map(|(status, _)| status), Some(200));
    assert_eq!(stage.wechat.changes("ben@test").len(), 0);
    assert_eq!(stage.ledger().entry("c2"), None);
    assert_eq!(stage.events.rest().await.len(), 0, "nothing is told that isn't recorded");

    drop(lock);
    worker.ready().await;
    let event = stage.events.of("c1").await;
    // Its end was still waiting to be recorded, or it was given up and the call made again.
    event.assert_succeeded(if event.attempts() == 1 { "created" } else { "unknown" });
    assert_eq!(stage.wechat.changes("anna@test").len() as u64, event.attempts(), "every call is counted");
    let event = stage.events.of("c2").await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_file_taken_away_nothing_is_executed_until_it_is_back() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.ledger().take_away();
    stage.send(&add("c2", "ben@test", "本")).await;
    let reason = worker.without_ledger().await;
    assert!(reason.contains("deleted or replaced"), "{reason}");
    assert!(worker.is_running());
    assert_eq!(stage.wechat.changes("ben@test").len(), 0);
    assert_eq!(stage.events.rest().await.len(), 0);

    stage.ledger().bring_back();
    worker.ready().await;
    stage.events.of("c2").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_executed_until_there_is_room() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.largest_file(512 * 1024);
    let mut worker = stage.worker_with(&settings).await;
    let commands: Vec<Value> = (0..90).map(|number| add(&format!("c{number}"), &format!("a{number}@test"), "客服")).collect();
    let mut sent = commands.iter();
    // The ledger grows with every command until it may not.
    let reason = loop {
        let some: Vec<Message> = sent.by_ref().take(10).map(Message::json).collect();
        assert!(!some.is_empty(), "the ledger has room for everything: the limit is too wide for this test");
        stage.broker.publish_all(some).await;
        let settled = async || match worker.get("/readyz").await {
            // A write small enough may still fit, and then the worker connects once more before it knows better.
            Some((503, reason)) if reason.starts_with("ledger") => Some(Some(reason)),
            Some((200, _)) if stage.broker.ready("commands").await? == 0 => {
                (worker.metric("kf_commands_held").await? == 0.0).then_some(None)
            }
            _ => None,
        };
        if let Some(reason) = eventually("the worker has done what was sent, or can't", settled).await {
            break reason;
        }
    };
    assert!(reason.contains("can't be written"), "{reason}");
    assert!(worker.is_running());
    let calls = stage.wechat.journal().len();
    stage.broker.publish_all(sent.map(Message::json)).await;
    assert!(worker.without_ledger().await.contains("can't be written"));
    assert_eq!(stage.wechat.journal().len(), calls, "no call that can't be recorded");

    worker.free_disk().await;
    worker.ready().await;
    let outcomes = stage.settle_each(worker, &commands).await;
    for event in outcomes.values() {
        // A call whose end could not be recorded was made again; every other was made once.
        let effect = if event.attempts() == 1 { "created" } else { "unknown" };
        event.assert_succeeded(effect);
        let account = event.field("kf_account").as_str().expect("an account");
        assert_eq!(stage.wechat.changes(account).len() as u64, event.attempts(), "every call is counted: {}", event.data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_none_ends_the_worker_with_a_sentence() {
    let mut stage = Stage::new().await;
    let settings = stage.settings();
    let path = stage.path("ledger.db");
    std::fs::write(&path, "this was a ledger once ".repeat(1_000)).expect("the file can be written");
    let mut worker = stage.spawn(&settings);
    assert_eq!(worker.exit_code().await, Some(78));
    let log = worker.log();
    assert!(log.contains("ledger.db") && log.contains("not a database"), "{log}");
    drop(worker);

    std::fs::remove_file(&path).expect("the file can be removed");
    std::fs::create_dir(&path).expect("a folder in its place");
    let mut worker = stage.spawn(&settings);
    assert_eq!(worker.exit_code().await, Some(78));
    let log = worker.log();
    assert!(log.contains("can't be opened") && log.contains("check that"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_damaged_ledger_nothing_is_executed_until_a_backup_is_put_back() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let path = stage.path("ledger.db");
    let add = add("c1", "anna@test", "安娜");
    let event = stage.outcome(&add).await;
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
    let (backup, calls) = (std::fs::read(&path).expect("the ledger can be read"), stage.wechat.journal().len());

    damage(&path, "command");
    let mut worker = stage.worker().await;
    stage.send(&add).await;
    let reason = worker.without_ledger().await;
    assert!(reason.contains("malformed") && reason.contains("restore a backup"), "{reason}");
    assert!(worker.is_running());
    assert_eq!(stage.wechat.journal().len(), calls, "who can't know what was done does nothing");
    assert_eq!(worker.terminate().await, Some(0));
    assert_eq!(stage.events.rest().await.len(), 0);

    put_back(&backup, &path);
    let worker = stage.worker().await;
    event.assert_repeated_by(&stage.events.of("c1").await);
    assert_eq!(stage.settle(worker).await.len(), 0);
    assert_eq!(stage.wechat.journal().len(), calls);
}

/// As the docs say: a log left beside the file belongs to what was in it before.
fn put_back(backup: &[u8], ledger: &Path) {
    for beside in ["-wal", "-shm"] {
        let mut path = ledger.as_os_str().to_owned();
        path.push(beside);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("what is beside the file can be removed: {error}"),
            _ => {}
        }
    }
    std::fs::write(ledger, backup).expect("the backup can be put back");
}

/// Overwrites a table and all its indexes, as a failing disk might, in a file that nobody has open.
fn damage(ledger: &Path, table: &str) {
    let mut file = std::fs::OpenOptions::new().write(true).open(ledger).expect("the ledger can be written");
    let connection = rusqlite::Connection::open(ledger).expect("the ledger opens");
    let page_size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).expect("pages have a size");
    let mut roots = connection.prepare("SELECT rootpage FROM sqlite_schema WHERE tbl_name = ?1").expect("the schema can be read");
    let roots: Vec<u32> = roots.query_map([table], |row| row.get(0)).and_then(Iterator::collect).expect("the table is there");
    for root in roots {
        let garbage = vec![0x5A; usize::try_from(page_size).expect("a page fits into memory")];
        file.seek(SeekFrom::Start(u64::from(root - 1) * u64::from(page_size)))
            .and_then(|_| file.write_all(&garbage))
            .expect("a page can be overwritten");
    }
}
