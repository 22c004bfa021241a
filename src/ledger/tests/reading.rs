//! What is read beside the workers that write: how far a command has come, the latest outcomes, and how much is unfinished.

use super::*;

for_every_database! {
    a_command_is_told_of_by_how_far_it_has_come,
    the_latest_outcomes_come_newest_first_and_so_many_at_most,
    the_census_counts_what_is_unfinished_from_the_oldest_on,
    unfinished_commands_not_seen_for_long_are_missing,
    the_trail_is_read_oldest_first_part_by_part_and_whole,
    the_trail_is_narrowed_by_account_action_status_and_time,
    the_newest_of_the_trail_are_its_end,
    a_ledger_is_told_of_by_its_form_before_a_worker_opens_it,
    a_ledger_of_an_older_form_gets_its_index_and_keeps_what_it_holds,
}

/// Undoes what came later, but for what is in the tables.
const FILE_OF_FORM_3: &str = "
    DROP INDEX unfinished_of_account;
    CREATE INDEX unfinished_of_account ON command (kf_account, position) WHERE state <> 'finished';
    ALTER TABLE account ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE account ADD COLUMN holder TEXT;
    ALTER TABLE account ADD COLUMN lease_until INTEGER;
    CREATE INDEX claimed ON account (holder) WHERE holder IS NOT NULL;
    DROP INDEX latest_outcomes;
    PRAGMA user_version = 3;";

const DATABASE_OF_FORM_1: &str = "
    DROP INDEX kf_worker.unfinished_of_account;
    CREATE INDEX unfinished_of_account ON kf_worker.command (kf_account, position) WHERE state <> 'finished';
    CREATE INDEX claimed ON kf_worker.account (holder) WHERE holder IS NOT NULL;
    DROP INDEX kf_worker.latest_outcomes;
    UPDATE kf_worker.version SET version = 1;";

impl Fixture {
    async fn reader(&self) -> Reader {
        Reader::open(&self.settings().place).await.unwrap()
    }

    /// Takes it back to the form before the index on outcomes.
    pub(super) fn age(&self) {
        match self {
            Self::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
                connection.execute_batch(FILE_OF_FORM_3).unwrap();
            }
            Self::Postgres(database) => {
                database.execute(DATABASE_OF_FORM_1);
            }
        }
    }
}

async fn unfinished(reader: &Reader, command_id: &str) -> Unfinished {
    match reader.find(command_id).await.unwrap() {
        Lookup::Unfinished(unfinished) => *unfinished,
        other => panic!("{command_id}: {other:?}"),
    }
}

/// Finishes a command at so many seconds after 1970.
async fn finish_at(ledger: &Opened, text: &str, seconds: i64) {
    finish_message_at(ledger, &command(text), seconds).await;
}

async fn finish_message_at(ledger: &Opened, message: &Message, seconds: i64) {
    let ticket = match ledger.accept(vec![arrival(message)]).await.unwrap().remove(0) {
        Acceptance::Unfinished(ticket) => ticket,
        other => panic!("{other:?}"),
    };
    begin(ledger, ticket).await;
    let Arrived::Command(command) = arrived(message) else { panic!("{message:?}") };
    let finished_at = Timestamp::from_second(seconds).unwrap();
    let history = History { attempts: 1, received_at: ticket.received_at, finished_at };
    let conclusion = conclude(&command.given, Identity::Generation(0), &Outcome::Succeeded(Effect::Created.into()), history);
    ledger.finish(ticket.position, conclusion, false).await.unwrap();
}

async fn a_command_is_told_of_by_how_far_it_has_come(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    assert!(matches!(reader.find("1").await.unwrap(), Lookup::Unknown));
    let ticket = ticket(&ledger, "+1").await;
    let accepted = unfinished(&reader, "1").await;
    assert_eq!((accepted.stage, accepted.attempts, accepted.trouble), (Stage::Accepted, 0, None));
    assert_eq!((accepted.action, accepted.kf_account.as_deref()), (Some(Action::Add), Some("a@test")));
    begin(&ledger, ticket).await;
    assert_eq!(unfinished(&reader, "1").await.stage, Stage::Calling);
    ledger.wait(ticket.position, waiting(true)).await.unwrap();
    let waits = unfinished(&reader, "1").await;
    assert_eq!((waits.stage, waits.attempts), (Stage::Waiting, 1));
    assert_eq!(waits.trouble.map(|(reason, _)| reason), Some(Reason::SystemBusy));
    assert_eq!(waits.answer, Some(Answer { errcode: -1, errmsg: "busy".to_owned() }));
    finish(&ledger, "+1", ticket, Effect::Created).await;
    let Lookup::Finished(finished) = reader.find("1").await.unwrap() else { panic!("it has an outcome") };
    assert_eq!(finished.conclusion.status, Status::Succeeded);
}

