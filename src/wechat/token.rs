//! Access tokens: one fetch at a time for each Official Account, renewed before they end, never in a loop.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::Endpoint;
use super::codes::{Verdict, verdict};
use super::http::Http;
use super::{Credentials, Token};
use crate::metrics::Metrics;
use crate::outcome::{AttemptFailure, Class, Failure, Reason};

/// Where an Official Account's token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// `POST /cgi-bin/stable_token`: repeats answer the same token, so that several programs can share an AppID.
    Stable,
    /// `GET /cgi-bin/token`: each call ends the former token after five minutes.
    Legacy,
}

/// A token is renewed this long before its end, or a tenth of its life before, whichever is shorter.
const MARGIN: Duration = Duration::from_secs(300);
/// A refused token that comes back unchanged is not used again before this time has passed.
const UNCHANGED_WAIT: Duration = Duration::from_secs(30);
/// After a failed fetch nobody asks again for this long; it doubles with each failure.
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The token of one Official Account.
pub struct TokenSource {
    credentials: Credentials,
    /// Whoever fetches holds it, the others wait for it: that is the single flight.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The token that WeChat refused last, and when.
    refused: Option<(Token, Instant)>,
    /// The last fetch failed: nobody asks again before this instant.
    rest: Option<(Instant, AttemptFailure)>,
    failures: u32,
}

struct Held {
    token: Token,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Serialize)]
struct StableBody<'a> {
    grant_type: &'a str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

impl TokenSource {
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, state: Mutex::default() }
    }

    /// The held token, or a new one.
    pub async fn get(&self, http: &Http, metrics: &Metrics) -> Result<Token, AttemptFailure> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(held) = state.held.as_ref().filter(|held| now < held.renew_at) {
            return Ok(held.token.clone());
        }
        if let Some((until, failure)) = state.rest.as_ref().filter(|(until, _)| now < *until) {
            tracing::debug!(official_account = self.credentials.wechat_id, rest_ms = (*until - now).as_millis(), "no token is fetched yet");
            return state.still_good(now).ok_or_else(|| failure.clone());
        }
        match self.fetch(http).await {
            Ok((token, life)) => {
                metrics.token_fetched(&self.credentials.wechat_id, true);
                state.failures = 0;
                state.rest = None;
                state.take(token, life)
            }
            Err(failure) => {
                metrics.token_fetched(&self.credentials.wechat_id, false);
                let rest = FIRST_REST.saturating_mul(1 << state.failures.min(10)).min(LONGEST_REST);
                state.failures = state.failures.saturating_add(1);
                state.rest = Some((Instant::now() + rest, failure.clone()));
                let (reason, errcode) = (failure.failure.reason, failure.failure.answer.as_ref().map(|answer| answer.errcode));
                tracing::warn!(official_account = self.credentials.wechat_id, %reason, errcode, "the access token could not be fetched");
                state.still_good(Instant::now()).ok_or(failure)
            }
        }
    }

    /// Throws a refused token away, if it is still the one that is held: another call may have replaced it already.
    pub async fn refuse(&self, token: &Token) {
        let mut state = self.state.lock().await;
        if state.held.as_ref().is_some_and(|held| held.token.is(token)) {
            state.held = None;
            state.refused = Some((token.clone(), Instant::now()));
        }
    }

    async fn fetch(&self, http: &Http) -> Result<(Token, Duration), AttemptFailure> {
        let (appid, secret) = (self.credentials.app_id.as_str(), self.credentials.app_secret.expose_secret());
        let answer = match self.credentials.token {
            TokenKind::Stable => {
                let body = StableBody { grant_type: "client_credential", appid, secret, force_refresh: false };
                http.post(Endpoint::Token, "/cgi-bin/stable_token", &[], &body).await?
            }
            TokenKind::Legacy => {
                let query = [("grant_type", "client_credential"), ("appid", appid), ("secret", secret)];
                http.get(Endpoint::Token, "/cgi-bin/token", &query).await?
            }
        };
        match verdict(Endpoint::Token, answer.errcode) {
            Verdict::Trouble(class, reason) => return Err(answer.into_failure(class, reason)),
            Verdict::Done | Verdict::Already => {}
        }
        let token = answer.body.get("access_token").and_then(|token| token.as_str()).filter(|token| !token.is_empty());
        let life = answer.body.get("expires_in").and_then(serde_json::Value::as_u64);
        match token.zip(life) {
            Some((token, life)) => Ok((Token::new(token.to_owned()), Duration::from_secs(life))),
            None => Err(answer.into_failure(Class::Retry, Reason::MalformedAnswer)),
        }
    }
}

impl State {
    /// The held token, where it can still be used although it should be renewed.
    fn still_good(&self, now: Instant) -> Option<Token> {
        self.held.as_ref().filter(|held| now < held.ends_at).map(|held| held.token.clone())
    }

    /// Holds a fetched token, unless it is the one that was refused a moment ago.
    fn take(&mut self, token: Token, life: Duration) -> Result<Token, AttemptFailure> {
        let now = Instant::now();
        if let Some((refused, at)) = &self.refused
            && refused.is(&token)
            && now < *at + UNCHANGED_WAIT
        {
            let detail = "WeChat refused the access token and gives out the same one again; another program may be fetching tokens with the same AppID.";
            let failure = AttemptFailure {
                class: Class::Account { probe: UNCHANGED_WAIT },
                failure: Failure::new(Reason::TokenRefused, detail),
                answer_lost: false,
            };
            self.rest = Some((*at + UNCHANGED_WAIT, failure.clone()));
            return Err(failure);
        }
        let margin = MARGIN.min(life / 10);
        self.held = Some(Held { token: token.clone(), renew_at: now + life.saturating_sub(margin), ends_at: now + life });
        Ok(token)
    }
}
