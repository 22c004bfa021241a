//! The ledger's contract, held against real databases: every promise once for each of them, also across a restart.

mod fleet;
mod sqlite_file;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;

use super::*;
use crate::command::{Decoded, Message, decode};
use crate::event::{History, Identity, conclude};
use crate::outcome::{Effect, Outcome, Status};

// Shared with the integration tests, which see the library from outside only: what these tests hold against a server is not
// public, and a server of their own is started, found and cleaned up in one way for both.
#[path = "../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "the integration tests use the rest of it")]
mod private_postgres;

use private_postgres::{Database, OwnServer, Pooler};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a test waits for anything before it fails.
const DEADLINE: Duration = Duration::from_secs(45);

/// A ledger's own place, in which it can be closed and opened again.
enum Fixture {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

/// An open ledger, with the claims that were made through it.
struct Opened {
    ledger: Ledger,
    claims: RefCell<HashMap<Position, Epoch>>,
}

impl Fixture {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        Self::Postgres(private_postgres::database())
    }

    /// Forgets all commands and accounts; nobody has it open.
    fn empty(&mut self) {
        match self {
            Self::Sqlite(_) => *self = Self::sqlite(),
            Self::Postgres(database) => database.execute("TRUNCATE kf_worker.command, kf_worker.account"),
        }
    }

    /// A claim has run out as soon as it is made, so that a worker which was closed is found dead at once.
    fn settings(&self) -> Settings {
        let place = match self {
            Self::Sqlite(folder) => Place::Sqlite(folder.path().join("ledger.db")),
            Self::Postgres(database) => Place::parse(database.url()).unwrap(),
        };
        Settings { place, retention: DAY, patience: DAY, lease: Duration::ZERO }
    }

    async fn open(&self) -> Opened {
        self.reopen(&self.settings()).await
    }

