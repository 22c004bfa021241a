//! Under which `Host` the status page is shown: a foreign web page must not read it through somebody's browser.
//!
//! Whoever owns a name can let it lead to the loopback address, and a browser then takes the worker's page for a page of
//! theirs (DNS rebinding). It still says the name in `Host`.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Port;

/// What whoever is refused can do about it.
const REFUSAL: &str = "The status page is not shown under this host name. Ask for it by IP address or as `localhost`, or list the name in `admin.hosts` of the worker's configuration.\n";

/// Lets a request through where it was sent to an IP address, to `localhost`, or to a name that is configured.
pub async fn refuse_strangers(State(port): State<Port>, request: Request, next: Next) -> Response {
    // A target with an authority goes before `Host`; no browser sends one.
    let target = request.uri().authority().is_none_or(|authority| is_taken(authority.as_str(), &port.hosts));
    if target && only_host(request.headers()).is_some_and(|host| is_taken(host, &port.hosts)) {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, REFUSAL).into_response()
    }
}

fn only_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    hosts.next().filter(|_| hosts.next().is_none())?.to_str().ok()
}

fn is_taken(host: &str, names: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Some(address) = name.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    // A name may end in the dot of the root.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4());
    is_address || name.eq_ignore_ascii_case("localhost") || names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The host alone. Nothing where what stands behind the colon is no port.
fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        // The colons of an address in brackets.
        Some((_, rest)) if rest.ends_with(']') => Some(host),
        Some((name, port)) => (port.is_empty() || port.parse::<u16>().is_ok()).then_some(name),
        None => Some(host),
    }
}

/// Whether it is a name as it stands in `Host`, without a port.
pub fn is_host_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(fits) && !text.starts_with('.') && !text.ends_with('.')
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_taken_with_any_port() {
        let names = ["kf.example.com".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9464",
            "[fd00::7]:9464",
            "localhost",
            "LocalHost:9464",
            "localhost.:9464",
            "kf.example.com",
            "KF.Example.com:8443",
            "kf.example.com.",
        ] {
            assert!(is_taken(host, &names), "{host}");
        }
    }

    #[test]
    fn every_other_host_is_refused() {
        let names = ["kf.example.com".to_owned()];
        for host in [
            "",
            ":9464",
            "evil.example",
            "evil.example:9464",
            "a.kf.example.com",
            "kf.example.com.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example:80@127.0.0.1",
            "127.1",
            "2130706433",
            "::1",
            "[::1",
            "[::1].evil.example",
            "[evil.example]",
            "localhost:port",
            "localhost:99999",
            "localhost,evil.example",
            " localhost",
        ] {
            assert!(!is_taken(host, &names), "{host}");
        }
        assert!(!is_taken("kf.example.com", &[]));
    }

    #[test]
    fn one_host_is_needed_and_no_second_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(only_host(&headers), None);
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        assert_eq!(only_host(&headers), Some("localhost"));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(only_host(&headers), None);
    }

    #[test]
    fn a_host_name_has_neither_scheme_nor_port() {
        assert!(is_host_name("kf-worker.prod.example.com") && is_host_name("kf"));
        for text in ["", "https://kf", "kf:9464", "kf/", "*.example.com", "kf.", ".kf", "[::1]", "a b"] {
            assert!(!is_host_name(text), "{text}");
        }
    }
}
