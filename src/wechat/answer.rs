//! Reads an HTTP answer of WeChat: the number that decides, wherever and however it stands.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::codes;
use crate::outcome::{Answer, AttemptFailure, Class, Failure, Reason};

/// So many characters of WeChat's words are kept; it never writes nearly as many.
const LONGEST_ERRMSG: usize = 500;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Add,
    Delete,
    /// The kf accounts of an Official Account.
    List,
    /// An Official Account's own token, or a third-party platform's.
    Token,
    /// An Official Account's token, asked for with the token of the third-party platform that acts for it.
    AuthorizerToken,
}

impl Endpoint {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Token | Self::AuthorizerToken => "token",
        }
    }

    /// Whether a lost answer may hide a change.
    pub fn changes(self) -> bool {
        matches!(self, Self::Add | Self::Delete)
    }

    /// Whether a success says nothing but what was asked for, without an errcode.
    fn succeeds_without_errcode(self, body: &Map<String, Value>) -> bool {
        let asked_for = match self {
            Self::Add | Self::Delete => return false,
            Self::List => "kf_list",
            Self::Token if body.contains_key("component_access_token") => "component_access_token",
            Self::Token => "access_token",
            Self::AuthorizerToken => "authorizer_access_token",
        };
        body.contains_key(asked_for)
    }
}

/// WeChat's own answer.
#[derive(Debug)]
pub struct WeChatAnswer {
    pub errcode: i64,
    pub errmsg: String,
    /// The whole object, for what a success carries.
    pub body: Map<String, Value>,
}

impl WeChatAnswer {
    /// The failure that this answer stands for.
    pub fn into_failure(self, class: Class, reason: Reason) -> AttemptFailure {
        let detail = codes::advice(reason, self.errcode).to_owned();
        let answer = Some(Answer { errcode: self.errcode, errmsg: self.errmsg });
        AttemptFailure::new(class, Failure { reason, answer, detail })
    }
}

/// A JSON object. One that gives a key twice says two things, of which readers take the one or the other: it proves nothing.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Object, A::Error> {
                let mut body = Map::new();
                while let Some((key, value)) = pairs.next_entry()? {
                    if body.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                }
                Ok(Object(body))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Judges an HTTP status; an answer of WeChat's has 200 even for errors.
pub fn check_status(endpoint: Endpoint, status: u16) -> Result<(), AttemptFailure> {
    let failed = |class, reason, detail: String, answer_lost| {
        Err(AttemptFailure { class, failure: Failure::new(reason, detail), answer_lost: answer_lost && endpoint.changes() })
    };
    match status {
        200 => Ok(()),
        412 => failed(Class::Bug, Reason::WorkerBug, "WeChat's gateway refused the form of the request (HTTP 412).".to_owned(), false),
        429 => failed(Class::Retry, Reason::GatewayError, "A gateway before WeChat asked to slow down (HTTP 429).".to_owned(), false),
        // The gateway gave up waiting, or broke: what stands behind it may have done its work.
        408 | 500..=599 => failed(Class::Retry, Reason::GatewayError, format!("A gateway before WeChat failed (HTTP {status})."), true),
        // Never followed: the token would leave for somebody else's host.
        _ => failed(
            Class::ACCOUNT,
            Reason::Misconfigured,
            format!("HTTP {status} is not WeChat's answer; check `wechat.base_url` and any proxy."),
            false,
        ),
    }
}

/// Reads the body of an answer, whatever its Content-Type says.
pub fn parse(endpoint: Endpoint, bytes: &[u8]) -> Result<WeChatAnswer, AttemptFailure> {
    let malformed = |detail: &str| AttemptFailure {
        class: Class::Retry,
        failure: Failure::new(Reason::MalformedAnswer, detail),
        answer_lost: endpoint.changes(),
    };
    let Object(mut body) = serde_json::from_slice(bytes)
        .map_err(|_| malformed("The answer is no JSON object with each key once; a gateway or proxy may have answered."))?;
    let errcode = match body.get("errcode") {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        None if endpoint.succeeds_without_errcode(&body) => Some(0),
        _ => None,
    };
    let errcode = errcode.ok_or_else(|| malformed("The answer has no errcode; a gateway or proxy may have answered."))?;
    let errmsg = match body.get_mut("errmsg").map(Value::take) {
        Some(Value::String(text)) => shortened(text),
        _ => String::new(),
    };
    Ok(WeChatAnswer { errcode, errmsg, body })
}

/// What stands between us and WeChat may write anything, and this goes into events, ledger and logs.
fn shortened(mut errmsg: String) -> String {
    if let Some((end, _)) = errmsg.char_indices().nth(LONGEST_ERRMSG) {
        errmsg.truncate(end);
    }
    errmsg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errmsg_is_kept_up_to_a_length_that_wechat_never_needs() {
        let body = |length: usize| format!(r#"{{"errcode":-1,"errmsg":"{}"}}"#, "客".repeat(length));
        let errmsg = |length| parse(Endpoint::Add, body(length).as_bytes()).unwrap().errmsg;
        assert_eq!(errmsg(LONGEST_ERRMSG), "客".repeat(LONGEST_ERRMSG));
        assert_eq!(errmsg(LONGEST_ERRMSG + 1), "客".repeat(LONGEST_ERRMSG));
    }

    #[test]
    fn an_errcode_is_read_as_number_and_as_text() {
        assert_eq!(parse(Endpoint::Add, br#"{"errcode":65406,"errmsg":"exists rid: a-b-c"}"#).unwrap().errcode, 65406);
        assert_eq!(parse(Endpoint::Add, br#"{"errcode":"-1"}"#).unwrap().errcode, -1);
        assert_eq!(parse(Endpoint::Token, br#"{"access_token":"T","expires_in":7200}"#).unwrap().errcode, 0);
        assert_eq!(parse(Endpoint::Token, br#"{"component_access_token":"T","expires_in":7200}"#).unwrap().errcode, 0);
        assert_eq!(parse(Endpoint::AuthorizerToken, br#"{"authorizer_access_token":"T"}"#).unwrap().errcode, 0);
        assert_eq!(parse(Endpoint::List, br#"{"kf_list":[]}"#).unwrap().errcode, 0);
    }

    #[test]
    fn what_is_not_wechats_json_may_hide_a_change() {
        for body in [&b""[..], b"<html>", b"[]", b"{}", br#"{"errcode":null}"#, br#"{"errcode":1.5}"#, br#"{"errcode":65401,"errcode":0}"#]
        {
            let failure = parse(Endpoint::Add, body).unwrap_err();
            assert_eq!((failure.class, failure.failure.reason, failure.answer_lost), (Class::Retry, Reason::MalformedAnswer, true));
        }
        assert!(!parse(Endpoint::Token, b"<html>").unwrap_err().answer_lost);
    }

    #[test]
    fn http_statuses_have_their_classes() {
        let class = |status| check_status(Endpoint::Delete, status).unwrap_err();
        assert!(check_status(Endpoint::Add, 200).is_ok());
        for status in [408, 500, 502, 503, 504] {
            assert_eq!((class(status).class, class(status).answer_lost), (Class::Retry, true));
        }
        assert_eq!((class(429).class, class(429).answer_lost), (Class::Retry, false));
        assert_eq!(class(412).class, Class::Bug);
        for status in [204, 301, 302, 307, 400, 401, 403, 404] {
            assert_eq!(class(status).class, Class::ACCOUNT);
        }
    }
}