    /// Opens it as the next process would, once the last one has let go.
    async fn reopen(&self, settings: &Settings) -> Opened {
        let let_go = async {
            loop {
                match Ledger::open(settings).await {
                    Ok(ledger) => return Opened { ledger, claims: RefCell::default() },
                    Err(OpenError::Sqlite(sqlite::OpenError::InUse(_))) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, let_go).await.expect("nobody has it open")
    }
}

impl Deref for Opened {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl Opened {
    async fn begin(&self, position: Position) -> Result<Claim, LedgerError> {
        let claim = self.ledger.begin(position, true).await?;
        if let Claim::Begun(begun) = &claim {
            self.claims.borrow_mut().insert(position, begun.epoch);
        }
        Ok(claim)
    }

    /// Records a wait with the claim that was made before it, if there was one.
    async fn wait(&self, position: Position, waiting: Waiting) -> Result<Option<Finished>, LedgerError> {
        let claim = self.claims.borrow_mut().remove(&position);
        let recorded = self.ledger.wait(position, Waiting { claim, ..waiting }).await?;
        assert_eq!(recorded.ending, Ending::Ours);
        Ok(recorded.finished)
    }

    /// Records an outcome, likewise.
    async fn finish(&self, position: Position, conclusion: Conclusion, dead_letter: bool) -> Result<Finished, LedgerError> {
        let claim = self.claims.borrow_mut().remove(&position);
        let recorded = self.ledger.finish(position, claim, conclusion, dead_letter).await?;
        Ok(recorded.finished.unwrap())
    }
}

/// Makes a test for each database of each function.
macro_rules! for_every_database {
    ($($name:ident,)+) => {
        mod sqlite_ledger {
            $(#[tokio::test] async fn $name() { super::$name(super::Fixture::sqlite()).await; })+
        }
        mod postgres_ledger {
            $(#[tokio::test] async fn $name() { super::$name(super::Fixture::postgres()).await; })+
        }
    };
}

for_every_database! {
    positions_follow_the_order_of_acceptance_and_stay,
    a_repeat_is_answered_byte_for_byte_also_after_a_restart,
    the_first_outcome_stands,
    an_id_with_other_content_changes_nothing,
    one_account_begins_in_order_and_another_does_not_wait,
    a_delete_supersedes_an_add_that_waits,
    every_pair_of_commands_ends_as_the_rule_says_on_every_way,
    what_queued_behind_a_call_supersedes_it_once_it_waits_and_an_add_never_supersedes_a_delete,
    a_call_of_a_worker_that_died_has_an_unknown_outcome_and_may_be_superseded,
    a_lost_answer_of_an_add_is_remembered_for_the_delete,
    the_time_of_a_trouble_counts_from_when_it_began,
    revisions_are_the_producers_order,
    an_unseen_add_sent_before_the_last_delete_is_superseded,
    a_put_off_copy_that_is_not_known_is_lost,
    a_replay_is_the_next_generation_in_the_first_position_and_the_same_dead_letter_makes_one,
    a_replay_gives_way_to_what_was_accepted_since_and_needs_a_failed_command,
    a_command_under_way_at_three_deaths_and_alone_at_the_last_two_is_poison,
    orderly_ends_company_and_survived_attempts_make_no_poison,
    a_command_whose_message_is_lost_holds_nobody_up,
    what_is_past_its_retention_is_forgotten_but_not_the_accounts_latest_state,
    pauses_and_tokens_outlive_the_process_and_give_way_to_newer_ones,
    what_an_account_should_be_is_what_its_latest_command_asked_for,
    the_time_to_wait_for_room_goes_on_while_the_worker_makes_the_add_wait_for_something_else,
    a_wait_without_an_attempt_does_not_clear_the_suspicion,
    what_is_in_flight_stays_so_when_another_delivery_of_it_is_put_off,
    a_call_whose_end_could_not_be_recorded_holds_up_no_offboarding,
    what_was_under_way_at_a_death_begins_alone,
    a_command_that_panics_before_it_begins_is_poison_in_the_end,
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

async fn accept(ledger: &Opened, text: &str) -> Acceptance {
    ledger.accept(vec![arrival(&command(text))]).await.unwrap().remove(0)
}

async fn ticket(ledger: &Opened, text: &str) -> Ticket {
    match accept(ledger, text).await {
        Acceptance::Unfinished(ticket) => ticket,
        other => panic!("{text}: {other:?}"),
    }
}

async fn finish(ledger: &Opened, text: &str, ticket: Ticket, effect: Effect) -> Finished {
    let Arrived::Command(command) = arrived(&command(text)) else { panic!("{text}") };
    let history = History { attempts: 1, received_at: ticket.received_at, finished_at: Timestamp::UNIX_EPOCH };
    let conclusion = conclude(&command.given, Identity::Generation(0), &Outcome::Succeeded(effect.into()), history);
    ledger.finish(ticket.position, conclusion, false).await.unwrap()
}

async fn begin(ledger: &Opened, ticket: Ticket) -> Begun {
    match ledger.begin(ticket.position).await.unwrap() {
        Claim::Begun(begun) => begun,
        other => panic!("{other:?}"),
    }
}

fn waiting(answer_lost: bool) -> Waiting {
    Waiting {
        reason: Reason::SystemBusy,
        answer: Some(Answer { errcode: -1, errmsg: "busy".to_owned() }),
        answer_lost,
        claim: None,
        called: true,
    }
}

fn status(acceptance: &Acceptance) -> (Status, Option<Reason>) {
    match acceptance {
        Acceptance::Decided(finished) | Acceptance::Repeat(finished) => (finished.conclusion.status, finished.conclusion.reason),
        other => panic!("{other:?}"),
    }
}

async fn positions_follow_the_order_of_acceptance_and_stay(fixture: Fixture) {
    let ledger = fixture.open().await;
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
    let ledger = fixture.open().await;
    assert_eq!(ticket(&ledger, "+3").await.position, positions[2]);
    assert_eq!(ticket(&ledger, "+1").await.position, positions[0]);
}

async fn a_repeat_is_answered_byte_for_byte_also_after_a_restart(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    begin(&ledger, first).await;
    let finished = finish(&ledger, "+1", first, Effect::Created).await;
    drop(ledger);
    let ledger = fixture.open().await;
    let Acceptance::Repeat(repeat) = accept(&ledger, "+1").await else { panic!() };
    assert_eq!(repeat.conclusion.data, finished.conclusion.data);
    assert_eq!(repeat.conclusion.event().unwrap().body, finished.conclusion.event().unwrap().body);
}

async fn the_first_outcome_stands(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    finish(&ledger, "+1", first, Effect::Created).await;
    let second = finish(&ledger, "+1", first, Effect::Unknown).await;
    assert!(second.conclusion.data.contains("created"));
}

async fn an_id_with_other_content_changes_nothing(fixture: Fixture) {
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    assert!(matches!(accept(&ledger, "-1").await, Acceptance::Conflict));
    ticket(&ledger, "+1").await;
    let refused = message(r#"{"command_id":"r","action":"add"}"#);
    let accepted = ledger.accept(vec![arrival(&refused), arrival(&refused), arrival(&command("+r"))]).await.unwrap();
    assert!(matches!(accepted[..], [Acceptance::Decided(_), Acceptance::Repeat(_), Acceptance::Conflict]), "{accepted:?}");
}

async fn one_account_begins_in_order_and_another_does_not_wait(fixture: Fixture) {
    let ledger = fixture.open().await;
    let (first, second) = (ticket(&ledger, "+1").await, ticket(&ledger, "-2").await);
    assert!(matches!(ledger.begin(second.position).await.unwrap(), Claim::Not(Obstacle::Behind)));
    let other = message(r#"{"command_id":"o","action":"delete","kf_account":"b@test"}"#);
    let Acceptance::Unfinished(other) = ledger.accept(vec![arrival(&other)]).await.unwrap().remove(0) else { panic!() };
    begin(&ledger, other).await;
    begin(&ledger, first).await;
    assert!(matches!(ledger.begin(second.position).await.unwrap(), Claim::Not(Obstacle::Behind)));
    finish(&ledger, "+1", first, Effect::Created).await;
    assert_eq!(begin(&ledger, second).await.attempts, 1);
}

async fn a_delete_supersedes_an_add_that_waits(fixture: Fixture) {
    let ledger = fixture.open().await;
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

async fn every_pair_of_commands_ends_as_the_rule_says_on_every_way(mut fixture: Fixture) {
    drop(fixture.open().await);
    for way in [Way::Plain, Way::Restarted, Way::Doubled] {
        for older in [Older::Accepted, Older::InFlight, Older::Waits, Older::Died] {
            for (first, second) in [("+1", "+2"), ("+1", "-2"), ("-1", "+2"), ("-1", "-2")] {
                fixture.empty();
                let superseded = pair(&fixture, first, older, second, way).await;
                // An orderly restart makes a call in flight one that waits.
                let stuck = matches!(older, Older::Waits | Older::Died) || (older == Older::InFlight && way == Way::Restarted);
                let expected = stuck && (first, second) != ("-1", "+2");
                assert_eq!(superseded, expected, "{first} {older:?}, then {second}, {way:?}");
            }
        }
    }
}

/// Plays one pair and answers whether the newer command superseded the older one.
async fn pair(fixture: &Fixture, first: &str, older: Older, second: &str, way: Way) -> bool {
    let mut ledger = fixture.open().await;
    let one = ticket(&ledger, first).await;
    if older != Older::Accepted {
        begin(&ledger, one).await;
    }
    if older == Older::Waits {
        ledger.wait(one.position, waiting(false)).await.unwrap();
    }
    if older == Older::Died {
        drop(ledger);
        ledger = fixture.open().await;
    }
    let two = ticket(&ledger, second).await;
    match way {
        Way::Plain => {}
        Way::Restarted => {
            ledger.release().await.unwrap();
            drop(ledger);
            ledger = fixture.open().await;
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

async fn what_queued_behind_a_call_supersedes_it_once_it_waits_and_an_add_never_supersedes_a_delete(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "-1").await;
    begin(&ledger, first).await;
    let (second, third) = (ticket(&ledger, "+2").await, ticket(&ledger, "+3").await);
    assert!(ledger.check(second.position).await.unwrap().is_none());
    assert!(ledger.wait(first.position, waiting(false)).await.unwrap().is_none());
    assert!(ledger.check(first.position).await.unwrap().is_none());
    assert!(ledger.check(second.position).await.unwrap().is_some());
    assert!(matches!(ledger.begin(third.position).await.unwrap(), Claim::Not(Obstacle::Behind)));
}

async fn a_call_of_a_worker_that_died_has_an_unknown_outcome_and_may_be_superseded(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    drop(ledger);
    let ledger = fixture.open().await;
    let again = begin(&ledger, ticket(&ledger, "+1").await).await;
    assert_eq!((again.attempts, again.answer_lost_before), (2, true));
    drop(ledger);
    let ledger = fixture.open().await;
    let delete = ticket(&ledger, "-2").await;
    assert_eq!(status(&accept(&ledger, "+1").await), (Status::Superseded, Some(Reason::NewerCommand)));
    assert!(begin(&ledger, delete).await.lost_add_ago.is_some(), "the add may still land");
}

async fn a_lost_answer_of_an_add_is_remembered_for_the_delete(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    ledger.wait(add.position, waiting(true)).await.unwrap();
    assert!(begin(&ledger, add).await.answer_lost_before);
    finish(&ledger, "+1", add, Effect::Unknown).await;
    let lost_ago = begin(&ledger, ticket(&ledger, "-2").await).await.lost_add_ago.unwrap();
    assert!(lost_ago < Duration::from_secs(60), "{lost_ago:?}");
}

async fn the_time_of_a_trouble_counts_from_when_it_began(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    ledger.wait(add.position, waiting(false)).await.unwrap();
    let (reason, since) = ticket(&ledger, "+1").await.trouble.unwrap();
    assert_eq!(reason, Reason::SystemBusy);
    begin(&ledger, add).await;
    ledger.wait(add.position, waiting(false)).await.unwrap();
    assert_eq!(ticket(&ledger, "+1").await.trouble, Some((reason, since)));
}

async fn revisions_are_the_producers_order(fixture: Fixture) {
    let ledger = fixture.open().await;
    ticket(&ledger, "+1#5").await;
    assert_eq!(status(&accept(&ledger, "-2#5").await), (Status::Superseded, Some(Reason::StaleRevision)));
    assert_eq!(status(&accept(&ledger, "-3#4").await), (Status::Superseded, Some(Reason::StaleRevision)));
    assert_eq!(status(&accept(&ledger, "+4").await), (Status::Rejected, Some(Reason::RevisionRequired)));
    ticket(&ledger, "-5").await;
    ticket(&ledger, "+6#6").await;
    ticket(&ledger, "+1#5").await;
    assert_eq!(status(&accept(&ledger, "+7#6").await).1, Some(Reason::StaleRevision));
}

async fn an_unseen_add_sent_before_the_last_delete_is_superseded(fixture: Fixture) {
    let ledger = fixture.open().await;
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

async fn a_put_off_copy_that_is_not_known_is_lost(fixture: Fixture) {
    let ledger = fixture.open().await;
    let copy = |text: &str| Arrival { origin: Origin::PutOff, ..arrival(&command(text)) };
    assert!(matches!(ledger.accept(vec![copy("+1")]).await.unwrap()[0], Acceptance::LedgerLost));
    ticket(&ledger, "+1").await;
    assert!(matches!(ledger.accept(vec![copy("+1")]).await.unwrap()[0], Acceptance::Unfinished(_)));
    assert!(matches!(ledger.accept(vec![copy("-1")]).await.unwrap()[0], Acceptance::LedgerLost), "other content is no copy");
}

/// Ends a command as failed, as the worker does after a refusal of WeChat's.
async fn fail(ledger: &Opened, text: &str, ticket: Ticket) -> Finished {
    let Arrived::Command(command) = arrived(&command(text)) else { panic!("{text}") };
    let history = History { attempts: ticket.attempts, received_at: ticket.received_at, finished_at: Timestamp::UNIX_EPOCH };
    let outcome = Outcome::Failed(crate::outcome::Failure::new(Reason::NicknameRefused, "no"));
    let conclusion = conclude(&command.given, Identity::Generation(ticket.generation), &outcome, history);
    ledger.finish(ticket.position, conclusion, true).await.unwrap()
}

async fn replay(ledger: &Opened, text: &str, generation: u32) -> Acceptance {
    let replayed = Arrival { origin: Origin::Replay(generation), ..arrival(&command(text)) };
    ledger.accept(vec![replayed]).await.unwrap().remove(0)
}

async fn a_replay_is_the_next_generation_in_the_first_position_and_the_same_dead_letter_makes_one(fixture: Fixture) {
    let ledger = fixture.open().await;
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

async fn a_replay_gives_way_to_what_was_accepted_since_and_needs_a_failed_command(fixture: Fixture) {
    let ledger = fixture.open().await;
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

async fn a_command_under_way_at_three_deaths_and_alone_at_the_last_two_is_poison(fixture: Fixture) {
    for death in 0..=MOST_DEATHS {
        let ledger = fixture.open().await;
        let suspect = ticket(&ledger, "+1").await;
        assert_eq!(suspect.suspect, death > 0);
        begin(&ledger, suspect).await;
    }
    let ledger = fixture.open().await;
    let poison = ticket(&ledger, "+1").await;
    let Claim::Not(Obstacle::Finished(finished)) = ledger.begin(poison.position).await.unwrap() else { panic!() };
    assert_eq!((finished.conclusion.status, finished.conclusion.reason), (Status::Failed, Some(Reason::Poison)));
    assert!(finished.dead_letter_owed);
}

async fn orderly_ends_company_and_survived_attempts_make_no_poison(fixture: Fixture) {
    let other = message(r#"{"command_id":"o","action":"delete","kf_account":"b@test"}"#);
    for _ in 0..2 * MOST_DEATHS {
        let ledger = fixture.open().await;
        let first = ticket(&ledger, "+1").await;
        begin(&ledger, first).await;
        ledger.release().await.unwrap();
        drop(ledger);

        let ledger = fixture.open().await;
        let first = ticket(&ledger, "+1").await;
        assert!(!first.suspect, "an orderly end makes no suspect");
        let Acceptance::Unfinished(second) = ledger.accept(vec![arrival(&other)]).await.unwrap().remove(0) else { panic!() };
        begin(&ledger, first).await;
        begin(&ledger, second).await;
        drop(ledger);

        let ledger = fixture.open().await;
        assert!(ticket(&ledger, "+1").await.suspect);
        begin(&ledger, first).await;
        ledger.wait(first.position, waiting(false)).await.unwrap();
        assert!(!ticket(&ledger, "+1").await.suspect, "it was tried and nobody died");
        begin(&ledger, second).await;
        ledger.wait(second.position, waiting(false)).await.unwrap();
    }
}

async fn a_command_whose_message_is_lost_holds_nobody_up(fixture: Fixture) {
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    drop(ledger);
    let ledger = fixture.reopen(&Settings { patience: Duration::from_millis(1), ..fixture.settings() }).await;
    let Acceptance::Unfinished(second) = accept(&ledger, "-2").await else { panic!() };
    // The second command, just accepted, is seen within any patience; the first one falls out of it as time goes by.
    let begins = async { while matches!(ledger.begin(second.position).await.unwrap(), Claim::Not(Obstacle::Behind)) {} };
    tokio::time::timeout(DEADLINE, begins).await.expect("it begins");
}

async fn what_is_past_its_retention_is_forgotten_but_not_the_accounts_latest_state(fixture: Fixture) {
    let ledger = fixture.reopen(&Settings { retention: Duration::from_millis(1), ..fixture.settings() }).await;
    let first = ticket(&ledger, "+1#3").await;
    let kept = ticket(&ledger, "+2#4").await;
    finish(&ledger, "+1#3", first, Effect::Created).await;
    assert_eq!(ledger.prune_all(|_| {}).await.unwrap(), 1);
    assert_eq!(ledger.prune_all(|_| {}).await.unwrap(), 0);
    assert_eq!(ticket(&ledger, "+2#4").await.position, kept.position);
    assert_eq!(status(&accept(&ledger, "+1#3").await), (Status::Superseded, Some(Reason::StaleRevision)));
}

async fn pauses_and_tokens_outlive_the_process_and_give_way_to_newer_ones(fixture: Fixture) {
    let ledger = fixture.open().await;
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
    let fetched = |token: &StoredToken, before: Option<&str>| FetchedToken {
        token: token.clone(),
        before: before.map(|text| Secret::from(text.to_owned())),
        fetcher: Fetcher::of("test".to_owned()),
    };
    assert!(ledger.save_token(fetched(&token, None)).await.unwrap());
    assert!(ledger.save_token(fetched(&newer, Some("T1"))).await.unwrap());
    assert!(!ledger.save_token(fetched(&token, Some("T0"))).await.unwrap(), "it was fetched before the newer one was kept");
    assert!(!ledger.save_token(fetched(&token, None)).await.unwrap());
    assert!(ledger.save_token(fetched(&newer, Some("T1"))).await.unwrap(), "whoever got no answer says it again");
    let elsewhere = StoredToken { origin: vec![3], ..newer.clone() };
    assert!(ledger.save_token(fetched(&elsewhere, None)).await.unwrap(), "what another configuration has kept is of no use");
    assert!(ledger.save_token(fetched(&newer, None)).await.unwrap());
    drop(ledger);
    let ledger = fixture.open().await;
    assert_eq!(ledger.pauses().await.unwrap(), [later, other.clone()]);
    assert_eq!(ledger.token("test".to_owned()).await.unwrap(), Some(newer));
    assert_eq!(ledger.token("nobody".to_owned()).await.unwrap(), None);
    ledger.forget_pause("test".to_owned(), Scope::Adds).await.unwrap();
    assert_eq!(ledger.pauses().await.unwrap(), [other]);
}

async fn what_an_account_should_be_is_what_its_latest_command_asked_for(fixture: Fixture) {
    let ledger = fixture.open().await;
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
    Waiting { reason, answer: None, answer_lost: false, claim: None, called: true }
}

async fn the_time_to_wait_for_room_goes_on_while_the_worker_makes_the_add_wait_for_something_else(fixture: Fixture) {
    let ledger = fixture.open().await;
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

async fn a_wait_without_an_attempt_does_not_clear_the_suspicion(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    drop(ledger);
    let ledger = fixture.open().await;
    assert!(ticket(&ledger, "+1").await.suspect, "it was under way when the process died");
    ledger.wait(add.position, waits_for(Reason::RateLimited)).await.unwrap();
    assert!(ticket(&ledger, "+1").await.suspect);
    begin(&ledger, add).await;
    ledger.wait(add.position, waits_for(Reason::SystemBusy)).await.unwrap();
    assert!(!ticket(&ledger, "+1").await.suspect, "its attempt has ended");
}

async fn a_call_whose_end_could_not_be_recorded_holds_up_no_offboarding(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    ledger.claims.borrow_mut().clear();
    // Its session was lost; when it is delivered again its Official Account is paused.
    assert!(ledger.wait(add.position, waits_for(Reason::DayQuota)).await.unwrap().is_none());
    let delete = ticket(&ledger, "-2").await;
    assert!(ledger.check(add.position).await.unwrap().is_some(), "it is superseded");
    assert!(begin(&ledger, delete).await.lost_add_ago.is_some(), "and may still land");
}

async fn what_was_under_way_at_a_death_begins_alone(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    drop(ledger);
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    assert!(matches!(ledger.ledger.begin(add.position, false).await.unwrap(), Claim::Not(Obstacle::Suspected)));
    assert_eq!(begin(&ledger, add).await.attempts, 2);
}

async fn a_command_that_panics_before_it_begins_is_poison_in_the_end(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    for _ in 0..=MOST_DEATHS {
        ledger.panicked(add.position).await.unwrap();
    }
    let Claim::Not(Obstacle::Finished(finished)) = ledger.begin(add.position).await.unwrap() else { panic!() };
    assert_eq!(finished.conclusion.reason, Some(Reason::Poison));
}

async fn what_is_in_flight_stays_so_when_another_delivery_of_it_is_put_off(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    assert!(ledger.ledger.wait(add.position, waits_for(Reason::WindowShare)).await.unwrap().finished.is_none());
    ticket(&ledger, "-2").await;
    assert!(ledger.check(add.position).await.unwrap().is_none(), "a call in flight is not superseded");
}
