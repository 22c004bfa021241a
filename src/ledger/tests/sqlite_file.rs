//! What is true of a ledger in a file alone.

use std::path::{Path, PathBuf};

use super::*;

impl Fixture {
    fn folder(&self) -> &Path {
        let Self::Sqlite(folder) = self else { panic!("a file's folder") };
        folder.path()
    }

    fn path(&self) -> PathBuf {
        self.folder().join("ledger.db")
    }
}

#[tokio::test]
async fn a_ledger_that_was_deleted_under_the_worker_takes_nothing_more() {
    let fixture = Fixture::sqlite();
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    std::fs::remove_file(fixture.path()).unwrap();
    assert!(matches!(ledger.accept(vec![arrival(&command("+2"))]).await, Err(LedgerError::Gone)));
    assert!(matches!(ledger.probe().await, Err(LedgerError::Gone)));
}

#[tokio::test]
async fn one_that_ended_in_order_is_all_in_one_file() {
    let fixture = Fixture::sqlite();
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    finish(&ledger, "+1", first, Effect::Created).await;
    ledger.close().await.unwrap();
    let copy = Fixture::sqlite();
    std::fs::copy(fixture.path(), copy.path()).unwrap();
    let reader = Reader::open(&copy.settings().place).await.unwrap();
    assert!(matches!(reader.find("1").await.unwrap(), Lookup::Finished(_)));
}

#[tokio::test]
async fn a_second_process_is_refused_and_a_reader_is_not() {
    let fixture = Fixture::sqlite();
    let ledger = fixture.open().await;
    assert!(matches!(Ledger::open(&fixture.settings(), metrics()).await, Err(OpenError::Sqlite(sqlite::OpenError::InUse(_)))));
    let first = ticket(&ledger, "+1").await;
    let reader = Reader::open(&fixture.settings().place).await.unwrap();
    assert!(matches!(reader.find("1").await.unwrap(), Lookup::Unfinished(_)));
    assert!(matches!(reader.find("2").await.unwrap(), Lookup::Unknown));
    finish(&ledger, "+1", first, Effect::Created).await;
    let Lookup::Finished(found) = reader.find("1").await.unwrap() else { panic!() };
    assert_eq!(found.conclusion.status, Status::Succeeded);
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_refused() {
    let fixture = Fixture::sqlite();
    std::fs::write(fixture.path(), "this is no database, and long enough to be looked at as one".repeat(20)).unwrap();
    assert!(matches!(Ledger::open(&fixture.settings(), metrics()).await, Err(OpenError::Sqlite(sqlite::OpenError::Database { .. }))));
    let nowhere = Settings { place: Place::Sqlite(fixture.folder().join("no/such/folder/ledger.db")), ..fixture.settings() };
    assert!(matches!(Ledger::open(&nowhere, metrics()).await, Err(OpenError::Sqlite(sqlite::OpenError::File { .. }))));
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::sqlite();
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = std::fs::metadata(fixture.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} {mode:o}");
    }
}

#[test]
fn sqlite_is_one_without_the_wal_reset_bug() {
    // 3.7.0 to 3.51.2 can damage a WAL database when a second connection writes during a checkpoint.
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[tokio::test]
async fn what_an_older_worker_had_in_flight_when_it_died_is_known_after_the_update() {
    let fixture = Fixture::sqlite();
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    begin(&ledger, first).await;
    drop(ledger);
    drop(fixture.open().await);
    fixture.age();
    let connection = rusqlite::Connection::open(fixture.path()).unwrap();
    connection.execute("UPDATE account SET epoch = 7, holder = 'an older worker', lease_until = 9999999999999", []).unwrap();
    let ledger = fixture.open().await;
    let again = ticket(&ledger, "+1").await;
    assert!(again.suspect && again.attempts == 1, "{again:?}");
    assert!(begin(&ledger, again).await.answer_lost_before);
}

#[tokio::test]
async fn more_accounts_than_are_known_by_heart_are_no_trouble() {
    let fixture = Fixture::sqlite();
    let ledger = fixture.open().await;
    let message = |number: usize| message(&format!(r#"{{"command_id":"{number}","action":"delete","kf_account":"a{number}@test"}}"#));
    let accept = async |numbers: std::ops::Range<usize>| {
        let arrivals = numbers.map(|number| arrival(&message(number))).collect();
        let accepted = ledger.accept(arrivals).await.unwrap().into_iter();
        accepted
            .map(|accepted| match accepted {
                Acceptance::Unfinished(ticket) => ticket,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    let tickets = accept(0..3_000).await;
    let first = begin(&ledger, tickets[0]).await;
    // All but the claimed one are forgotten now.
    let later = accept(3_000..6_000).await;
    assert!(later.iter().map(|ticket| ticket.position).eq((3_001..).map(Position).take(3_000)));
    for ticket in tickets[1..].iter().step_by(500).chain(&later[..1]) {
        let begun = begin(&ledger, *ticket).await;
        assert!(begun.epoch > first.epoch && !begun.answer_lost_before, "{begun:?}");
    }
    let recorded = ledger.ledger.wait(tickets[0].position, Waiting { claim: Some(first.epoch), ..waiting(false) }).await.unwrap();
    assert_eq!(recorded.ending, Ending::Ours, "its claim was kept");
    let again = ledger.accept(vec![arrival(&message(0))]).await.unwrap().remove(0);
    assert!(matches!(again, Acceptance::Unfinished(ticket) if !ticket.suspect && ticket.attempts == 1), "{again:?}");
}
