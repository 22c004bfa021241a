//! How the tokens of third-party platforms and their refresh tokens follow each other, with times of our own.

use std::time::Duration;

use super::clockwork::Clockwork;
use super::{text, with_platforms};
use crate::simulator::Settings;
use crate::simulator::request::{AuthorizerBody, Request};

impl Clockwork {
    fn component(&mut self) -> String {
        let ticket = self.ticket();
        let body = self.show(&ticket).unwrap();
        text(&body["component_access_token"])
    }

    /// The new access token and the new refresh token.
    fn refresh(&mut self, component_token: &str, refresh_token: &str) -> Result<(String, String), i32> {
        let body = AuthorizerBody {
            component_appid: "wxp1".to_owned(),
            authorizer_appid: "wx0123456789abcdef".to_owned(),
            authorizer_refresh_token: refresh_token.to_owned(),
        };
        let body = self.ask(&Request::AuthorizerToken { component_token: Some(component_token.to_owned()), body: Ok(body) })?;
        Ok((text(&body["authorizer_access_token"]), text(&body["authorizer_refresh_token"])))
    }
}

#[test]
fn a_component_token_lives_for_five_minutes_beside_the_next_one_and_expires_at_its_time() {
    let mut wechat = Clockwork::new(&with_platforms());
    let first = wechat.component();
    let second = wechat.component();
    assert_ne!(first, second);
    wechat.pass(299);
    assert_eq!((wechat.refresh(&first, "no"), wechat.refresh(&second, "no")), (Err(61023), Err(61023)));
    wechat.pass(1);
    assert_eq!((wechat.refresh(&first, "no"), wechat.refresh(&second, "no")), (Err(40001), Err(61023)));
    wechat.pass(7200 - 301);
    assert_eq!(wechat.refresh(&second, "no"), Err(61023));
    wechat.pass(1);
    assert_eq!(wechat.refresh(&second, "no"), Err(42006));
}

#[test]
fn an_access_token_of_a_platform_lives_for_five_minutes_beside_the_next_one_and_leaves_the_stable_one_alone() {
    let mut wechat = Clockwork::new(&with_platforms());
    let component_token = wechat.component();
    let (stable, _) = wechat.stable();
    let (first, refresh_token) = wechat.refresh(&component_token, "first").unwrap();
    let (second, _) = wechat.refresh(&component_token, &refresh_token).unwrap();
    wechat.pass(299);
    assert_eq!((wechat.list(&first), wechat.list(&second), wechat.list(&stable)), (0, 0, 0));
    wechat.pass(1);
    assert_eq!((wechat.list(&first), wechat.list(&second), wechat.list(&stable)), (40001, 0, 0));
}

#[test]
fn the_former_refresh_token_ends_when_the_new_access_token_is_first_used() {
    let mut wechat = Clockwork::new(&with_platforms());
    let component_token = wechat.component();
    let (token, current) = wechat.refresh(&component_token, "first").unwrap();
    // What is refused for its token is no use of it.
    assert_eq!(wechat.list("0_no"), 40001);
    assert!(wechat.refresh(&component_token, "first").is_ok());
    assert_eq!(wechat.list(&token), 0);
    assert_eq!(wechat.refresh(&component_token, "first"), Err(61023));
    assert!(wechat.refresh(&component_token, &current).is_ok());
}

#[test]
fn the_former_refresh_token_ends_after_the_overlap_although_nothing_was_used() {
    let mut wechat = Clockwork::new(&Settings { token_overlap: Duration::from_secs(60), ..with_platforms() });
    let component_token = wechat.component();
    let (_, lost) = wechat.refresh(&component_token, "first").unwrap();
    wechat.pass(59);
    // That it is asked for again makes its life no longer.
    let (_, current) = wechat.refresh(&component_token, "first").unwrap();
    wechat.pass(1);
    assert_eq!(wechat.refresh(&component_token, "first"), Err(61023));
    assert!(wechat.refresh(&component_token, &lost).is_ok());
    wechat.pass(59);
    assert_eq!(wechat.refresh(&component_token, &lost), Err(61023));
    assert!(wechat.refresh(&component_token, &current).is_ok());
}

#[test]
fn the_use_of_an_access_token_ends_only_the_refresh_tokens_before_its_own() {
    let mut wechat = Clockwork::new(&with_platforms());
    let component_token = wechat.component();
    let (first_token, first) = wechat.refresh(&component_token, "first").unwrap();
    let (second_token, second) = wechat.refresh(&component_token, "first").unwrap();
    assert_eq!(wechat.list(&first_token), 0);
    assert_eq!(wechat.refresh(&component_token, "first"), Err(61023));
    assert_eq!(wechat.list(&second_token), 0);
    assert_eq!(wechat.refresh(&component_token, &first), Err(61023));
    assert!(wechat.refresh(&component_token, &second).is_ok());
}
