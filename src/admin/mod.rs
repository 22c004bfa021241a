//! The admin port: the status page for people, and `/metrics`, `/livez` and `/readyz` for machines.

mod ask;
mod connections;
mod host;
mod look_up;
mod official_accounts;
mod outcomes;
mod page;
mod probes;
mod proof;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::accounts::OfficialAccounts;
use crate::ledger::Recall;
use crate::metrics::Metrics;
use crate::readiness::Readiness;

pub use ask::ask;
pub use host::is_host_name;
pub use proof::prove;

/// Where the admin port is, and under which names.
#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    /// The host names under which the status page may be asked for, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
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
    pub recall: Arc<Recall>,
}

/// All that an answer is made from.
#[derive(Clone)]
struct Port {
    shown: Shown,
    hosts: Arc<[String]>,
    opened_at: Timestamp,
    /// Held by whoever scrapes: one at a time, since a scrape of many Official Accounts is work.
    scraping: Arc<Mutex<()>>,
}

/// Opens the port and answers on it until the token is cancelled.
///
/// # Errors
/// Where the port can't be opened.
pub async fn serve(settings: Settings, shown: Shown, stop: CancellationToken) -> Result<(), BindError> {
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).await.map_err(|source| BindError { listen, source })?;
    // Asked for port 0, the system has chosen one.
    let address = listener.local_addr().unwrap_or(listen);
    tracing::info!(%address, "the admin port answers /, /metrics, /livez and /readyz");
    let router = router(Port { shown, hosts: settings.hosts.into(), opened_at: Timestamp::now(), scraping: Arc::default() });
    tokio::spawn(connections::serve(listener, router, stop));
    Ok(())
}

fn router(port: Port) -> Router {
    // Machines ask for the others under all kinds of names, and these hold nothing of anybody's.
    let pages = Router::new()
        .route("/", get(page::overview))
        .route("/command", get(look_up::look_up))
        .route_layer(from_fn_with_state(port.clone(), host::refuse_strangers));
    Router::new()
        .route("/metrics", get(probes::metrics))
        .route("/livez", get(probes::liveness))
        .route("/readyz", get(probes::readiness))
        .merge(pages)
        .fallback(|| async { (StatusCode::NOT_FOUND, "There is nothing here; see /, /metrics, /livez and /readyz.\n") })
        .layer(map_response(harden))
        .with_state(port)
}

/// What browsers may not do with any answer of the port.
const HARDENING: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

async fn harden(mut response: Response) -> Response {
    for (name, value) in HARDENING {
        // A page has a policy of its own, which lets it have its style.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
