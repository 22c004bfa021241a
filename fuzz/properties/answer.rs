//! Whatever WeChat, or what stands before it, answers: something that is known, or a failure whose words hold nothing of a token.
//!
//! An input is the endpoint and the HTTP status (`token 200`), an empty line, the answer's body.

use std::time::Duration;

use super::MARK;
use super::reading::{assert_line, head_and_body};
use crate::outcome::AttemptFailure;
use crate::wechat::answer::{Endpoint, check_status, parse};
use crate::wechat::token::{Fetched, fetched};
use crate::wechat::{Listed, Reached, judge, listed, refused_address};

pub fn holds(input: &[u8]) -> bool {
    let Some((head, body)) = head_and_body(input) else { return false };
    let (word, status) = head.split_once(' ').unwrap_or((head, "200"));
    let endpoint = match word {
        "add" => Endpoint::Add,
        "delete" => Endpoint::Delete,
        "list" => Endpoint::List,
        "token" => Endpoint::Token,
        "platform" => Endpoint::Token,
        "authorizer" => Endpoint::AuthorizerToken,
        _ => return false,
    };
    let Ok(status) = status.parse() else { return false };
    let name = if word == "token" { "access_token" } else { "component_access_token" };
    let answered = read(endpoint, name, status, body);
    match &answered {
        Ok(Answered::Token(fetched)) => assert_token(fetched),
        Ok(Answered::List(_) | Answered::Call(_)) => assert_eq!(status, 200),
        Err(failed) => assert_failed(endpoint, failed),
    }
    assert_eq!(format!("{:?}", read(endpoint, name, status, body)), format!("{answered:?}"), "it means the same each time");
    true
}

/// What an answer turned out to be.
#[derive(Debug)]
enum Answered {
    Call(#[expect(dead_code, reason = "compared as it is shown")] Reached),
    List(#[expect(dead_code, reason = "compared as it is shown")] Vec<Listed>),
    Token(Fetched),
}

/// Reads an answer as its caller does.
fn read(endpoint: Endpoint, name: &str, status: u16, body: &[u8]) -> Result<Answered, AttemptFailure> {
    check_status(endpoint, status)?;
    let (reached, answer) = judge(endpoint, parse(endpoint, body)?)?;
    match endpoint {
        Endpoint::Add | Endpoint::Delete => Ok(Answered::Call(reached)),
        Endpoint::List => listed(answer).map(Answered::List),
        Endpoint::Token => fetched(name, answer).map(Answered::Token),
        Endpoint::AuthorizerToken => fetched("authorizer_access_token", answer).map(Answered::Token),
    }
}

fn assert_token(fetched: &Fetched) {
    assert!(!fetched.token.expose().is_empty() && fetched.life <= Duration::from_secs(86_400));
    let shown = format!("{fetched:?}");
    assert!(!shown.contains(MARK), "{shown}");
}

/// In short words, which hold nothing of the answer but WeChat's own text; and only where something may have changed is the answer
/// called lost.
fn assert_failed(endpoint: Endpoint, failed: &AttemptFailure) {
    let failure = &failed.failure;
    assert_line(&failure.detail);
    assert!(!failure.detail.contains(MARK), "{failed:?}");
    assert!(endpoint.changes() || !failed.answer_lost, "{failed:?}");
    assert!(failure.answer.is_none() || !failed.answer_lost, "an answer that can be read is not lost: {failed:?}");
    let told = failure.answer.as_ref().map_or(0, |answer| answer.errmsg.chars().count());
    assert!(told <= 500, "{told} characters of WeChat's");
    refused_address(failure);
}
