//! Where the broker is, and as whom: its URL, which holds a password and is never shown.

use std::fmt;
use std::net::IpAddr;

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};

/// What the URL may ask for behind its `?`. What RabbitMQ's own clients take there besides is about certificates.
const PARAMETERS: [&str; 4] = ["heartbeat", "channel_max", "frame_max", "auth_mechanism"];

/// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://…`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BrokerUrl(pub(super) AMQPUri);

impl BrokerUrl {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold no part of it.
    pub fn parse(url: &str) -> Result<Self, String> {
        if is_ambiguous(url) {
            return Err("has an @ behind a / or ?, or a #, maybe in its password; write %40, %2F, %3F and %23".to_owned());
        }
        // The parser's own words may hold the whole of it.
        let uri: Result<AMQPUri, String> = url.parse();
        let mut uri = uri.map_err(|_| {
            "is not an AMQP URL; write amqp://USER:PASSWORD@HOST:5672/VHOST or amqps://USER:PASSWORD@HOST:5671/VHOST, with %2f for the vhost /, and other characters in %XX form".to_owned()
        })?;
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let authority = address.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // The parser takes this machine where it finds an address of IPv6.
        if let Some((v6, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            uri.authority.host = v6.to_owned();
        }
        let mut names = parameters.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or_default());
        if names.any(|name| !PARAMETERS.contains(&name)) {
            return Err(format!(
                "has another parameter behind its ? than {}; certificates are named by `amqp.ca_file`, `amqp.client_certificate_file` and `amqp.client_key_file`",
                PARAMETERS.join(", ")
            ));
        }
        // The parser puts in a guest where nobody is named; a certificate is nobody's guest.
        if uri.query.auth_mechanism == Some(SASLMechanism::External) && !authority.contains('@') {
            uri.authority.userinfo.username.clear();
        }
        Ok(Self(uri))
    }

    /// The user it names. With a certificate it may name none: the broker knows who that is.
    pub fn user(&self) -> Option<&str> {
        Some(self.0.authority.userinfo.username.as_str()).filter(|user| !user.is_empty())
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }

    /// Whether a certificate says who we are, and no password.
    pub fn shows_certificate(&self) -> bool {
        self.0.query.auth_mechanism == Some(SASLMechanism::External)
    }

    /// Whether the password and what people are called cross a network unencrypted.
    pub fn is_exposed(&self) -> bool {
        let host = &self.0.authority.host;
        !self.is_encrypted() && host != "localhost" && !host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// Takes up another user and password. A URL that says anything else besides is not taken, since a password for one place
    /// must not be shown to another; answers whether it was.
    pub fn take_up(&mut self, other: &Self) -> bool {
        let mut same_place = self.clone();
        same_place.0.authority.userinfo.clone_from(&other.0.authority.userinfo);
        let taken = same_place == *other;
        if taken {
            *self = same_place;
        }
        taken
    }
}

/// Where it is and nothing secret.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.0.authority;
        match authority.host.contains(':') {
            true => write!(formatter, "[{}]:{}", authority.host, authority.port),
            false => write!(formatter, "{}:{}", authority.host, authority.port),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Whether a `/`, `?` or `#` may belong to a password. Taken as it stands, what is before it would be the host, which is shown.
fn is_ambiguous(url: &str) -> bool {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    url.contains('#') || place.split_once(['/', '?']).is_some_and(|(_, behind)| behind.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_without_its_password() {
        let url = BrokerUrl::parse("amqps://kf:hunter2@mq.example/%2f?heartbeat=5&auth_mechanism=external").unwrap();
        assert!(url.is_encrypted() && url.shows_certificate() && !url.is_exposed());
        assert_eq!(format!("{url} {url:?}"), "mq.example:5671 mq.example:5671");
        assert_eq!(BrokerUrl::parse("amqp://kf:hunter2@[::1]:5673/kf").unwrap().to_string(), "[::1]:5673");
    }

    #[test]
    fn the_user_is_the_one_that_is_named() {
        let user = |url: &str| BrokerUrl::parse(url).unwrap().user().map(str::to_owned);
        assert_eq!(user("amqp://hr%40corp:x@mq.example/kf").as_deref(), Some("hr@corp"));
        assert_eq!(user("amqp://mq.example/kf").as_deref(), Some("guest"));
        assert_eq!(user("amqps://mq.example/kf?auth_mechanism=external"), None);
        assert_eq!(user("amqps://hr@mq.example/kf?auth_mechanism=external").as_deref(), Some("hr"));
    }

    #[test]
    fn brackets_of_a_password_or_a_vhost_are_no_host() {
        for url in ["amqp://kf:pa[ss]word@mq.example/kf", "amqp://kf:x@mq.example/[ss]", "amqp://kf:[ss]@mq.example"] {
            assert_eq!(BrokerUrl::parse(url).unwrap().to_string(), "mq.example:5672", "{url}");
        }
    }

    #[test]
    fn what_crosses_a_network_unencrypted_is_known() {
        let exposed = |url: &str| BrokerUrl::parse(url).unwrap().is_exposed();
        assert!(exposed("amqp://kf:hunter2@mq.example/%2f") && exposed("amqp://kf:hunter2@[2001:db8::1]/%2f"));
        assert!(!exposed("amqp://kf:hunter2@127.0.0.1/%2f") && !exposed("amqp://localhost/%2f") && !exposed("amqp://[::1]/%2f"));
    }

    #[test]
    fn faults_are_told_without_the_url() {
        for bad in [
            "amqp:kf:hunter2@mq.example",
            "http://kf:hunter2@mq.example",
            "hunter2",
            "amqp://kf:hunter2@mq.example:port/",
            "amqps://kf:hunter2@mq.example/?verify=hunter2",
            "amqps://kf:hunter2@mq.example/?auth_mechanism=hunter2",
            "amqp://kf:pass@hunter2/word@mq.example/kf",
            "amqp://kf:pass@hunter2#word@mq.example/kf",
            "amqp://kf:pass@hunter2?@mq.example/kf",
        ] {
            let fault = BrokerUrl::parse(bad).unwrap_err();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn another_password_is_taken_up_and_another_host_is_not() {
        let read = |url| BrokerUrl::parse(url).unwrap();
        let mut url = read("amqp://kf:one@mq.example/kf");
        for other in ["amqp://kf:two@other.example/kf", "amqps://kf:two@mq.example/kf", "amqp://kf:two@mq.example/other"] {
            assert!(!url.take_up(&read(other)) && url == read("amqp://kf:one@mq.example/kf"), "{other}");
        }
        assert!(url.take_up(&read("amqp://kf2:two@mq.example/kf")) && url == read("amqp://kf2:two@mq.example/kf"));
    }
}