async fn the_latest_outcomes_come_newest_first_and_so_many_at_most(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    let latest = async |most| {
        let latest = reader.latest(most).await.unwrap();
        latest.into_iter().map(|finished| finished.conclusion.command_id).collect::<Vec<_>>()
    };
    assert_eq!(latest(5).await, [""; 0]);
    // Not in the order in which they were accepted.
    for (text, seconds) in [("+1", 30), ("-2", 10), ("+3", 20)] {
        finish_at(&ledger, text, seconds).await;
    }
    ticket(&ledger, "-4").await;
    assert_eq!(latest(5).await, ["1", "3", "2"]);
    assert_eq!(latest(2).await, ["1", "3"]);
}

async fn the_census_counts_what_is_unfinished_from_the_oldest_on(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    let empty = reader.census().await.unwrap();
    assert_eq!((empty.unfinished, empty.oldest_since), (0, None));
    assert!(empty.size_bytes > 10_000, "{empty:?}");
    let oldest = |census: Census| census.oldest_since.map(Timestamp::as_millisecond);
    let first = ticket(&ledger, "+1").await;
    let second = ticket(&ledger, "-2").await;
    let two = reader.census().await.unwrap();
    assert_eq!((two.unfinished, oldest(two)), (2, Some(first.received_at.as_millisecond())));
    finish_at(&ledger, "+1", 10).await;
    let one = reader.census().await.unwrap();
    assert_eq!((one.unfinished, oldest(one)), (1, Some(second.received_at.as_millisecond())));
}

async fn unfinished_commands_not_seen_for_long_are_missing(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    finish_at(&ledger, "+1", 10).await;
    for text in ["+2", "-3"] {
        ticket(&ledger, text).await;
    }
    let now = Timestamp::now();
    let missing = async |before, most| {
        let missing = reader.missing(before, most).await.unwrap();
        missing.into_iter().map(|missing| missing.command_id).collect::<Vec<_>>()
    };
    let minute = std::time::Duration::from_secs(60);
    assert_eq!(missing(now - minute, 9).await, [""; 0]);
    assert_eq!(missing(now + minute, 9).await, ["2", "3"]);
    assert_eq!(missing(now + minute, 1).await, ["2"]);
}

/// The ids of a stretch of the trail, and in how many parts they came.
async fn trail(reader: &Reader, sought: &Sought, stretch: Stretch) -> (Vec<String>, usize) {
    let (mut ids, mut parts, mut rest) = (Vec::new(), 0, Some(stretch));
    while let Some(stretch) = rest {
        let (found, behind) = reader.trail(sought, stretch).await.unwrap();
        ids.extend(found.into_iter().map(|finished| finished.conclusion.command_id));
        (parts, rest) = (parts + 1, behind);
    }
    (ids, parts)
}

fn all() -> Stretch {
    Stretch::between(None, None)
}

