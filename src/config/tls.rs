//! Reads how connections are encrypted, and tries the files, so that a wrong one is told by its key before anything is connected.

use super::reader::Reader;
use crate::broker::BrokerUrl;
use crate::tls::{Identity, Tls, TlsError};

/// Whom an https or amqps server must be known by: a file of authorities, or the system's, which must be there where they are
/// needed.
pub fn read_authorities(reader: &mut Reader, key: &str, needed: bool) -> Tls {
    let tls = Tls { authorities: reader.path(key), identity: None };
    if (needed || tls.authorities.is_some())
        && let Err(error) = tls.client()
    {
        reader.fault(key, error.to_string());
    }
    tls
}

/// The same for the broker, with a certificate of our own where one is given.
pub fn read_broker_tls(reader: &mut Reader, url: &BrokerUrl) -> Tls {
    const CERTIFICATE: &str = "amqp.client_certificate_file";
    const KEY: &str = "amqp.client_key_file";
    let Tls { authorities, .. } = read_authorities(reader, "amqp.ca_file", url.is_encrypted());
    let identity = match (reader.path(CERTIFICATE), reader.secret_path(KEY)) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            reader.fault(KEY, format!("is missing beside `{CERTIFICATE}`"));
            None
        }
        (None, Some(_)) => {
            reader.fault(CERTIFICATE, format!("is missing beside `{KEY}`"));
            None
        }
    };
    let tls = Tls { authorities, identity };
    if !url.is_encrypted() && tls != Tls::default() {
        let key = if tls.authorities.is_some() { "amqp.ca_file" } else { CERTIFICATE };
        reader.fault(key, "is for encrypted connections, and `amqp.url` begins with amqp://; write amqps://");
    }
    if url.shows_certificate() && tls.identity.is_none() {
        let what = format!("asks for auth_mechanism=external, which shows the broker a certificate: give `{CERTIFICATE}` and `{KEY}`");
        reader.fault("amqp.url", what);
    }
    match tls.identity.is_some().then(|| tls.client()) {
        Some(Err(TlsError::Certificate(error))) => reader.fault(CERTIFICATE, error.to_string()),
        Some(Err(error @ (TlsError::Key(_) | TlsError::Unfit { .. }))) => reader.fault(KEY, error.to_string()),
        // What is wrong with the authorities was told already.
        Some(Err(_) | Ok(_)) | None => {}
    }
    tls
}
