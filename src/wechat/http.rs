//! Sends requests to WeChat's hosts and classifies what goes wrong on the way. No URL leaves here: the token is in it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url, header, redirect};
use serde::Serialize;

use super::answer::{self, Endpoint, WeChatAnswer};
use super::codes::{self, Verdict};
use super::hosts::Hosts;
use crate::command::TraceContext;
use crate::metrics::Metrics;
use crate::outcome::{AttemptFailure, Class, Failure, Reason};
use crate::tls::{self, Tls, TlsError};
use crate::traces::{Span, Traces};

/// WeChat closes idle connections after a minute or so; we close them before, since a reset looks like a lost answer.
const IDLE: Duration = Duration::from_secs(20);
/// No answer of WeChat's is nearly as long.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("WeChat's certificate can't be checked: {0}")]
    Tls(#[from] TlsError),
    #[error("the HTTP client can't be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("the address of WeChat's API is none; check `wechat.base_url` and `wechat.fallback_urls`")]
    Address,
}

/// An HTTP client for all hosts of the API.
pub struct Http {
    /// For https; it goes through the proxy that the environment names, which sees no more than the host's name.
    encrypted: reqwest::Client,
    /// For http, which is spoken with this machine alone and never through a proxy: it would see everything.
    plain: reqwest::Client,
    /// Where the API is, at each of the hosts.
    bases: Vec<Url>,
    hosts: Hosts,
    metrics: Arc<Metrics>,
    traces: Traces,
}

impl Http {
    pub fn new(base_urls: Vec<String>, tls: &Tls, timeout: Duration, metrics: Arc<Metrics>, traces: Traces) -> Result<Self, BuildError> {
        let client = || {
            reqwest::Client::builder()
                .timeout(timeout)
                // Shorter, so that a host that is not there is told from an answer that is lost.
                .connect_timeout(timeout.mul_f64(0.6))
                .pool_idle_timeout(IDLE)
                .redirect(redirect::Policy::none())
                .user_agent(concat!("kf-worker/", env!("CARGO_PKG_VERSION")))
        };
        let encrypted = client().tls_backend_preconfigured(tls.client()?).https_only(true).build()?;
        let plain = client().no_proxy().tls_certs_only([]).build()?;
        let bases = base_urls.iter().map(|base_url| Url::parse(base_url)).collect::<Result<_, _>>().map_err(|_| BuildError::Address)?;
        Ok(Self { encrypted, plain, bases, hosts: Hosts::new(base_urls, Arc::clone(&metrics)), metrics, traces })
    }

    fn client(&self, url: &str) -> &reqwest::Client {
        if url.starts_with("https://") { &self.encrypted } else { &self.plain }
    }

