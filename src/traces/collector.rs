//! The way to the collector: one HTTP client, patient for a moment and no longer.

use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::{header, redirect};

use crate::retry;
use crate::secret::Secret;

/// How long one request may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// So often what failed in passing is sent again.
const REPEATS: u32 = 2;
/// A collector answers with nothing, or with a sentence on what it refused.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A client of the collector.
#[derive(Debug)]
pub struct Collector {
    client: reqwest::Client,
    authorization: Option<Secret>,
}

impl Collector {
    /// Makes the client; nothing is sent yet.
    pub fn new(url: &str, authorization: Option<Secret>) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(TIME_LIMIT)
            // The authorization would leave for somebody else's host.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("kf-worker/", env!("CARGO_PKG_VERSION")));
        // Where nothing is encrypted, a proxy that the environment names would see the authorization.
        let client = if url.starts_with("https://") { client } else { client.no_proxy() };
        Ok(Self { client: client.build()?, authorization })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        let (head, body) = request.into_parts();
        let mut sent = self.client.request(head.method, head.uri.to_string()).headers(head.headers).body(body);
        if let Some(authorization) = &self.authorization {
            sent = sent.header(header::AUTHORIZATION, authorization.expose());
        }
        // The address may hold a secret, and says nothing new.
        let answer = sent.send().await.map_err(reqwest::Error::without_url)?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.body_mut() = read(answer).await.map_err(reqwest::Error::without_url)?;
        Ok(response)
    }
}

/// The body, where it is no longer than any answer of a collector's; else nothing, which means that all was taken.
async fn read(mut answer: reqwest::Response) -> reqwest::Result<Bytes> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST_ANSWER {
            return Ok(Bytes::new());
        }
    }
    Ok(bytes.into())
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut failures = 0;
        loop {
            let answer = self.send(request.clone()).await;
            let may_pass = match &answer {
                Ok(response) => matches!(response.status().as_u16(), 429 | 502..=504),
                Err(_) => true,
            };
            if !may_pass || failures == REPEATS {
                return Ok(answer?);
            }
            tokio::time::sleep(retry::before_reconnecting(failures)).await;
            failures += 1;
        }
    }
}
