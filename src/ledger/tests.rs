//! The ledger's contract, held against a real file: every promise once, also across a restart.

use super::*;
use crate::command::{Decoded, Message, decode};
use crate::event::{History, Identity, conclude};
use crate::outcome::{Effect, Outcome, Status};

const DAY: Duration = Duration::from_secs(86_400);

/// A ledger in a folder of its own, which can be closed and opened again.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        Settings { path: self.folder.path().join("ledger.db"), retention: DAY, patience: DAY }
    }

    fn open(&self) -> Ledger {
        self.reopen(&self.settings())
    }

    /// Opens it as the next process would, once the last one has let go.
    fn reopen(&self, settings: &Settings) -> Ledger {
        loop {
            match Ledger::open(settings) {
                Ok(ledger) => return ledger,
                Err(OpenError::InUse(_)) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn message(body: &str) -> Message {
    Message { body: body.as_bytes().to_vec(), ..Message::default() }
}

fn arrived(message: &Message) -> Arrived {
    match decode(message) {
        Decoded::Command(command) => Arrived::Command(Arc::new(command)),
        Decoded::Refused(refused) => Arrived::Refused(Arc::new(refused)),
        Decoded::Unreadable(failure) => panic!("{failure:?}"),
    }
}

fn arrival(message: &Message) -> Arrival {
    Arrival { message: arrived(message), received_at: Timestamp::now(), origin: Origin::Producer }
}

/// `+id` adds the account `a@test`, `-id` deletes it; `+id#7` with a revision.
fn command(text: &str) -> Message {
    let (sign, rest) = text.split_at(1);
    let (id, revision) = rest.split_once('#').map_or((rest, String::new()), |(id, revision)| (id, format!(r#","revision":{revision}"#)));
    let what = if sign == "+" { r#""action":"add","nickname":"n""# } else { r#""action":"delete""# };
    message(&format!(r#"{{"command_id":"{id}",{what},"kf_account":"a@test"{revision}}}"#))
}

async fn accept(ledger: &Ledger, text: &str) -> Acceptance {
    ledger.accept(vec![arrival(&command(text))]).await.unwrap().remove(0)
}

async fn ticket(ledger: &Ledger, text: &str) -> Ticket {
    match accept(ledger, text).await {
        Acceptance::Unfinished(ticket) => ticket,
        other => panic!("{text}: {other:?}"),
    }
}

async fn finish(ledger: &Ledger, text: &str, ticket: Ticket, effect: Effect) -> Finished {
    let Arrived::Command(command) = arrived(&command(text)) else { panic!("{text}") };
    let history = History { attempts: 1, received_at: ticket.received_at, finished_at: Timestamp::UNIX_EPOCH };
    let conclusion = conclude(&command.given, Identity::Generation(0), &Outcome::Succeeded(effect.into()), history);
    ledger.finish(ticket.position, conclusion, false).await.unwrap()
}

async fn begin(ledger: &Ledger, ticket: Ticket) -> Begun {
    match ledger.begin(ticket.position).await.unwrap() {
        Claim::Begun(begun) => begun,
        other => panic!("{other:?}"),
    }
}

fn waiting(answer_lost: bool) -> Waiting {
    Waiting { reason: Reason::SystemBusy, answer: Some(Answer { errcode: -1, errmsg: "busy".to_owned() }), answer_lost }
}

fn status(acceptance: &Acceptance) -> (Status, Option<Reason>) {
    match acceptance {
        Acceptance::Decided(finished) | Acceptance::Repeat(finished) => (finished.conclusion.status, finished.conclusion.reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn positions_follow_the_order_of_acceptance_and_stay() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let arrivals = ["+1", "-2", "+3"].map(|text| arrival(&command(text)));
    let accepted = ledger.accept(arrivals.into()).await.unwrap();
    let positions: Vec<Position> = accepted
        .iter()
        .map(|acceptance| match acceptance {
            Acceptance::Unfinished(ticket) => ticket.position,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(positions.is_sorted());
    drop(ledger);
    let ledger = fixture.open();
    assert_eq!(ticket(&ledger, "+3").await.position, positions[2]);
    assert_eq!(ticket(&ledger, "+1").await.position, positions[0]);
}

#[tokio::test]
async fn a_repeat_is_answered_byte_for_byte_also_after_a_restart() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let first = ticket(&ledger, "+1").await;
    begin(&ledger, first).await;
    let finished = finish(&ledger, "+1", first, Effect::Created).await;
    drop(ledger);
    let ledger = fixture.open();
    let Acceptance::Repeat(repeat) = accept(&ledger, "+1").await else { panic!() };
    assert_eq!(repeat.conclusion.data, finished.conclusion.data);
    assert_eq!(repeat.conclusion.event().unwrap().body, finished.conclusion.event().unwrap().body);
}

#[tokio::test]
async fn the_first_outcome_stands() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let first = ticket(&ledger, "+1").await;
    finish(&ledger, "+1", first, Effect::Created).await;
    let second = finish(&ledger, "+1", first, Effect::Unknown).await;
    assert!(second.conclusion.data.contains("created"));
}

#[tokio::test]
async fn an_id_with_other_content_changes_nothing() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    ticket(&ledger, "+1").await;
    assert!(matches!(accept(&ledger, "-1").await, Acceptance::Conflict));
    ticket(&ledger, "+1").await;
    let refused = message(r#"{"command_id":"r","action":"add"}"#);
    let accepted = ledger.accept(vec![arrival(&refused), arrival(&refused), arrival(&command("+r"))]).await.unwrap();
    assert!(matches!(accepted[..], [Acceptance::Decided(_), Acceptance::Repeat(_), Acceptance::Conflict]), "{accepted:?}");
}

#[tokio::test]
async fn one_account_begins_in_order_and_another_does_not_wait() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let (first, second) = (ticket(&ledger, "+1").await, ticket(&ledger, "-2").await);
    assert!(matches!(ledger.begin(second.position).await.unwrap(), Claim::Behind));
    let other = message(r#"{"command_id":"o","action":"delete","kf_account":"b@test"}"#);
    let Acceptance::Unfinished(other) = ledger.accept(vec![arrival(&other)]).await.unwrap().remove(0) else { panic!() };
    begin(&ledger, other).await;
    begin(&ledger, first).await;
    assert!(matches!(ledger.begin(second.position).await.unwrap(), Claim::Behind));
    finish(&ledger, "+1", first, Effect::Created).await;
    assert_eq!(begin(&ledger, second).await.attempts, 1);
}

#[tokio::test]
async fn a_delete_supersedes_an_add_that_waits() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    assert!(ledger.wait(add.position, waiting(false)).await.unwrap().is_none());
    let delete = ticket(&ledger, "-2").await;
    let superseded = ledger.check(add.position).await.unwrap().unwrap();
    assert_eq!((superseded.conclusion.status, superseded.conclusion.reason), (Status::Superseded, Some(Reason::NewerCommand)));
    assert!(superseded.conclusion.data.contains(r#""nickname":"n""#), "{}", superseded.conclusion.data);
    assert!(superseded.conclusion.data.contains(r#""errcode":-1"#), "{}", superseded.conclusion.data);
    assert_eq!(begin(&ledger, delete).await.attempts, 1);
}

/// What happened to the older of two commands before the newer one came.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Older {
    Accepted,
    InFlight,
    Waits,
    Died,
}

/// Ways in which a ledger can be led to the same end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Plain,
    /// The process ends in order and begins anew in between.
    Restarted,
    /// Every message comes twice, the newer one first.
    Doubled,
}

#[tokio::test]
async fn every_pair_of_commands_ends_as_the_rule_says_on_every_way() {
    for way in [Way::Plain, Way::Restarted, Way::Doubled] {
        for older in [Older::Accepted, Older::InFlight, Older::Waits, Older::Died] {
            for (first, second) in [("+1", "+2"), ("+1", "-2"), ("-1", "+2"), ("-1", "-2")] {
                let superseded = pair(first, older, second, way).await;
                // An orderly restart makes a call in flight one that waits.
                let stuck = matches!(older, Older::Waits | Older::Died) || (older == Older::InFlight && way == Way::Restarted);
                let expected = stuck && (first, second) != ("-1", "+2");
                assert_eq!(superseded, expected, "{first} {older:?}, then {second}, {way:?}");
            }
        }
    }
}

/// Plays one pair and answers whether the newer command superseded the older one.
async fn pair(first: &str, older: Older, second: &str, way: Way) -> bool {
    let fixture = Fixture::new();
    let mut ledger = fixture.open();
    let one = ticket(&ledger, first).await;
    if older != Older::Accepted {
        begin(&ledger, one).await;
    }
    if older == Older::Waits {
        ledger.wait(one.position, waiting(false)).await.unwrap();
    }
    if older == Older::Died {
        drop(ledger);
        ledger = fixture.open();
    }
    let two = ticket(&ledger, second).await;
    match way {
        Way::Plain => {}
        Way::Restarted => {
            ledger.release().await.unwrap();
            drop(ledger);
            ledger = fixture.open();
        }
        Way::Doubled => {
            assert_eq!(ticket(&ledger, second).await.position, two.position);
        }
    }
    // The older command comes (again), as it does after a restart and as a second copy.
    let superseded = match accept(&ledger, first).await {
        Acceptance::Unfinished(again) => {
            assert_eq!(again.position, one.position);
            false
        }
        repeat => {
            assert_eq!(status(&repeat), (Status::Superseded, Some(Reason::NewerCommand)));
            true
        }
    };
    // The newer one goes exactly where nothing older is left.
    assert_eq!(matches!(ledger.begin(two.position).await.unwrap(), Claim::Begun(_)), superseded);
    superseded
}

#[tokio::test]
async fn what_queued_behind_a_call_supersedes_it_once_it_waits_and_an_add_never_supersedes_a_delete() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let first = ticket(&ledger, "-1").await;
    begin(&ledger, first).await;
    let (second, third) = (ticket(&ledger, "+2").await, ticket(&ledger, "+3").await);
    assert!(ledger.check(second.position).await.unwrap().is_none());
    assert!(ledger.wait(first.position, waiting(false)).await.unwrap().is_none());
    assert!(ledger.check(first.position).await.unwrap().is_none());
    assert!(ledger.check(second.position).await.unwrap().is_some());
    assert!(matches!(ledger.begin(third.position).await.unwrap(), Claim::Behind));
}

#[tokio::test]
async fn a_call_of_a_worker_that_died_has_an_unknown_outcome_and_may_be_superseded() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    drop(ledger);
    let ledger = fixture.open();
    let again = begin(&ledger, ticket(&ledger, "+1").await).await;
    assert_eq!((again.attempts, again.answer_lost_before), (2, true));
    drop(ledger);
    let ledger = fixture.open();
    let delete = ticket(&ledger, "-2").await;
    assert_eq!(status(&accept(&ledger, "+1").await), (Status::Superseded, Some(Reason::NewerCommand)));
    assert!(begin(&ledger, delete).await.lost_add_at.is_some(), "the add may still land");
}

#[tokio::test]
async fn a_lost_answer_of_an_add_is_remembered_for_the_delete() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    let before = Timestamp::now();
    begin(&ledger, add).await;
    ledger.wait(add.position, waiting(true)).await.unwrap();
    assert!(begin(&ledger, add).await.answer_lost_before);
    finish(&ledger, "+1", add, Effect::Unknown).await;
    let lost_at = begin(&ledger, ticket(&ledger, "-2").await).await.lost_add_at.unwrap();
    assert!(lost_at.as_millisecond() >= before.as_millisecond());
}

#[tokio::test]
async fn the_time_of_a_trouble_counts_from_when_it_began() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    ledger.wait(add.position, waiting(false)).await.unwrap();
    let (reason, since) = ticket(&ledger, "+1").await.trouble.unwrap();
    assert_eq!(reason, Reason::SystemBusy);
    begin(&ledger, add).await;
    ledger.wait(add.position, waiting(false)).await.unwrap();
    assert_eq!(ticket(&ledger, "+1").await.trouble, Some((reason, since)));
}

#[tokio::test]
async fn revisions_are_the_producers_order() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    ticket(&ledger, "+1#5").await;
    assert_eq!(status(&accept(&ledger, "-2#5").await), (Status::Superseded, Some(Reason::StaleRevision)));
    assert_eq!(status(&accept(&ledger, "-3#4").await), (Status::Superseded, Some(Reason::StaleRevision)));
    assert_eq!(status(&accept(&ledger, "+4").await), (Status::Rejected, Some(Reason::RevisionRequired)));
    ticket(&ledger, "-5").await;
    ticket(&ledger, "+6#6").await;
    ticket(&ledger, "+1#5").await;
    assert_eq!(status(&accept(&ledger, "+7#6").await).1, Some(Reason::StaleRevision));
}

#[tokio::test]
async fn an_unseen_add_sent_before_the_last_delete_is_superseded() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let sent = |text: &str, timestamp: u64| Message { timestamp: Some(timestamp), ..command(text) };
    let accepted = ledger
        .accept(vec![
            arrival(&sent("-1", 1_000)),
            arrival(&sent("+2", 999)),
            // The same second proves nothing, and what was sent after the delete is newer, however long both waited.
            arrival(&sent("+3", 1_000)),
            arrival(&sent("+4", 1_001)),
            arrival(&command("+5")),
        ])
        .await
        .unwrap();
    assert_eq!(status(&accepted[1]), (Status::Superseded, Some(Reason::SentBeforeDelete)));
    for acceptance in &accepted[2..] {
        assert!(matches!(acceptance, Acceptance::Unfinished(_)), "{acceptance:?}");
    }
}

#[tokio::test]
async fn a_put_off_copy_that_is_not_known_is_lost() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let copy = |text: &str| Arrival { origin: Origin::PutOff, ..arrival(&command(text)) };
    assert!(matches!(ledger.accept(vec![copy("+1")]).await.unwrap()[0], Acceptance::LedgerLost));
    ticket(&ledger, "+1").await;
    assert!(matches!(ledger.accept(vec![copy("+1")]).await.unwrap()[0], Acceptance::Unfinished(_)));
    assert!(matches!(ledger.accept(vec![copy("-1")]).await.unwrap()[0], Acceptance::LedgerLost), "other content is no copy");
}

/// Ends a command as failed, as the worker does after a refusal of WeChat's.
async fn fail(ledger: &Ledger, text: &str, ticket: Ticket) -> Finished {
    let Arrived::Command(command) = arrived(&command(text)) else { panic!("{text}") };
    let history = History { attempts: ticket.attempts, received_at: ticket.received_at, finished_at: Timestamp::UNIX_EPOCH };
    let outcome = Outcome::Failed(crate::outcome::Failure::new(Reason::NicknameRefused, "no"));
    let conclusion = conclude(&command.given, Identity::Generation(ticket.generation), &outcome, history);
    ledger.finish(ticket.position, conclusion, true).await.unwrap()
}

async fn replay(ledger: &Ledger, text: &str, generation: u32) -> Acceptance {
    let replayed = Arrival { origin: Origin::Replay(generation), ..arrival(&command(text)) };
    ledger.accept(vec![replayed]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_replay_is_the_next_generation_in_the_first_position_and_the_same_dead_letter_makes_one() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let first = ticket(&ledger, "+1").await;
    begin(&ledger, first).await;
    let failed = fail(&ledger, "+1", first).await;
    assert!(failed.dead_letter_owed);
    let Acceptance::Unfinished(again) = replay(&ledger, "+1", 0).await else { panic!() };
    assert_eq!((again.position, again.generation, again.attempts, again.attempts_before), (first.position, 1, 1, 1));
    let Acceptance::Unfinished(once_more) = replay(&ledger, "+1", 0).await else { panic!() };
    assert_eq!(once_more.generation, 1, "a second copy of the same dead letter");
    assert_eq!(begin(&ledger, again).await.attempts, 2);
    fail(&ledger, "+1", again).await;
    assert_eq!(status(&replay(&ledger, "+1", 0).await).0, Status::Failed, "an old dead letter only repeats");
    let Acceptance::Unfinished(third) = replay(&ledger, "+1", 1).await else { panic!() };
    assert_eq!(third.generation, 2);
}

#[tokio::test]
async fn a_replay_gives_way_to_what_was_accepted_since_and_needs_a_failed_command() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let first = ticket(&ledger, "+1").await;
    fail(&ledger, "+1", first).await;
    let second = ticket(&ledger, "-2").await;
    finish(&ledger, "-2", second, Effect::Deleted).await;
    let Acceptance::Decided(superseded) = replay(&ledger, "+1", 0).await else { panic!() };
    assert_eq!(superseded.conclusion.reason, Some(Reason::NewerCommand));
    assert!(superseded.conclusion.event().unwrap().id.ends_with("/result/1"));
    assert_eq!(status(&replay(&ledger, "-2", 0).await).0, Status::Succeeded, "a success is only repeated");
    assert!(matches!(replay(&ledger, "+9", 0).await, Acceptance::LedgerLost), "an unknown one is not carried out");
}

#[tokio::test]
async fn a_command_that_was_alone_under_way_at_three_deaths_is_poison() {
    let fixture = Fixture::new();
    for death in 0..MOST_DEATHS {
        let ledger = fixture.open();
        let suspect = ticket(&ledger, "+1").await;
        assert_eq!(suspect.suspect, death > 0);
        begin(&ledger, suspect).await;
    }
    let ledger = fixture.open();
    let poison = ticket(&ledger, "+1").await;
    let Claim::Finished(finished) = ledger.begin(poison.position).await.unwrap() else { panic!() };
    assert_eq!((finished.conclusion.status, finished.conclusion.reason), (Status::Failed, Some(Reason::Poison)));
    assert!(finished.dead_letter_owed);
}

#[tokio::test]
async fn orderly_ends_company_and_survived_attempts_make_no_poison() {
    let fixture = Fixture::new();
    let other = message(r#"{"command_id":"o","action":"delete","kf_account":"b@test"}"#);
    for _ in 0..2 * MOST_DEATHS {
        let ledger = fixture.open();
        let first = ticket(&ledger, "+1").await;
        begin(&ledger, first).await;
        ledger.release().await.unwrap();
        drop(ledger);

        let ledger = fixture.open();
        let first = ticket(&ledger, "+1").await;
        assert!(!first.suspect, "an orderly end makes no suspect");
        let Acceptance::Unfinished(second) = ledger.accept(vec![arrival(&other)]).await.unwrap().remove(0) else { panic!() };
        begin(&ledger, first).await;
        begin(&ledger, second).await;
        drop(ledger);

        let ledger = fixture.open();
        assert!(ticket(&ledger, "+1").await.suspect);
        begin(&ledger, first).await;
        ledger.wait(first.position, waiting(false)).await.unwrap();
        assert!(!ticket(&ledger, "+1").await.suspect, "it was tried and nobody died");
        begin(&ledger, second).await;
        ledger.wait(second.position, waiting(false)).await.unwrap();
    }
}

#[tokio::test]
async fn a_ledger_that_was_deleted_under_the_worker_takes_nothing_more() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    ticket(&ledger, "+1").await;
    std::fs::remove_file(fixture.settings().path).unwrap();
    assert!(matches!(ledger.accept(vec![arrival(&command("+2"))]).await, Err(LedgerError::Gone)));
    assert!(matches!(ledger.probe().await, Err(LedgerError::Gone)));
}

#[tokio::test]
async fn a_command_whose_message_is_lost_holds_nobody_up() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    ticket(&ledger, "+1").await;
    drop(ledger);
    let ledger = fixture.reopen(&Settings { patience: Duration::from_millis(1), ..fixture.settings() });
    let Acceptance::Unfinished(second) = accept(&ledger, "-2").await else { panic!() };
    // The second command, just accepted, is seen within any patience; the first one falls out of it as time goes by.
    while matches!(ledger.begin(second.position).await.unwrap(), Claim::Behind) {}
}

#[tokio::test]
async fn what_is_past_its_retention_is_forgotten_but_not_the_accounts_latest_state() {
    let fixture = Fixture::new();
    let ledger = fixture.reopen(&Settings { retention: Duration::from_millis(1), ..fixture.settings() });
    let first = ticket(&ledger, "+1#3").await;
    let kept = ticket(&ledger, "+2#4").await;
    finish(&ledger, "+1#3", first, Effect::Created).await;
    assert_eq!(ledger.prune().await.unwrap(), 1);
    assert_eq!(ledger.prune().await.unwrap(), 0);
    assert_eq!(ticket(&ledger, "+2#4").await.position, kept.position);
    assert_eq!(status(&accept(&ledger, "+1#3").await), (Status::Superseded, Some(Reason::StaleRevision)));
}

#[tokio::test]
async fn a_second_process_is_refused_and_a_reader_is_not() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    assert!(matches!(Ledger::open(&fixture.settings()), Err(OpenError::InUse(_))));
    let first = ticket(&ledger, "+1").await;
    let reader = Reader::open(&fixture.settings().path).unwrap();
    assert!(matches!(reader.find("1").unwrap(), Lookup::Unfinished));
    assert!(matches!(reader.find("2").unwrap(), Lookup::Unknown));
    finish(&ledger, "+1", first, Effect::Created).await;
    let Lookup::Finished(found) = reader.find("1").unwrap() else { panic!() };
    assert_eq!(found.conclusion.status, Status::Succeeded);
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_refused() {
    let fixture = Fixture::new();
    std::fs::write(fixture.settings().path, "this is no database, and long enough to be looked at as one".repeat(20)).unwrap();
    assert!(matches!(Ledger::open(&fixture.settings()), Err(OpenError::Database { .. })));
    let nowhere = Settings { path: fixture.folder.path().join("no/such/folder/ledger.db"), ..fixture.settings() };
    assert!(matches!(Ledger::open(&nowhere), Err(OpenError::File { .. })));
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let ledger = fixture.open();
    ticket(&ledger, "+1").await;
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = std::fs::metadata(fixture.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} {mode:o}");
    }
}

#[test]
fn sqlite_is_one_without_the_wal_reset_bug() {
    // 3.7.0 to 3.51.2 can damage a WAL database when a second connection writes during a checkpoint.
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[tokio::test]
async fn pauses_and_tokens_outlive_the_process_and_give_way_to_newer_ones() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let now = crate::event::now();
    let answer = Some(Answer { errcode: 45009, errmsg: "quota rid: a-b-c".to_owned() });
    let failure = Failure { reason: Reason::DayQuota, answer, detail: "used up".to_owned() };
    let pause = KeptPause { wechat_id: "test".to_owned(), scope: Scope::Adds, since: now, until: now, failure };
    let later = KeptPause { until: now.checked_add(DAY).unwrap(), ..pause.clone() };
    let other = KeptPause { scope: Scope::Deletes, ..pause.clone() };
    for kept in [&pause, &later, &other] {
        ledger.keep_pause(kept.clone()).await.unwrap();
    }
    let token = StoredToken {
        owner: "test".to_owned(),
        origin: vec![1, 2],
        access_token: Secret::from("T1".to_owned()),
        ends_at: now,
        refresh_token: Some(Secret::from("R1".to_owned())),
    };
    let newer = StoredToken { access_token: Secret::from("T2".to_owned()), ..token.clone() };
    ledger.save_token(token).await.unwrap();
    ledger.save_token(newer.clone()).await.unwrap();
    drop(ledger);
    let ledger = fixture.open();
    assert_eq!(ledger.pauses().await.unwrap(), [later, other.clone()]);
    assert_eq!(ledger.token("test".to_owned()).await.unwrap(), Some(newer));
    assert_eq!(ledger.token("nobody".to_owned()).await.unwrap(), None);
    ledger.forget_pause("test".to_owned(), Scope::Adds).await.unwrap();
    assert_eq!(ledger.pauses().await.unwrap(), [other]);
}

#[tokio::test]
async fn what_an_account_should_be_is_what_its_latest_command_asked_for() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let wanted = async || ledger.wanted("test".to_owned()).await.unwrap();
    assert_eq!(wanted().await, []);
    let add = ticket(&ledger, "+1").await;
    let unfinished = wanted().await.remove(0);
    assert_eq!((unfinished.action, unfinished.nickname.as_deref(), unfinished.unfinished), (Action::Add, Some("n"), true));
    begin(&ledger, add).await;
    finish(&ledger, "+1", add, Effect::Created).await;
    let finished = wanted().await.remove(0);
    assert_eq!((finished.kf_account.as_str(), finished.nickname.as_deref(), finished.unfinished), ("a@test", Some("n"), false));
    ticket(&ledger, "-2").await;
    assert_eq!(wanted().await[0].action, Action::Delete);
    assert_eq!(ledger.wanted("est".to_owned()).await.unwrap(), [], "an account of another Official Account is none of this one's");
}

fn waits_for(reason: Reason) -> Waiting {
    Waiting { reason, answer: None, answer_lost: false }
}

#[tokio::test]
async fn the_time_to_wait_for_room_goes_on_while_the_worker_makes_the_add_wait_for_something_else() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    ledger.wait(add.position, waits_for(Reason::AccountLimitReached)).await.unwrap();
    let full = ticket(&ledger, "+1").await.trouble;
    for ours in [Reason::RateLimited, Reason::WindowShare, Reason::HeldTooLong] {
        ledger.wait(add.position, waits_for(ours)).await.unwrap();
        assert_eq!(ticket(&ledger, "+1").await.trouble, full, "{ours}");
    }
    ledger.wait(add.position, waits_for(Reason::DayQuota)).await.unwrap();
    assert_eq!(ticket(&ledger, "+1").await.trouble.unwrap().0, Reason::DayQuota);
}

#[tokio::test]
async fn a_wait_without_an_attempt_does_not_clear_the_suspicion() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    drop(ledger);
    let ledger = fixture.open();
    assert!(ticket(&ledger, "+1").await.suspect, "it was under way when the process died");
    ledger.wait(add.position, waits_for(Reason::RateLimited)).await.unwrap();
    assert!(ticket(&ledger, "+1").await.suspect);
    begin(&ledger, add).await;
    ledger.wait(add.position, waits_for(Reason::SystemBusy)).await.unwrap();
    assert!(!ticket(&ledger, "+1").await.suspect, "its attempt has ended");
}

#[tokio::test]
async fn what_is_in_flight_stays_so_when_another_delivery_of_it_is_put_off() {
    let fixture = Fixture::new();
    let ledger = fixture.open();
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    assert!(ledger.wait(add.position, waits_for(Reason::WindowShare)).await.unwrap().is_none());
    ticket(&ledger, "-2").await;
    assert!(ledger.check(add.position).await.unwrap().is_none(), "a call in flight is not superseded");
}
