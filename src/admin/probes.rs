//! What machines ask: `/metrics`, `/livez` and `/readyz`.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Port, Shown};
use crate::accounts::{OfficialAccounts, Pause};
use crate::metrics::Metrics;

/// Paused Official Accounts are told of in the answer to `/readyz`, so many of them.
const MOST_PAUSES: usize = 20;

pub async fn metrics(State(port): State<Port>) -> Response {
    let _alone = port.scraping.lock().await;
    let Shown { metrics, readiness, accounts, .. } = &port.shown;
    accounts.show();
    metrics.readiness(readiness.why_not().map(|why_not| why_not.reason));
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub async fn liveness(State(port): State<Port>) -> Response {
    if port.shown.readiness.is_stuck() {
        (StatusCode::SERVICE_UNAVAILABLE, "stuck: no commands are being taken although the broker is connected\n").into_response()
    } else {
        "alive\n".into_response()
    }
}

pub async fn readiness(State(port): State<Port>) -> Response {
    match port.shown.readiness.why_not() {
        None => format!("ready\n{}", paused(&port.shown.accounts)).into_response(),
        Some(why_not) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why_not}\n")).into_response(),
    }
}

/// One line for each pause. Paused Official Accounts are no reason to send the worker no commands: others go on.
fn paused(accounts: &OfficialAccounts) -> String {
    let pauses: Vec<(String, Pause)> = accounts
        .all()
        .iter()
        .flat_map(|account| account.all_pauses().into_iter().map(|pause| (account.wechat_id().to_owned(), pause)))
        .collect();
    let mut text = String::new();
    for (wechat_id, pause) in pauses.iter().take(MOST_PAUSES) {
        let next = pause.next_call_at().strftime("%Y-%m-%dT%H:%M:%SZ");
        let Pause { scope, since, failure, .. } = pause;
        let _ = writeln!(text, "paused: {wechat_id} ({scope}): {} since {since:.0}, next call {next}", failure.reason);
    }
    if pauses.len() > MOST_PAUSES {
        let _ = writeln!(text, "and {} more", pauses.len() - MOST_PAUSES);
    }
    text
}
