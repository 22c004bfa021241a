//! What a source of tokens remembers: the token it holds, the one that WeChat refused, and what may be done with another.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use tokio::time::Instant;

use crate::ledger::{FetchedToken, StoredToken};
use crate::outcome::AttemptFailure;
use crate::retry::WECHAT_DAY;
use crate::wechat::Token;

/// A token is renewed this long before its end, or a tenth of its life before, whichever is shorter.
const MARGIN: Duration = Duration::from_secs(300);
/// A refused token that comes back unchanged is asked for once more after this time, which is also the least time
/// between forced refreshes.
const UNCHANGED_WAIT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct State {
    pub held: Option<Held>,
    refused: Option<Refused>,
    /// The last fetch failed: nobody asks again before this instant.
    pub rest: Option<(Instant, AttemptFailure)>,
    pub failures: u32,
    /// The day of the last forced refresh, and how many there were.
    forced: Option<(Date, u32)>,
    /// What the ledger holds was read.
    pub loaded: bool,
    /// What has not been written to the ledger yet. Nothing is fetched before it is.
    pub unsaved: Option<FetchedToken>,
}

pub struct Held {
    pub token: Token,
    pub renew_at: Instant,
    pub ends_at: Instant,
}

/// The token that WeChat refused last.
pub struct Refused {
    pub token: Token,
    at: Instant,
    /// It was asked for again in vain: until it changes, each refusal is believed at once.
    given_up: bool,
}

/// What to do with a token that was just fetched.
#[derive(Debug, PartialEq, Eq)]
pub enum Use {
    Now,
    /// It was refused a moment ago: it is asked for again after this long.
    NotBefore(Duration),
    ForceAnother,
    /// It goes on being refused.
    GivenUp,
}

impl State {
    /// A token that was refused and is given out again is asked for once more after a while. Then another one is forced,
    /// where that is allowed. Else it is given up, and a call with it now and then finds out whether it works again.
    pub fn consider(&mut self, token: &Token, now: Instant, may_force: bool) -> Use {
        let Some(refused) = self.refused.as_mut().filter(|refused| refused.token == *token) else { return Use::Now };
        let ago = now.saturating_duration_since(refused.at);
        let given_up = refused.given_up;
        if ago < UNCHANGED_WAIT {
            return if given_up { Use::GivenUp } else { Use::NotBefore(UNCHANGED_WAIT.saturating_sub(ago)) };
        }
        refused.given_up = true;
        match (may_force, given_up) {
            (true, _) => Use::ForceAnother,
            (false, false) => Use::GivenUp,
            (false, true) => Use::Now,
        }
    }

    /// Throws a refused token away, and remembers it.
    pub fn refuse(&mut self, token: &Token, now: Instant) {
        if self.held.take_if(|held| held.token == *token).is_some() {
            let given_up = self.refused.as_ref().is_some_and(|refused| refused.given_up && refused.token == *token);
            self.refused = Some(Refused { token: token.clone(), at: now, given_up });
        }
    }

    /// Takes up a token that the ledger keeps, where it is still good and neither the held one nor the one that WeChat
    /// refused.
    pub fn adopt(&mut self, kept: &StoredToken) -> Option<Token> {
        let token = Token::new(kept.access_token.expose().to_owned());
        let held = self.held.as_ref().is_some_and(|held| held.token == token);
        let refused = self.refused.as_ref().is_some_and(|refused| refused.token == token);
        let left = Duration::try_from(kept.ends_at.duration_since(Timestamp::now())).unwrap_or_default();
        (!held && !refused && !left.is_zero()).then(|| self.hold(token, left))
    }

    /// There is a new token: former failures count no more.
    pub fn fetched(&mut self) {
        self.failures = 0;
        self.rest = None;
    }

    pub fn forced_today(&self) -> u32 {
        self.forced.filter(|(day, _)| *day == wechats_day()).map_or(0, |(_, forced)| forced)
    }

    pub fn count_forced(&mut self) {
        self.forced = Some((wechats_day(), self.forced_today() + 1));
    }

    /// The held token, where it can still be used although it should be renewed.
    pub fn still_good(&self, now: Instant) -> Option<Token> {
        self.held.as_ref().filter(|held| now < held.ends_at).map(|held| held.token.clone())
    }

    pub fn hold(&mut self, token: Token, life: Duration) -> Token {
        let now = Instant::now();
        let margin = MARGIN.min(life / 10);
        self.held = Some(Held { token: token.clone(), renew_at: now + life.saturating_sub(margin), ends_at: now + life });
        token
    }
}

/// The day by which WeChat counts.
fn wechats_day() -> Date {
    Timestamp::now().to_zoned(TimeZone::fixed(Offset::constant(WECHAT_DAY))).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::new(text.to_owned())
    }

    /// A state whose held token was refused now.
    fn refused(text: &str) -> State {
        let mut state = State::default();
        state.hold(token(text), Duration::from_secs(7_200));
        state.refuse(&token(text), Instant::now());
        state
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_that_comes_again_is_asked_for_once_more_then_given_up_and_probed() {
        let mut state = refused("a");
        assert_eq!(state.consider(&token("b"), Instant::now(), false), Use::Now, "another token is another matter");
        assert_eq!(state.consider(&token("a"), Instant::now(), true), Use::NotBefore(UNCHANGED_WAIT));
        tokio::time::advance(UNCHANGED_WAIT).await;
        assert_eq!(state.consider(&token("a"), Instant::now(), false), Use::GivenUp);
        assert_eq!(state.consider(&token("a"), Instant::now(), false), Use::Now, "a call finds out");
        state.hold(token("a"), Duration::from_secs(7_200));
        state.refuse(&token("a"), Instant::now());
        assert_eq!(state.consider(&token("a"), Instant::now(), false), Use::GivenUp, "at once this time");
    }

    #[tokio::test(start_paused = true)]
    async fn another_token_is_forced_as_often_as_allowed_and_not_at_once() {
        let mut state = refused("a");
        assert_ne!(state.consider(&token("a"), Instant::now(), true), Use::ForceAnother);
        tokio::time::advance(UNCHANGED_WAIT).await;
        assert_eq!(state.consider(&token("a"), Instant::now(), true), Use::ForceAnother);
        assert_eq!(state.forced_today(), 0);
        state.count_forced();
        assert_eq!(state.forced_today(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_held_token_is_thrown_away() {
        let mut state = State::default();
        state.hold(token("new"), Duration::from_secs(600));
        state.refuse(&token("old"), Instant::now());
        assert!(state.still_good(Instant::now()).is_some() && state.refused.is_none());
        assert_eq!(state.held.as_ref().unwrap().renew_at, Instant::now() + Duration::from_secs(540), "a tenth of its life before its end");
        state.hold(token("long"), Duration::from_secs(7_200));
        assert_eq!(state.held.as_ref().unwrap().renew_at, Instant::now() + Duration::from_secs(6_900));
    }
}
