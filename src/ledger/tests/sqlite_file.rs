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
