//! What one Official Account has granted to one third-party platform: the access tokens, and the refresh tokens that they are had for.

use std::time::SystemTime;

use serde_json::json;

use super::account::{Limits, Reply};
use super::errcode::REFRESH_TOKEN_INVALID;
use super::tokens::{Tokens, random_text};

/// One authorisation with what was handed out for it.
pub(super) struct Grant {
    /// The AppID of the third-party platform.
    pub platform: String,
    pub tokens: Tokens,
    /// In the order in which they were handed out: the last one is the current one.
    refresh_tokens: Vec<RefreshToken>,
}

struct RefreshToken {
    text: String,
    /// The access token that was handed out with it; the first came without one.
    access_token: Option<String>,
    /// Set when another was handed out after it.
    good_until: Option<SystemTime>,
}

impl Grant {
    /// An authorisation of which only the first refresh token was handed out.
    pub fn new(platform: &str, refresh_token: &str) -> Self {
        let first = RefreshToken { text: refresh_token.to_owned(), access_token: None, good_until: None };
        Self { platform: platform.to_owned(), tokens: Tokens::default(), refresh_tokens: vec![first] }
    }

    /// The refresh token that was handed out last.
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_tokens.last().map(|last| last.text.as_str())
    }

    /// A new access token and a new refresh token. `index` is the Official Account's place, which its tokens carry.
    ///
    /// Refresh tokens rotate, and this is the harsh reading of it: the one that was shown stays good for the overlap time, so
    /// that a lost answer can be asked for again, and no longer than until one of the new access tokens is used (see
    /// [`Self::used`]). Whoever loses the new refresh token is found out.
    pub fn refresh(&mut self, index: usize, refresh_token: &str, limits: Limits, now: SystemTime) -> Reply {
        self.refresh_tokens.retain(|token| token.good_until.is_none_or(|until| now < until));
        if !self.refresh_tokens.iter().any(|token| token.text == refresh_token) {
            return Err(REFRESH_TOKEN_INVALID);
        }
        for token in &mut self.refresh_tokens {
            token.good_until.get_or_insert(now + limits.token_overlap);
        }
        let access = self.tokens.renew(index, limits.token_lifetime, limits.token_overlap, now);
        let text = random_text("refreshtoken@@@");
        let body = json!({
            "authorizer_access_token": access.text,
            "expires_in": access.expires_in,
            "authorizer_refresh_token": text,
        });
        self.refresh_tokens.push(RefreshToken { text, access_token: Some(access.text), good_until: None });
        Ok(body.to_string().into())
    }

    /// An access token was used for a call: its user must have the refresh token that came with it, so those before that one end.
    pub fn used(&mut self, access_token: &str) {
        let with_it = self.refresh_tokens.iter().position(|token| token.access_token.as_deref() == Some(access_token));
        self.refresh_tokens.drain(..with_it.unwrap_or_default());
    }
}
