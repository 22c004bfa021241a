//! Places, order, repeats and what supersedes what.

use super::*;

for_every_database! {
    positions_follow_the_order_of_acceptance_and_stay,
    a_repeat_is_answered_byte_for_byte_also_after_a_restart,
    the_first_outcome_stands,
    an_id_with_other_content_changes_nothing,
    one_account_begins_in_order_and_another_does_not_wait,
    a_delete_supersedes_an_add_that_waits,
    every_pair_of_commands_ends_as_the_rule_says_on_every_way,
    what_queued_behind_a_call_supersedes_it_once_it_waits_and_an_add_never_supersedes_a_delete,
    revisions_are_the_producers_order,
    an_unseen_add_sent_before_the_last_delete_is_superseded,
    a_put_off_copy_that_is_not_known_is_lost,
    a_replay_is_the_next_generation_in_the_first_position_and_the_same_dead_letter_makes_one,
    a_replay_gives_way_to_what_was_accepted_since_and_needs_a_failed_command,
    a_replay_begins_as_if_nothing_had_gone_wrong,
    what_waits_before_a_replay_gives_way_to_it,
    a_replay_that_gives_way_tells_nothing_of_an_earlier_answer,
    a_dead_letter_is_owed_until_it_is_said_to_be_in_its_queue,
    a_command_whose_message_is_lost_holds_nobody_up,
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

async fn a_replay_begins_as_if_nothing_had_gone_wrong(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    begin(&ledger, first).await;
    ledger.wait(first.position, waiting(false)).await.unwrap();
    drop(ledger);
    for _ in 0..=MOST_DEATHS {
        let ledger = fixture.open().await;
        let suspect = ticket(&ledger, "+1").await;
        begin(&ledger, suspect).await;
    }
    let ledger = fixture.open().await;
    ticket(&ledger, "+1").await;
    let poison = ledger.begin(first.position).await.unwrap();
    assert!(
        matches!(poison, Claim::Not(Obstacle::Finished(ref finished)) if finished.conclusion.reason == Some(Reason::Poison)),
        "{poison:?}"
    );
    let replayed_at = Timestamp::now();
    let Acceptance::Unfinished(again) = replay(&ledger, "+1", 0).await else { panic!() };
    assert_eq!((again.generation, again.suspect, again.trouble), (1, false, None));
    assert_eq!((again.attempts, again.attempts_before), (4, 4));
    assert!(again.age_from.as_millisecond() >= replayed_at.as_millisecond(), "its age counts anew");
    begin(&ledger, again).await;
}

async fn what_waits_before_a_replay_gives_way_to_it(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    let second = ticket(&ledger, "+2").await;
    fail(&ledger, "+2", second).await;
    begin(&ledger, first).await;
    ledger.wait(first.position, waiting(false)).await.unwrap();
    let Acceptance::Unfinished(again) = replay(&ledger, "+2", 0).await else { panic!() };
    let claim = ledger.begin(first.position).await.unwrap();
    assert!(
        matches!(claim, Claim::Not(Obstacle::Finished(ref finished)) if finished.conclusion.reason == Some(Reason::NewerCommand)),
        "{claim:?}"
    );
    begin(&ledger, again).await;
}

async fn a_replay_that_gives_way_tells_nothing_of_an_earlier_answer(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    begin(&ledger, first).await;
    ledger.wait(first.position, waiting(false)).await.unwrap();
    fail(&ledger, "+1", first).await;
    ticket(&ledger, "-2").await;
    let Acceptance::Decided(superseded) = replay(&ledger, "+1", 0).await else { panic!() };
    assert_eq!(superseded.conclusion.reason, Some(Reason::NewerCommand));
    assert!(!superseded.conclusion.data.contains("busy"), "{}", superseded.conclusion.data);
}

async fn a_dead_letter_is_owed_until_it_is_said_to_be_in_its_queue(fixture: Fixture) {
    let ledger = fixture.open().await;
    let first = ticket(&ledger, "+1").await;
    assert!(fail(&ledger, "+1", first).await.dead_letter_owed);
    drop(ledger);
    let ledger = fixture.open().await;
    let Acceptance::Repeat(owed) = accept(&ledger, "+1").await else { panic!() };
    assert!(owed.dead_letter_owed);
    ledger.dead_lettered(first.position).await.unwrap();
    drop(ledger);
    let Acceptance::Repeat(paid) = accept(&fixture.open().await, "+1").await else { panic!() };
    assert!(!paid.dead_letter_owed);
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
