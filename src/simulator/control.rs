//! The control endpoint: what tests and demos see of the simulator and change while it runs.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};

use super::faults::Rule;
use super::quota::{Action, Override};
use super::server::{Server, ServerState};

/// What a control call ends with: nothing to say, or why it can't be done.
type Done = Result<StatusCode, (StatusCode, String)>;

/// The body that sets a quota.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetQuota {
    action: Action,
    minute: Option<u32>,
    day: Option<u32>,
}

/// All control calls.
pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/control/accounts", get(show_accounts))
        .route("/control/calls", get(show_calls))
        .route("/control/faults", get(show_faults).put(set_faults).delete(clear_faults))
        .route("/control/tokens/expire", post(expire_tokens))
        .route("/control/official-accounts/{wechat_id}/secret", put(set_secret))
        .route("/control/official-accounts/{wechat_id}/quota", put(set_quota))
        .route("/control/platforms", get(show_platforms))
        .route("/control/platforms/expire-tickets", post(expire_tickets))
        .route("/control/platforms/push-ticket", post(push_ticket))
        .route("/control/reset", post(reset))
}

async fn show_accounts(State(server): State<Arc<Server>>) -> Response {
    show(&server.state().platform.kf_accounts())
}

async fn show_calls(State(server): State<Arc<Server>>) -> Response {
    show(&server.state().calls.view())
}

async fn show_faults(State(server): State<Arc<Server>>) -> Response {
    show(&server.state().faults.rules)
}

async fn set_faults(State(server): State<Arc<Server>>, body: Bytes) -> Done {
    let rules = read_rules(&body).map_err(wrong)?;
    server.state().faults.rules = rules;
    Ok(StatusCode::NO_CONTENT)
}

fn read_rules(body: &[u8]) -> Result<Vec<Rule>, String> {
    let rules: Vec<Rule> = serde_json::from_slice(body).map_err(|error| format!("this is no list of fault rules: {error}"))?;
    for (number, rule) in (1..).zip(&rules) {
        rule.check().map_err(|sentence| format!("rule {number}: {sentence}"))?;
    }
    Ok(rules)
}

async fn clear_faults(State(server): State<Arc<Server>>) -> StatusCode {
    server.state().faults.rules.clear();
    StatusCode::NO_CONTENT
}

async fn expire_tokens(State(server): State<Arc<Server>>) -> StatusCode {
    server.state().platform.expire_tokens(SystemTime::now());
    StatusCode::NO_CONTENT
}

async fn set_secret(State(server): State<Arc<Server>>, Path(wechat_id): Path<String>, body: Bytes) -> Done {
    let mut state = server.state();
    let account = state.platform.official_account(&wechat_id).ok_or_else(|| nobody(&wechat_id))?;
    // Whoever sends it from a file may send the end of the line with it.
    let secret = str::from_utf8(&body).unwrap_or_default().trim();
    if secret.is_empty() {
        return Err(wrong("the body must be the new AppSecret".to_owned()));
    }
    account.change_secret(secret.to_owned(), SystemTime::now());
    Ok(StatusCode::NO_CONTENT)
}

async fn set_quota(State(server): State<Arc<Server>>, Path(wechat_id): Path<String>, body: Bytes) -> Done {
    let mut state = server.state();
    let account = state.platform.official_account(&wechat_id).ok_or_else(|| nobody(&wechat_id))?;
    let SetQuota { action, minute, day } =
        serde_json::from_slice(&body).map_err(|error| wrong(format!("this is no quota of an action: {error}")))?;
    account.quota(action).own = Override { minute, day };
    Ok(StatusCode::NO_CONTENT)
}

async fn show_platforms(State(server): State<Arc<Server>>) -> Response {
    show(&server.state().platform.third_parties(SystemTime::now()))
}

async fn expire_tickets(State(server): State<Arc<Server>>) -> Done {
    let mut state = server.state();
    for third_party in state.platform.third_parties_mut() {
        third_party.tickets.expire(SystemTime::now());
    }
    // One may have been due a moment before.
    state.keep_ticket(&server.settings, SystemTime::now()).map_err(broken)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn push_ticket(State(server): State<Arc<Server>>) -> Done {
    let mut state = server.state();
    for third_party in state.platform.third_parties_mut() {
        third_party.tickets.push(SystemTime::now());
    }
    state.keep_ticket(&server.settings, SystemTime::now()).map_err(broken)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset(State(server): State<Arc<Server>>) -> Done {
    let mut state = server.state();
    *state = ServerState::new(&server.settings).map_err(broken)?;
    Ok(StatusCode::NO_CONTENT)
}

fn show(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => broken(error).into_response(),
    }
}

fn wrong(sentence: String) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("{sentence}\n"))
}

fn nobody(wechat_id: &str) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("there is no Official Account {wechat_id}\n"))
}

fn broken(error: impl ToString) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", error.to_string()))
}