    /// Posts JSON. The body is sent as one piece with its length, since WeChat's gateway refuses chunks.
    pub async fn post(
        &self,
        endpoint: Endpoint,
        path: &str,
        query: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<WeChatAnswer, AttemptFailure> {
        // Every body of ours is a struct of strings and booleans; serde_json writes UTF-8 as it is, which WeChat wants.
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        let with_body = |request: RequestBuilder| request.header(header::CONTENT_TYPE, "application/json").body(bytes);
        self.send(endpoint, (Method::POST, path), query, with_body).await
    }

    pub async fn get(&self, endpoint: Endpoint, path: &str, query: &[(&str, &str)]) -> Result<WeChatAnswer, AttemptFailure> {
        self.send(endpoint, (Method::GET, path), query, |request| request).await
    }

    async fn send(
        &self,
        endpoint: Endpoint,
        (method, path): (Method, &str),
        query: &[(&str, &str)],
        with_body: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<WeChatAnswer, AttemptFailure> {
        let host = self.hosts.pick();
        let span = self.traces.request(method.as_str(), self.hosts.base_url(host), path);
        let base = &self.bases[host.index()];
        let request = with_body(self.client(base.as_str()).request(method, address(base, path, query)));
        let timer = self.metrics.wechat_call_seconds(endpoint.as_str()).start_timer();
        let answer = self.exchange(endpoint, traced(request, &span), &span).await;
        timer.observe_duration();
        tell(&span, endpoint, &answer);
        self.hosts.learn(host, &answer);
        answer
    }

    /// Gets what somebody else's server has, an organisation's own token server for one: its status and its body.
    pub async fn get_elsewhere(&self, url: &str, headers: &[(&str, &str)]) -> Result<(u16, Vec<u8>), AttemptFailure> {
        let span = self.traces.request_elsewhere("GET");
        let request = headers
            .iter()
            .fold(traced(self.client(url).request(Method::GET, url), &span), |request, (name, value)| request.header(*name, *value));
        let failed = |error: reqwest::Error| {
            let failed = transport_failure(Endpoint::Token, "The token server", &error);
            span.fail(failed.failure.reason.as_str());
            failed
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        span.answered(status);
        Ok((status, read(response).await.map_err(failed)?))
    }

    async fn exchange(&self, endpoint: Endpoint, request: RequestBuilder, span: &Span) -> Result<WeChatAnswer, AttemptFailure> {
        let response = request.send().await.map_err(|error| transport_failure(endpoint, "WeChat", &error))?;
        span.answered(response.status().as_u16());
        answer::check_status(endpoint, response.status().as_u16())?;
        let bytes = read(response).await.map_err(|error| transport_failure(endpoint, "WeChat", &error))?;
        answer::parse(endpoint, &bytes)
    }
}

/// The request with what lets its trace go on; what tracing systems keep of their own is nobody's business out there.
fn traced(request: RequestBuilder, span: &Span) -> RequestBuilder {
    let parent = span.context().map(TraceContext::parent);
    parent.into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// Tells in the span how a request went. That an account exists already, or is gone already, is no error.
fn tell(span: &Span, endpoint: Endpoint, answer: &Result<WeChatAnswer, AttemptFailure>) {
    match answer {
        Ok(answer) => {
            span.errcode(answer.errcode);
            if let Verdict::Trouble(_, reason) = codes::verdict(endpoint, answer.errcode) {
                span.fail(reason.as_str());
            }
        }
        Err(failed) => span.fail(failed.failure.reason.as_str()),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST_ANSWER {
            break;
        }
    }
    Ok(bytes)
}

/// The address of a call, by the one of the API, which need not be parsed anew for each.
fn address(base: &Url, path: &str, query: &[(&str, &str)]) -> Url {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let mut text = String::new();
    for (index, (name, value)) in query.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "&" });
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
    let mut url = base.clone();
    url.set_path(&[base.path().trim_end_matches('/'), path].concat());
    url.set_query(Some(&text).filter(|text| !text.is_empty()).map(String::as_str));
    url
}

/// What broke between us and WeChat, or a token server, told without the URL that the error carries.
fn transport_failure(endpoint: Endpoint, whom: &str, error: &reqwest::Error) -> AttemptFailure {
    let (reason, detail, answer_lost) = if error.is_builder() {
        return AttemptFailure {
            class: Class::Bug,
            failure: Failure::new(Reason::WorkerBug, "The request could not be made; check `wechat.base_url`."),
            answer_lost: false,
        };
    } else if error.is_connect() {
        let detail = match tls::refusal(error) {
            Some(refusal) => format!("{whom} could not be reached encrypted: {refusal}."),
            None => format!("{whom} could not be reached: {}.", root_cause(error)),
        };
        (Reason::Unreachable, detail, false)
    } else if error.is_timeout() {
        (Reason::AnswerLost, format!("{whom} did not answer within `wechat.request_timeout`."), true)
    } else {
        (
            Reason::AnswerLost,
            format!("{whom} was reached, and the connection broke before its answer was read: {}.", root_cause(error)),
            true,
        )
    };
    AttemptFailure { class: Class::Retry, failure: Failure::new(reason, detail), answer_lost: answer_lost && endpoint.changes() }
}

/// The innermost error: the system's own words (refused, reset, unknown host), without the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::addr_eq(cause, error as &dyn std::error::Error) { "no further cause is known".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_escapes_what_it_carries() {
        let base = |text| Url::parse(text).unwrap();
        let url = address(&base("http://127.0.0.1:1/"), "/cgi-bin/token", &[("appid", "wx"), ("secret", "a&b=c 客")]);
        assert_eq!(url.as_str(), "http://127.0.0.1:1/cgi-bin/token?appid=wx&secret=a%26b%3Dc%20%E5%AE%A2");
        let url = address(&base("https://proxy.example/wechat/"), "/cgi-bin/token", &[]);
        assert_eq!(url.as_str(), "https://proxy.example/wechat/cgi-bin/token");
    }
}