/// Outcomes of the same moment, which is now: `refused-0` and so on.
async fn refuse_many(ledger: &Opened, count: usize) {
    let broken = |number| arrival(&message(&format!(r#"{{"command_id":"refused-{number}","action":"add"}}"#)));
    let decided = ledger.accept((0..count).map(broken).collect()).await.unwrap();
    assert!(decided.iter().all(|decided| matches!(decided, Acceptance::Decided(_))));
}

async fn the_trail_is_read_oldest_first_part_by_part_and_whole(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    assert_eq!(trail(&reader, &Sought::default(), all()).await, (vec![], 1));
    // Not in the order in which they were accepted.
    for (text, seconds) in [("+1", 4_000_000_000), ("-2", 10)] {
        finish_at(&ledger, text, seconds).await;
    }
    ticket(&ledger, "-unfinished").await;
    // More than are read in one go.
    refuse_many(&ledger, 2_100).await;
    let (ids, parts) = trail(&reader, &Sought::default(), all()).await;
    let refused = (0..2_100).map(|number| format!("refused-{number}"));
    assert_eq!(ids, std::iter::once("2".to_owned()).chain(refused).chain(["1".to_owned()]).collect::<Vec<_>>());
    assert_eq!(parts, 3);
    // What is sought stands in the first part and in the last, and not in between.
    let of_account = Sought { account: Some("a@*".parse().unwrap()), ..Sought::default() };
    assert_eq!(trail(&reader, &of_account, all()).await.0, ["2", "1"]);
    let newest = reader.newest(2, &of_account, all()).await.unwrap();
    assert_eq!(trail(&reader, &of_account, newest).await.0, ["2", "1"]);
    let newest = reader.newest(1_500, &Sought::default(), all()).await.unwrap();
    assert_eq!(trail(&reader, &Sought::default(), newest).await.0, ids[602..]);
}

async fn the_trail_is_narrowed_by_account_action_status_and_time(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    for (id, account, seconds) in [("1", "anna_1@test", 10), ("2", "annaX1@test", 20), ("3", "ANNA_1@test", 30), ("4", "ben@test2", 40)] {
        let body = message(&format!(r#"{{"command_id":"{id}","action":"delete","kf_account":"{account}"}}"#));
        finish_message_at(&ledger, &body, seconds).await;
    }
    finish_at(&ledger, "+5", 50).await;
    refuse_many(&ledger, 1).await;
    let of = async |account: &str| {
        let account = Some(account.parse().unwrap());
        trail(&reader, &Sought { account, ..Sought::default() }, all()).await.0
    };
    assert_eq!(of("anna_1@test").await, ["1"]);
    assert_eq!(of("anna*@test").await, ["1", "2"]);
    assert_eq!(of("*@test*").await, ["1", "2", "3", "4", "5"]);
    assert_eq!(of("*_1@*").await, ["1", "3"]);
    assert_eq!(of("*").await, ["1", "2", "3", "4", "5"], "an outcome without an account fits no pattern");
    let action = Sought { action: Some(Action::Add), ..Sought::default() };
    assert_eq!(trail(&reader, &action, all()).await.0, ["5", "refused-0"]);
    let status = Sought { status: Some(Status::Rejected), ..Sought::default() };
    assert_eq!(trail(&reader, &status, all()).await.0, ["refused-0"]);
    let between = |since, until| {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        Stretch::between(Some(at(since)), Some(at(until)))
    };
    assert_eq!(trail(&reader, &Sought::default(), between(20, 40)).await.0, ["2", "3"]);
    assert_eq!(trail(&reader, &Sought::default(), between(-62_000_000_000, 11)).await.0, ["1"], "any year that can be written");
}

async fn the_newest_of_the_trail_are_its_end(fixture: Fixture) {
    let ledger = fixture.open().await;
    let reader = fixture.reader().await;
    let newest = async |most, sought: &Sought, stretch| {
        let newest = reader.newest(most, sought, stretch).await.unwrap();
        trail(&reader, sought, newest).await.0
    };
    assert_eq!(newest(1, &Sought::default(), all()).await, [""; 0]);
    for (text, seconds) in [("+1", 30), ("-2", 10), ("+3", 20)] {
        finish_at(&ledger, text, seconds).await;
    }
    let adds = Sought { action: Some(Action::Add), ..Sought::default() };
    assert_eq!(newest(2, &Sought::default(), all()).await, ["3", "1"]);
    assert_eq!(newest(3, &Sought::default(), all()).await, ["2", "3", "1"]);
    assert_eq!(newest(9, &Sought::default(), all()).await, ["2", "3", "1"]);
    assert_eq!(newest(1, &adds, Stretch::between(None, Some(Timestamp::from_second(30).unwrap()))).await, ["3"]);
}

async fn a_ledger_is_told_of_by_its_form_before_a_worker_opens_it(fixture: Fixture) {
    use crate::proof::Verdict;
    let place = fixture.settings().place;
    let told = async || {
        let (proof, reader) = prove(&place).await;
        (proof.verdict, proof.detail, reader.is_some())
    };
    let (verdict, detail, readable) = told().await;
    assert_eq!((verdict, readable), (Verdict::Missing, false), "{detail}");
    assert!(detail.contains("kf-worker run"), "{detail}");
    if let Fixture::Sqlite(folder) = &fixture {
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    }
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    let (verdict, detail, readable) = told().await;
    assert_eq!((verdict, readable), (Verdict::Ok, true), "{detail}");
    assert!(detail.contains("1 unfinished"), "{detail}");
    drop(ledger);
    drop(fixture.open().await);
    fixture.age();
    let (verdict, detail, _) = told().await;
    assert!(verdict == Verdict::Ok && detail.contains("brings it to this version's form"), "{detail}");
    match &fixture {
        Fixture::Sqlite(folder) => {
            let connection = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
            connection.execute_batch("PRAGMA user_version = 99").unwrap();
        }
        Fixture::Postgres(database) => database.execute("UPDATE kf_worker.version SET version = 99"),
    }
    let (verdict, detail, _) = told().await;
    assert!(verdict == Verdict::Wrong && detail.contains("newer version"), "{detail}");
}

async fn a_ledger_of_an_older_form_gets_its_index_and_keeps_what_it_holds(fixture: Fixture) {
    let ledger = fixture.open().await;
    finish_at(&ledger, "+1", 10).await;
    drop(ledger);
    // Nobody has it open any more once it can be opened again.
    drop(fixture.open().await);
    fixture.age();
    let ledger = fixture.open().await;
    finish_at(&ledger, "-2", 20).await;
    let latest = fixture.reader().await.latest(9).await.unwrap();
    assert_eq!(latest.iter().map(|finished| finished.conclusion.command_id.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    // It would refuse to be made a second time.
    fixture.age();
}
