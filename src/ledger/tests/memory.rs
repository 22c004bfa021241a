//! What outlives commands: pauses, tokens, what accounts should be, and what is forgotten.

use super::*;

for_every_database! {
    what_is_past_its_retention_is_forgotten_but_not_the_accounts_latest_state,
    pauses_and_tokens_outlive_the_process_and_give_way_to_newer_ones,
    what_an_account_should_be_is_what_its_latest_command_asked_for,
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
