//! What a call asks for, read from its path, method, query and body.

use std::borrow::Cow;

use axum::http::Method;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::errcode::{BODY_EMPTY, BODY_MALFORMED, ESCAPES_REFUSED, GET_REQUIRED, PARAMETER_INVALID, POST_REQUIRED};

/// The calls that WeChat offers, as faults and counts name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /customservice/kfaccount/add`
    Add,
    /// `POST /customservice/kfaccount/del`
    Del,
    /// `GET /cgi-bin/customservice/getkflist`
    Getkflist,
    /// `POST /cgi-bin/stable_token` and `GET /cgi-bin/token`
    Token,
    /// `POST /cgi-bin/component/api_component_token`
    ComponentToken,
    /// `POST /cgi-bin/component/api_authorizer_token`
    AuthorizerToken,
}

/// One call. A body that can't be read is kept as its error code, since WeChat looks at the token first.
pub(super) enum Request {
    Add { token: Option<String>, body: Result<KfBody, i32> },
    Del { token: Option<String>, body: Result<KfBody, i32> },
    Getkflist { token: Option<String> },
    StableToken(Result<Credentials, i32>),
    LegacyToken(Credentials),
    ComponentToken(Result<ComponentBody, i32>),
    AuthorizerToken { component_token: Option<String>, body: Result<AuthorizerBody, i32> },
    WrongMethod { endpoint: Endpoint, errcode: i32 },
}

/// The body of `add` and `del`. What is missing reads as empty, which is illegal anyway.
#[derive(Deserialize)]
pub(super) struct KfBody {
    #[serde(default)]
    pub kf_account: String,
    #[serde(default)]
    pub nickname: String,
    /// An older form of the call had one; WeChat takes it no more.
    password: Option<IgnoredAny>,
}

/// What a token call shows. What is missing reads as empty.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Credentials {
    pub grant_type: String,
    pub appid: String,
    pub secret: String,
    pub force_refresh: bool,
}

/// What a third-party platform shows for a token of its own. What is missing reads as empty.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ComponentBody {
    pub component_appid: String,
    pub component_appsecret: String,
    pub component_verify_ticket: String,
}

/// What a third-party platform shows for a token of an Official Account. What is missing reads as empty.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthorizerBody {
    pub component_appid: String,
    pub authorizer_appid: String,
    pub authorizer_refresh_token: String,
}

impl Endpoint {
    /// The endpoint at a path, if there is one.
    pub(super) fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/customservice/kfaccount/add" => Self::Add,
            "/customservice/kfaccount/del" => Self::Del,
            "/cgi-bin/customservice/getkflist" => Self::Getkflist,
            "/cgi-bin/stable_token" | "/cgi-bin/token" => Self::Token,
            "/cgi-bin/component/api_component_token" => Self::ComponentToken,
            "/cgi-bin/component/api_authorizer_token" => Self::AuthorizerToken,
            _ => return None,
        })
    }
}

impl Request {
    /// Reads a call to one of the known endpoints.
    pub fn read(endpoint: Endpoint, path: &str, method: &Method, query: &str, body: &[u8]) -> Self {
        let stable = path == "/cgi-bin/stable_token";
        let wants_post = stable || !matches!(endpoint, Endpoint::Getkflist | Endpoint::Token);
        if wants_post && method != Method::POST {
            let errcode = POST_REQUIRED;
            return Self::WrongMethod { endpoint, errcode };
        }
        if !wants_post && method != Method::GET {
            let errcode = GET_REQUIRED;
            return Self::WrongMethod { endpoint, errcode };
        }
        let token = || parameter(query, "access_token");
        match endpoint {
            Endpoint::Add => Self::Add { token: token(), body: kf_body(body) },
            Endpoint::Del => Self::Del { token: token(), body: kf_body(body) },
            Endpoint::Getkflist => Self::Getkflist { token: token() },
            Endpoint::Token if stable => Self::StableToken(json_body(body)),
            Endpoint::Token => Self::LegacyToken(Credentials {
                grant_type: parameter(query, "grant_type").unwrap_or_default(),
                appid: parameter(query, "appid").unwrap_or_default(),
                secret: parameter(query, "secret").unwrap_or_default(),
                force_refresh: false,
            }),
            Endpoint::ComponentToken => Self::ComponentToken(json_body(body)),
            Endpoint::AuthorizerToken => {
                Self::AuthorizerToken { component_token: parameter(query, "component_access_token"), body: json_body(body) }
            }
        }
    }

    /// The endpoint that was called.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Add { .. } => Endpoint::Add,
            Self::Del { .. } => Endpoint::Del,
            Self::Getkflist { .. } => Endpoint::Getkflist,
            Self::StableToken(_) | Self::LegacyToken(_) => Endpoint::Token,
            Self::ComponentToken(_) => Endpoint::ComponentToken,
            Self::AuthorizerToken { .. } => Endpoint::AuthorizerToken,
            Self::WrongMethod { endpoint, .. } => *endpoint,
        }
    }

    /// The kf account that the call is about, where one can be read.
    pub fn kf_account(&self) -> Option<&str> {
        match self {
            Self::Add { body: Ok(body), .. } | Self::Del { body: Ok(body), .. } => Some(&body.kf_account),
            _ => None,
        }
    }
}

/// A query parameter, decoded; an empty one counts as missing.
fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
        .map(Cow::into_owned)
}

fn kf_body(body: &[u8]) -> Result<KfBody, i32> {
    let fields: KfBody = json_body(body)?;
    match fields.password {
        Some(_) => Err(PARAMETER_INVALID),
        None => Ok(fields),
    }
}

fn json_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, i32> {
    if body.is_empty() {
        return Err(BODY_EMPTY);
    }
    if has_unicode_escape(body) {
        return Err(ESCAPES_REFUSED);
    }
    // The whole body must be UTF-8, also where no known field is, and serde would take a list for a struct.
    let text = str::from_utf8(body).map_err(|_| BODY_MALFORMED)?;
    if !text.trim_start().starts_with('{') {
        return Err(BODY_MALFORMED);
    }
    serde_json::from_str(text).map_err(|_| BODY_MALFORMED)
}

/// Whether `\u` stands in the raw body; `\\u` is an escaped backslash and a plain `u`.
fn has_unicode_escape(body: &[u8]) -> bool {
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'\\' && bytes.next() == Some(&b'u') {
            return true;
        }
    }
    false
}
