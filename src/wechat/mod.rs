//! The only place that talks to WeChat: the two calls, the tokens they need, and what every answer means.

mod answer;
mod codes;
mod http;
mod token;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

pub use http::BuildError;
pub use token::TokenKind;

use crate::command::{Command, KfAccount};
use crate::metrics::Metrics;
use crate::outcome::{Action, AttemptFailure};
use answer::Endpoint;
use codes::Verdict;
use http::Http;
use token::TokenSource;

/// How WeChat is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme, host and port of the API, then of other hosts of the same API.
    pub base_urls: Vec<String>,
    /// How long a request may take, from connecting to the last byte of its answer.
    pub request_timeout: Duration,
    pub official_accounts: Vec<Credentials>,
}

/// What proves to WeChat that we act for an Official Account.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The Official Account's own WeChat ID: what stands behind the `@` of its kf accounts.
    pub wechat_id: String,
    pub app_id: String,
    pub app_secret: SecretString,
    pub token: TokenKind,
}

/// An access token; in URLs only, and never shown.
#[derive(Debug, Clone)]
pub struct Token(Arc<SecretString>);

impl Token {
    fn new(text: String) -> Self {
        Self(Arc::new(SecretString::from(text)))
    }

    fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    fn is(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// What a call reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// WeChat did it.
    Done,
    /// The wanted state held already.
    Already,
}

/// A client of WeChat's API for all configured Official Accounts.
pub struct WeChat {
    http: Http,
    tokens: HashMap<String, TokenSource>,
    metrics: Arc<Metrics>,
}

/// The body of both calls; a field that is `None` is not sent.
#[derive(Serialize)]
struct CallBody<'a> {
    kf_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<&'a str>,
}

impl WeChat {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// Where the system's certificates can't be used.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, BuildError> {
        let http = Http::new(settings.base_urls, settings.request_timeout)?;
        let source = |credentials: Credentials| (credentials.wechat_id.clone(), TokenSource::new(credentials));
        let tokens = settings.official_accounts.into_iter().map(source).collect();
        Ok(Self { http, tokens, metrics })
    }

    /// The Official Account's token, fetched where none is held or the held one is about to end. However many ask, one
    /// fetch is made. `None` where the Official Account is not configured.
    ///
    /// # Errors
    /// Why no token can be had.
    pub async fn token(&self, account: &KfAccount) -> Option<Result<Token, AttemptFailure>> {
        let source = self.tokens.get(account.wechat_id())?;
        Some(source.get(&self.http, &self.metrics).await)
    }

    /// Says that WeChat refused a token. It is thrown away, if it is still the one that is held.
    pub async fn refuse(&self, account: &KfAccount, token: &Token) {
        if let Some(source) = self.tokens.get(account.wechat_id()) {
            source.refuse(token).await;
        }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// What kind of trouble it met, classified.
    pub async fn call(&self, token: &Token, command: &Command) -> Result<Reached, AttemptFailure> {
        let (endpoint, path) = match command.action {
            Action::Add => (Endpoint::Add, "/customservice/kfaccount/add"),
            Action::Delete => (Endpoint::Delete, "/customservice/kfaccount/del"),
        };
        let body = CallBody { kf_account: command.account.as_str(), nickname: command.given.nickname.as_deref() };
        let timer = self.metrics.wechat_call_seconds(endpoint.as_str()).start_timer();
        let answer = self.http.post(endpoint, path, &[("access_token", token.expose())], &body).await;
        timer.observe_duration();
        let errcode = answer.as_ref().map(|answer| answer.errcode).map_err(|failure| failure.failure.reason);
        self.metrics.wechat_call(endpoint.as_str(), errcode);
        let answer = answer?;
        match codes::verdict(endpoint, answer.errcode) {
            Verdict::Done => Ok(Reached::Done),
            Verdict::Already => Ok(Reached::Already),
            Verdict::Trouble(class, reason) => Err(answer.into_failure(class, reason)),
        }
    }
}
