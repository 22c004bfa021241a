//! Token rotation and quotas, with times of our own instead of a clock.

use std::time::Duration;

use super::clockwork::Clockwork;
use crate::simulator::Settings;

#[test]
fn a_stable_token_stays_the_same_until_its_last_five_minutes() {
    let mut wechat = Clockwork::new(&Settings::default());
    let (first, expires_in) = wechat.stable();
    assert_eq!(expires_in, 7200);
    wechat.pass(6899);
    assert_eq!(wechat.stable(), (first.clone(), 301));
    wechat.pass(1);
    let (second, expires_in) = wechat.stable();
    assert_ne!(second, first);
    assert_eq!(expires_in, 7200);
    assert_eq!((wechat.list(&first), wechat.list(&second)), (0, 0));
    wechat.pass(300);
    assert_eq!((wechat.list(&first), wechat.list(&second)), (40001, 0));
}

#[test]
fn a_token_expires_at_its_time() {
    let mut wechat = Clockwork::new(&Settings::default());
    let (stable, _) = wechat.stable();
    let (legacy, _) = wechat.legacy();
    wechat.pass(7199);
    assert_eq!((wechat.list(&stable), wechat.list(&legacy)), (0, 0));
    wechat.pass(1);
    assert_eq!((wechat.list(&stable), wechat.list(&legacy)), (42001, 42001));
}

#[test]
fn a_legacy_token_lives_for_five_minutes_beside_the_next_one() {
    let mut wechat = Clockwork::new(&Settings::default());
    let (stable, _) = wechat.stable();
    let (first, _) = wechat.legacy();
    let (second, _) = wechat.legacy();
    assert_ne!(first, second);
    wechat.pass(299);
    assert_eq!((wechat.list(&first), wechat.list(&second)), (0, 0));
    wechat.pass(1);
    assert_eq!((wechat.list(&first), wechat.list(&second)), (40001, 0));
    assert_eq!(wechat.list(&stable), 0);
}

#[test]
fn a_forced_token_ends_the_former_at_once_and_leaves_the_legacy_one_alone() {
    let mut wechat = Clockwork::new(&Settings::default());
    let (legacy, _) = wechat.legacy();
    let (first, _) = wechat.stable();
    let (second, _) = wechat.force().unwrap();
    assert_eq!((wechat.list(&first), wechat.list(&second)), (40001, 0));
    assert_eq!(wechat.stable().0, second);
    assert_eq!(wechat.list(&legacy), 0);
}

#[test]
fn tokens_are_forced_thirty_seconds_apart_and_twenty_times_a_day() {
    let mut wechat = Clockwork::new(&Settings::default());
    for _ in 0..20 {
        assert!(wechat.force().is_ok());
        wechat.pass(29);
        assert_eq!(wechat.force(), Err(45011));
        wechat.pass(1);
    }
    assert_eq!(wechat.force(), Err(45009));
    wechat.pass(12 * 3600);
    assert!(wechat.force().is_ok());
}

#[test]
fn expired_by_hand_a_token_is_renewed() {
    let mut wechat = Clockwork::new(&Settings::default());
    let (first, _) = wechat.stable();
    wechat.platform.expire_tokens(wechat.now);
    assert_eq!(wechat.list(&first), 42001);
    let (second, _) = wechat.stable();
    assert_ne!(first, second);
    assert_eq!(wechat.list(&second), 0);
}

#[test]
fn the_minute_quota_holds_for_each_action_until_the_next_minute() {
    let mut wechat = Clockwork::new(&Settings { minute_quota: Some(2), ..Settings::default() });
    let (token, _) = wechat.stable();
    assert_eq!(wechat.add(&token, "a@test"), 0);
    assert_eq!(wechat.add(&token, "a@test"), 65406);
    assert_eq!(wechat.add(&token, "b@test"), 45011);
    assert_eq!(wechat.list(&token), 0);
    wechat.pass(59);
    assert_eq!(wechat.add(&token, "b@test"), 45011);
    wechat.pass(1);
    assert_eq!(wechat.add(&token, "b@test"), 0);
}

#[test]
fn the_day_quota_is_reset_at_midnight_in_beijing() {
    let mut wechat =
        Clockwork::new(&Settings { day_quota: Some(1), token_lifetime: Duration::from_secs(2 * 86_400), ..Settings::default() });
    let (token, _) = wechat.stable();
    assert_eq!(wechat.add(&token, "a@test"), 0);
    assert_eq!(wechat.add(&token, "b@test"), 45009);
    wechat.pass(12 * 3600 - 1);
    assert_eq!(wechat.add(&token, "b@test"), 45009);
    wechat.pass(1);
    assert_eq!(wechat.add(&token, "b@test"), 0);
}
