//! The admin port: `/metrics`, `/livez` and `/readyz`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accounts::{OfficialAccounts, Pause};
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// Where the admin port is.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub listen: SocketAddr,
}

/// The port can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the admin port {listen} can't be opened: {source}; set `admin.listen` to a free one")]
pub struct BindError {
    listen: SocketAddr,
    source: std::io::Error,
}

/// What the port shows.
#[derive(Clone)]
pub struct Shown {
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub accounts: Arc<OfficialAccounts>,
}

/// Paused Official Accounts are told of in the answer to `/readyz`, so many of them.
const MOST_PAUSES: usize = 20;

/// Opens the port and answers on it until the token is cancelled.
///
/// # Errors
/// Where the port can't be opened.
pub async fn serve(settings: Settings, shown: Shown, stop: CancellationToken) -> Result<(), BindError> {
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).await.map_err(|source| BindError { listen, source })?;
    // Asked for port 0, the system has chosen one.
    let address = listener.local_addr().unwrap_or(listen);
    tracing::info!(%address, "the admin port answers /metrics, /livez and /readyz");
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(show_liveness))
        .route("/readyz", get(show_readiness))
        .with_state(shown);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "the admin port has failed");
        }
    });
    Ok(())
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    shown.accounts.show();
    shown.metrics.readiness(shown.readiness.why_not().map(|(reason, _)| reason));
    match shown.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn show_liveness(State(shown): State<Shown>) -> Response {
    if shown.readiness.is_stuck() {
        (StatusCode::SERVICE_UNAVAILABLE, "stuck: no commands are being taken although the broker is connected\n").into_response()
    } else {
        "alive\n".into_response()
    }
}

async fn show_readiness(State(shown): State<Shown>) -> Response {
    match shown.readiness.why_not() {
        None => format!("ready\n{}", paused(&shown.accounts)).into_response(),
        Some((reason, sentence)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {sentence}\n", reason.as_str())).into_response(),
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
        let left = pause.until.saturating_duration_since(Instant::now());
        let next = Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let Pause { scope, since, failure, .. } = pause;
        let _ = writeln!(text, "paused: {wechat_id} ({scope}): {} since {since:.0}, next call {next}", failure.reason);
    }
    if pauses.len() > MOST_PAUSES {
        let _ = writeln!(text, "and {} more", pauses.len() - MOST_PAUSES);
    }
    text
}
