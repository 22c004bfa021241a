//! Where the database is: its URL, and what it says of encryption.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::connection::TIME_LIMIT;
use crate::tls::{Tls, TlsError};

/// Where the database is, as whom, and whether the connection is encrypted; the password is in it.
#[derive(Clone)]
pub struct PostgresUrl {
    /// Clones share it, so that all of them have the latest password.
    config: Arc<RwLock<Arc<tokio_postgres::Config>>>,
    pub encryption: Encryption,
}

/// Whether the connection is encrypted.
#[derive(Clone, PartialEq, Eq)]
pub enum Encryption {
    Off,
    /// The certificate is checked, its name included.
    Checked(Tls),
}

impl PostgresUrl {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with `?sslmode=require` and `&sslrootcert=FILE` for TLS.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold no part of it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if is_ambiguous(base) || query.contains('@') {
            return Err("has an @, / or ? in its user, password or database, or an @ behind these; write %40, %2F and %3F");
        }
        let (mut mode, mut authorities, mut others) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => authorities = Some(PathBuf::from(unescaped(value))),
                _ => others.push(pair),
            }
        }
        let checked = |authorities| Encryption::Checked(Tls { authorities, identity: None });
        let encryption = match mode {
            None | Some("disable") if authorities.is_none() => Encryption::Off,
            None | Some("require" | "verify-ca" | "verify-full") => checked(authorities),
            Some("disable") => {
                return Err("names certificates (`sslrootcert`) and turns TLS off (`sslmode=disable`); write sslmode=require");
            }
            Some(_) => {
                return Err(
                    "has an `sslmode` that this worker does not take; write `disable`, or `require` (which checks the certificate, as `verify-full` does)",
                );
            }
        };
        let mut config: tokio_postgres::Config = format!("{base}?{}", others.join("&"))
            .parse()
            .map_err(|_| "is not a PostgreSQL URL; write postgres://USER:PASSWORD@HOST:5432/DATABASE, with other characters in %XX form")?;
        if config.get_hosts().is_empty() {
            return Err("names no host; write postgres://USER:PASSWORD@HOST:5432/DATABASE");
        }
        config.ssl_mode(if encryption == Encryption::Off { SslMode::Disable } else { SslMode::Require });
        if config.get_application_name().is_none() {
            config.application_name("kf-worker");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(TIME_LIMIT / 2);
        }
        // Of several hosts, after a failover, only one takes writes.
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.tcp_user_timeout(TIME_LIMIT).keepalives_idle(TIME_LIMIT);
        Ok(Self { config: Arc::new(RwLock::new(Arc::new(config))), encryption })
    }

    /// What a connection is made from.
    pub fn config(&self) -> Arc<tokio_postgres::Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up another user and password, here and in all clones, for connections made from now on. A URL that says anything
    /// else besides is not taken; answers whether it was.
    pub fn take_up(&self, other: &Self) -> bool {
        let place = |url: &Self| {
            let mut config = (*url.config()).clone();
            config.user("").password("");
            config
        };
        let taken = place(self) == place(other) && self.encryption == other.encryption;
        if taken {
            *self.config.write().unwrap_or_else(PoisonError::into_inner) = other.config();
        }
        taken
    }

    /// Tries the files against which the certificate is checked.
    ///
    /// # Errors
    /// Where they can't be used.
    pub fn certificates(&self) -> Result<(), TlsError> {
        match &self.encryption {
            Encryption::Checked(tls) => tls.client().map(drop),
            Encryption::Off => Ok(()),
        }
    }

    /// Whether a password is in it.
    pub fn has_password(&self) -> bool {
        self.config().get_password().is_some()
    }

    /// Whether passwords and nicknames cross a network unencrypted.
    pub fn is_exposed(&self) -> bool {
        let local = |host: &Host| match host {
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
            Host::Unix(_) => true,
        };
        let config = self.config();
        let all_local = config.get_hosts().iter().all(local) && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
        self.encryption == Encryption::Off && !all_local
    }
}

/// Where it is and nothing secret.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config();
        write!(formatter, "`{}`", config.get_dbname().or(config.get_user()).unwrap_or_default())?;
        for (index, host) in config.get_hosts().iter().enumerate() {
            formatter.write_str(if index == 0 { " on " } else { ", " })?;
            let ports = config.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(formatter, "{name}:{port}")?,
                Host::Unix(path) => write!(formatter, "{}", path.display())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Whether an `@` or `/` may belong to a password. Taken as it stands, the end of that would be a host or a database, which are
/// shown.
fn is_ambiguous(base: &str) -> bool {
    let place = base.split_once("://").map_or(base, |(_, place)| place);
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    authority.matches('@').count() > 1 || database.contains('@')
}

fn unescaped(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_without_its_password() {
        let url = PostgresUrl::parse("postgres://kf:hunter2@db.example:5433/ledger?sslmode=verify-full&sslrootcert=/ca.pem").unwrap();
        assert!(url.encryption == Encryption::Checked(Tls { authorities: Some(PathBuf::from("/ca.pem")), identity: None }));
        assert!(!url.is_exposed());
        assert_eq!(format!("{url} {url:?}"), "`ledger` on db.example:5433 `ledger` on db.example:5433");
    }

    #[test]
    fn what_crosses_a_network_unencrypted_is_known() {
        assert!(PostgresUrl::parse("postgres://kf@db.example/ledger").unwrap().is_exposed());
        assert!(PostgresUrl::parse("postgres://kf@localhost/ledger?hostaddr=192.0.2.1").unwrap().is_exposed());
        assert!(!PostgresUrl::parse("postgres://kf@127.0.0.1/ledger").unwrap().is_exposed());
        assert!(!PostgresUrl::parse("postgres://kf@%2Frun%2Fpostgresql/ledger").unwrap().is_exposed());
    }

    #[test]
    fn another_password_is_taken_up_in_all_clones_and_another_host_is_not() {
        let read = |url| PostgresUrl::parse(url).unwrap();
        let url = read("postgres://kf@db.example/ledger");
        let clone = url.clone();
        for other in ["postgres://kf:two@other.example/ledger", "postgres://kf:two@db.example/ledger?sslmode=require"] {
            assert!(!url.take_up(&read(other)), "{other}");
        }
        assert!(!clone.has_password());
        assert!(url.take_up(&read("postgres://kf2:two@db.example/ledger")));
        assert_eq!((clone.config().get_user(), clone.config().get_password()), (Some("kf2"), Some(&b"two"[..])));
    }

    #[test]
    fn faults_are_told_without_the_url() {
        for bad in [
            "postgres://kf:hunter2@h:port/x",
            "postgres://kf:hunter2@h/x?sslmode=prefer",
            "postgres:///x?sslmode=disable",
            "postgres://h/x?sslmode=disable&sslrootcert=a",
            "postgres://kf:pass@hunter2@h/x",
            "postgres://kf:12/hunter2@h/x",
            "postgres://kf:12?connect_timeout=@hunter2@h/x",
        ] {
            let fault = PostgresUrl::parse(bad).unwrap_err();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
