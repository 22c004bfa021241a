//! Calls that wait, are lost, or bring down their worker.

use super::*;

for_every_database! {
    a_call_of_a_worker_that_died_has_an_unknown_outcome_and_may_be_superseded,
    a_lost_answer_of_an_add_is_remembered_for_the_delete,
    the_time_of_a_trouble_counts_from_when_it_began,
    a_command_under_way_at_three_deaths_and_alone_at_the_last_two_is_poison,
    orderly_ends_company_and_survived_attempts_make_no_poison,
    the_time_to_wait_for_room_goes_on_while_the_worker_makes_the_add_wait_for_something_else,
    a_wait_without_an_attempt_does_not_clear_the_suspicion,
    what_is_in_flight_stays_so_when_another_delivery_of_it_is_put_off,
    a_call_whose_end_could_not_be_recorded_holds_up_no_offboarding,
    what_was_under_way_at_a_death_begins_alone,
    a_command_that_panics_before_it_begins_is_poison_in_the_end,
}

fn waits_for(reason: Reason) -> Waiting {
    Waiting { reason, answer: None, answer_lost: false, claim: None, called: true }
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

async fn what_is_in_flight_stays_so_when_another_delivery_of_it_is_put_off(fixture: Fixture) {
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    assert!(ledger.ledger.wait(add.position, waits_for(Reason::WindowShare)).await.unwrap().finished.is_none());
    ticket(&ledger, "-2").await;
    assert!(ledger.check(add.position).await.unwrap().is_none(), "a call in flight is not superseded");
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
