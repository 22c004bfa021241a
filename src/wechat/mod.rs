//! The only place that talks to WeChat: the calls, the ways to get a token, and what every answer means.

pub(crate) mod answer;
mod codes;
mod hosts;
mod http;
pub(crate) mod token;
mod whitelist;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub use http::BuildError;
pub use token::{AppCredentials, Fetched, OwnServer};
pub use whitelist::refused_address;

use crate::command::Command;
use crate::metrics::Metrics;
use crate::outcome::{Action, AttemptFailure, Class, Reason};
use crate::secret::Secret;
use crate::tls::Tls;
use crate::traces::Traces;
use answer::{Endpoint, WeChatAnswer};
use codes::Verdict;
use http::Http;

/// How WeChat is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme, host and port of the API, then of other hosts of the same API.
    pub base_urls: Vec<String>,
    /// Whom they must be known by; organisations' own token servers likewise.
    pub tls: Tls,
    /// How long a request may take, from connecting to the last byte of its answer.
    pub request_timeout: Duration,
}

/// An access token; in URLs only, and never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Arc<Secret>);

impl Token {
    pub fn new(text: String) -> Self {
        Self(Arc::new(Secret::from(text)))
    }

    /// The text itself, for whoever has to send or store it.
    pub fn expose(&self) -> &str {
        self.0.expose()
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

/// A kf account as WeChat lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub kf_account: String,
    pub nickname: String,
}

/// A client of WeChat's API.
pub struct WeChat {
    http: Http,
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
    /// Where the certificates of authorities can't be used.
    pub fn new(settings: Settings, metrics: Arc<Metrics>, traces: Traces) -> Result<Self, BuildError> {
        let http = Http::new(settings.base_urls, &settings.tls, settings.request_timeout, Arc::clone(&metrics), traces)?;
        Ok(Self { http, metrics })
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
        let answer = self.http.post(endpoint, path, &[("access_token", token.expose())], &body).await;
        self.judged(endpoint, answer).map(|(reached, _)| reached)
    }

    /// All kf accounts of the Official Account that a token is for. WeChat gives at most 100, without pages.
    ///
    /// # Errors
    /// What kind of trouble it met, classified.
    pub async fn list(&self, token: &Token) -> Result<Vec<Listed>, AttemptFailure> {
        let answer = self.http.get(Endpoint::List, "/cgi-bin/customservice/getkflist", &[("access_token", token.expose())]).await;
        listed(self.judged(Endpoint::List, answer)?.1)
    }

    /// Counts an answer of WeChat's, and judges it.
    fn judged(&self, endpoint: Endpoint, answer: Result<WeChatAnswer, AttemptFailure>) -> Result<(Reached, WeChatAnswer), AttemptFailure> {
        let errcode = answer.as_ref().ok().map(|answer| answer.errcode);
        let judged = answer.and_then(|answer| judge(endpoint, answer));
        self.metrics.wechat_call(endpoint.as_str(), errcode, judged.as_ref().err());
        judged
    }
}

/// Parts what reached its end from what did not.
pub(crate) fn judge(endpoint: Endpoint, answer: WeChatAnswer) -> Result<(Reached, WeChatAnswer), AttemptFailure> {
    match codes::verdict(endpoint, answer.errcode) {
        Verdict::Done => Ok((Reached::Done, answer)),
        Verdict::Already => Ok((Reached::Already, answer)),
        Verdict::Trouble(class, reason) => Err(answer.into_failure(class, reason)),
    }
}

/// The accounts in an answer.
pub(crate) fn listed(answer: WeChatAnswer) -> Result<Vec<Listed>, AttemptFailure> {
    let list = match answer.body.get("kf_list") {
        Some(Value::Array(list)) => list.as_slice(),
        // Where there is nothing to list, there may be no list.
        None => &[],
        Some(_) => return Err(answer.into_failure(Class::Retry, Reason::MalformedAnswer)),
    };
    let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(list.iter().map(|entry| Listed { kf_account: text(entry, "kf_account"), nickname: text(entry, "kf_nick") }).collect())
}
