//! The ways to fetch an access token, one request each; when to fetch is decided elsewhere.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::answer::{self, Endpoint, WeChatAnswer};
use super::{Token, WeChat, judge};
use crate::outcome::{AttemptFailure, Class, Failure, Reason};
use crate::secret::Secret;

/// No token is believed to be good for longer, in seconds.
const LONGEST_LIFE: u64 = 86_400;

/// WeChat asks for room for 512 characters. One with which no address could be made any more is nobody's token.
const LONGEST_TOKEN: usize = 8 * 1024;

/// An AppID with the secret that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppCredentials {
    pub app_id: String,
    pub app_secret: Secret,
}

/// Somebody's own HTTP server that is asked with GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnServer {
    /// It may hold a secret, so it is treated as one.
    pub url: Secret,
    pub headers: Vec<(String, Secret)>,
}

/// A token fresh from its source.
#[derive(Debug)]
pub struct Fetched {
    pub token: Token,
    /// How long it is good.
    pub life: Duration,
    /// What the next authorizer token is to be asked for with.
    pub refresh_token: Option<Secret>,
}

#[derive(Serialize)]
struct StableBody<'a> {
    grant_type: &'a str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

#[derive(Serialize)]
struct PlatformBody<'a> {
    component_appid: &'a str,
    component_appsecret: &'a str,
    component_verify_ticket: &'a str,
}

#[derive(Serialize)]
struct AuthorizerBody<'a> {
    component_appid: &'a str,
    authorizer_appid: &'a str,
    authorizer_refresh_token: &'a str,
}

impl WeChat {
    /// The stable token: repeats answer the same one. Forced, a new one ends it at once; WeChat allows that 20 times a
    /// day, 30 s apart.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn stable_token(&self, app: &AppCredentials, force_refresh: bool) -> Result<Fetched, AttemptFailure> {
        let (appid, secret) = (app.app_id.as_str(), app.app_secret.expose());
        let body = StableBody { grant_type: "client_credential", appid, secret, force_refresh };
        let answer = self.http.post(Endpoint::Token, "/cgi-bin/stable_token", &[], &body).await;
        self.fetched(Endpoint::Token, "access_token", answer)
    }

    /// A legacy token: each call ends the former one after five minutes.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn legacy_token(&self, app: &AppCredentials) -> Result<Fetched, AttemptFailure> {
        let query = [("grant_type", "client_credential"), ("appid", app.app_id.as_str()), ("secret", app.app_secret.expose())];
        let answer = self.http.get(Endpoint::Token, "/cgi-bin/token", &query).await;
        self.fetched(Endpoint::Token, "access_token", answer)
    }

    /// A third-party platform's own token, for the verify ticket that WeChat pushed to it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn platform_token(&self, app: &AppCredentials, ticket: &Secret) -> Result<Fetched, AttemptFailure> {
        let body = PlatformBody {
            component_appid: &app.app_id,
            component_appsecret: app.app_secret.expose(),
            component_verify_ticket: ticket.expose(),
        };
        let answer = self.http.post(Endpoint::Token, "/cgi-bin/component/api_component_token", &[], &body).await;
        self.fetched(Endpoint::Token, "component_access_token", answer)
    }

    /// The token of an Official Account that a third-party platform acts for. WeChat may change the refresh token with
    /// it; whoever loses the new one has to be authorised again by hand.
    ///
    /// # Errors
    /// Why there is none; of the class `Token` where WeChat refused the platform's own token.
    pub async fn authorizer_token(
        &self,
        platform: (&str, &Token),
        app_id: &str,
        refresh_token: &Secret,
    ) -> Result<Fetched, AttemptFailure> {
        let (platform_id, platform_token) = platform;
        let body =
            AuthorizerBody { component_appid: platform_id, authorizer_appid: app_id, authorizer_refresh_token: refresh_token.expose() };
        let query = [("component_access_token", platform_token.expose())];
        let path = "/cgi-bin/component/api_authorizer_token";
        let answer = self.http.post(Endpoint::AuthorizerToken, path, &query, &body).await;
        self.fetched(Endpoint::AuthorizerToken, "authorizer_access_token", answer)
    }

    /// A token from an organisation's own token server.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn token_from(&self, server: &OwnServer) -> Result<Fetched, AttemptFailure> {
        let body = self.get_from(server, "token server (`token_url`)").await?;
        let answer = answer::parse(Endpoint::Token, &body).map_err(|mut failed| {
            failed.failure.detail = "The token server did not answer {\"access_token\":…,\"expires_in\":…}.".to_owned();
            failed
        });
        // It is no answer of WeChat's, and is not counted as one.
        fetched("access_token", answer.and_then(|answer| judge(Endpoint::Token, answer))?.1)
    }

    /// The verify ticket that a third-party platform keeps at its own server: as plain text, or in JSON as WeChat
    /// names it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ticket_from(&self, server: &OwnServer) -> Result<Secret, AttemptFailure> {
        let body = self.get_from(server, "server of the verify ticket (`verify_ticket_url`)").await?;
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        let named = json.as_ref().and_then(|json| json.get("component_verify_ticket")).and_then(Value::as_str);
        let text = named.map_or_else(|| String::from_utf8_lossy(&body).trim().to_owned(), str::to_owned);
        Ok(Secret::from(text))
    }

    async fn get_from(&self, server: &OwnServer, what: &str) -> Result<Vec<u8>, AttemptFailure> {
        let headers: Vec<(&str, &str)> = server.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let failed = |class, reason, detail: String| AttemptFailure::new(class, Failure::new(reason, detail));
        match self.http.get_elsewhere(server.url.expose(), &headers).await {
            Ok((200, body)) => Ok(body),
            Ok((status @ (408 | 429 | 500..), _)) => {
                Err(failed(Class::Retry, Reason::GatewayError, format!("The {what} answered HTTP {status}.")))
            }
            Ok((status, _)) => Err(failed(
                Class::ACCOUNT,
                Reason::Misconfigured,
                format!("The {what} answered HTTP {status}; check its address and headers."),
            )),
            Err(unsent) => {
                let reason = unsent.failure.reason;
                Err(failed(unsent.class, reason, format!("The {what} could not be asked, or did not answer in time.")))
            }
        }
    }

    fn fetched(&self, endpoint: Endpoint, name: &str, answer: Result<WeChatAnswer, AttemptFailure>) -> Result<Fetched, AttemptFailure> {
        fetched(name, self.judged(endpoint, answer)?.1)
    }
}

/// The token in an answer, under this name.
pub(crate) fn fetched(name: &str, answer: WeChatAnswer) -> Result<Fetched, AttemptFailure> {
    let text = |name: &str| answer.body.get(name).and_then(Value::as_str).filter(|text| (1..=LONGEST_TOKEN).contains(&text.len()));
    let life = answer.body.get("expires_in").and_then(Value::as_u64);
    match text(name).zip(life) {
        Some((token, life)) => Ok(Fetched {
            token: Token::new(token.to_owned()),
            // Nobody's token is good for longer, and no sum of times may overflow.
            life: Duration::from_secs(life.min(LONGEST_LIFE)),
            refresh_token: text("authorizer_refresh_token").map(|text| Secret::from(text.to_owned())),
        }),
        None => Err(answer.into_failure(Class::Retry, Reason::MalformedAnswer)),
    }
}
