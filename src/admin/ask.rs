//! Asks the admin port of a running worker, as a container's health check does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::redirect;

/// The port answers within milliseconds; one that takes longer is not well.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What the port answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether all is well.
    pub well: bool,
    /// The same in words.
    pub text: String,
}

/// The port did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the admin port {asked} does not answer ({cause}); does a worker run here, with the same `admin.listen`?")]
pub struct NoAnswer {
    asked: SocketAddr,
    /// What the system said.
    cause: String,
}

/// Asks the port that listens at this address whether the worker is ready, or merely alive.
///
/// # Errors
/// Where nobody answers in time.
pub async fn ask(listen: SocketAddr, only_alive: bool) -> Result<Answer, NoAnswer> {
    let asked = SocketAddr::new(reachable(listen.ip()), listen.port());
    let path = if only_alive { "livez" } else { "readyz" };
    let exchange = async {
        let client = reqwest::Client::builder()
            .timeout(TIME_LIMIT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            // No certificate is ever looked at, so none need be there.
            .tls_certs_only([])
            .build()?;
        let response = client.get(format!("http://{asked}/{path}")).send().await?;
        Ok(Answer { well: response.status().is_success(), text: response.text().await? })
    };
    exchange.await.map_err(|error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error.without_url();
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        NoAnswer { asked, cause: cause.to_string() }
    })
}

/// Who listens on all addresses is asked on this machine's own.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
