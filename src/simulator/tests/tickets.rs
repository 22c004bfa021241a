//! Verify tickets: when they are pushed, how long they are good, and the file that holds the current one.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;

use super::clockwork::Clockwork;
use super::{DEADLINE, Wechat, with_platforms};
use crate::simulator::server::ServerState;
use crate::simulator::{Settings, Simulator};

/// The code that a ticket is answered with.
fn code(wechat: &mut Clockwork, ticket: &str) -> i32 {
    wechat.show(ticket).err().unwrap_or(0)
}

#[test]
fn a_ticket_is_pushed_every_ten_minutes_and_good_for_twelve_hours() {
    let mut wechat = Clockwork::new(&with_platforms());
    let first = wechat.ticket();
    wechat.pass(599);
    assert_eq!(wechat.ticket(), first);
    wechat.pass(1);
    let second = wechat.ticket();
    assert_ne!(second, first);
    assert_eq!((code(&mut wechat, &first), code(&mut wechat, &second)), (0, 0));
    wechat.pass(12 * 3600 - 601);
    assert_eq!((code(&mut wechat, &first), code(&mut wechat, &second)), (0, 0));
    wechat.pass(1);
    assert_eq!((code(&mut wechat, &first), code(&mut wechat, &second)), (61005, 0));
    wechat.pass(600);
    assert_eq!((code(&mut wechat, &first), code(&mut wechat, &second)), (61005, 61005));
    let current = wechat.ticket();
    assert_eq!(code(&mut wechat, &current), 0);
}

#[test]
fn after_tickets_are_ended_by_hand_none_is_pushed_until_one_is_by_hand() {
    let mut wechat = Clockwork::new(&with_platforms());
    let first = wechat.ticket();
    wechat.pass(600);
    let second = wechat.ticket();
    wechat.platform.third_parties_mut()[0].tickets.expire(wechat.now);
    wechat.pass(6000);
    assert_eq!(wechat.ticket(), second);
    assert_eq!((code(&mut wechat, &first), code(&mut wechat, &second)), (61005, 61005));
    wechat.platform.third_parties_mut()[0].tickets.push(wechat.now);
    let third = wechat.ticket();
    assert_eq!((code(&mut wechat, &second), code(&mut wechat, &third)), (61005, 0));
    wechat.pass(600);
    assert_ne!(wechat.ticket(), third);
}

#[test]
fn the_wait_for_the_next_push_is_never_over_before_it_begins() {
    let settings = with_platforms();
    let mut state = ServerState::new(&settings).unwrap();
    for hours in 0..3 {
        let now = SystemTime::now() + Duration::from_secs(hours * 3600);
        state.keep_ticket(&settings, now).unwrap();
        let wait = state.until_next_push(now);
        assert!(Duration::ZERO < wait && wait <= Duration::from_secs(600), "{wait:?}");
        state.platform.third_parties_mut()[0].tickets.expire(now);
        assert_eq!(state.until_next_push(now), Duration::from_secs(600));
        state.platform.third_parties_mut()[0].tickets.push(now);
    }
}

fn with_file(path: &Path) -> Settings {
    Settings { ticket_file: Some(path.to_owned()), ..with_platforms() }
}

#[tokio::test]
async fn the_ticket_file_holds_the_current_ticket_of_the_first_platform() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket");
    let read = || std::fs::read_to_string(&path).unwrap();
    let wechat = Wechat::start(with_file(&path)).await;
    let first = wechat.ticket("wxp1").await;
    assert_eq!(read(), format!("{first}\n"));

    wechat.control(Method::POST, "platforms/expire-tickets", "").await;
    assert_eq!(read(), format!("{first}\n"));
    assert_eq!(wechat.ask_component_token("wxp1", "ps1", &first).await["errcode"], 61005);
    wechat.control(Method::POST, "platforms/push-ticket", "").await;
    let second = wechat.ticket("wxp1").await;
    assert_ne!(second, first);
    assert_eq!(read(), format!("{second}\n"));
    assert_eq!(wechat.ask_component_token("wxp1", "ps1", &second).await.get("errcode"), None);
    assert_eq!(wechat.ask_component_token("wxp1", "ps1", &first).await["errcode"], 61005);

    wechat.control(Method::POST, "reset", "").await;
    assert_eq!(read(), format!("{}\n", wechat.ticket("wxp1").await));
    assert_eq!(wechat.ask_component_token("wxp1", "ps1", &second).await["errcode"], 61006);
}

#[tokio::test]
async fn the_ticket_file_is_written_every_ten_minutes_and_the_simulator_ends_when_it_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket");
    let mut wechat = Wechat::start(with_file(&path)).await;
    let ticket = wechat.ticket("wxp1").await;
    std::fs::remove_file(&path).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(600)).await;
    let begin = Instant::now();
    while !path.exists() {
        assert!(begin.elapsed() < DEADLINE, "it was not written again");
        tokio::task::yield_now().await;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{ticket}\n"));
    folder.close().unwrap();
    // The time that passes is not real: it waits as long as the simulator sleeps.
    let ended = tokio::time::timeout(Duration::from_secs(3600), &mut wechat.running).await;
    let error = ended.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("can't write the ticket to "), "{error}");
}

#[tokio::test]
async fn a_ticket_file_that_cannot_be_written_is_an_error_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = Simulator::bind(with_file(&folder.path().join("none/ticket"))).await.err().unwrap();
    assert!(error.to_string().starts_with("can't write the ticket to "), "{error}");
}
