//! Whom the worker believes on the other end of an encrypted connection, and what it shows of itself.
//!
//! One answer for RabbitMQ, PostgreSQL and WeChat: the certificate is always checked, its name included, against the system's
//! authorities or against those of a file alone. Files are read anew for each connection to broker and database, so that renewed
//! certificates are taken up without a restart; those for WeChat are read at the start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// How a connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// A file of certificates (PEM) of the authorities that are believed, and no others; without it the system's are.
    pub authorities: Option<PathBuf>,
    /// What is shown to a server that asks who we are.
    pub identity: Option<Identity>,
}

/// A certificate of our own. Both files are PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// The files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authorities' file can't be used.
    #[error("{0}")]
    Authorities(Unusable),
    /// The system knows no authorities.
    #[error(
        "the system's certificates of authorities can't be found; install them (Debian's package ca-certificates), or name a file of them"
    )]
    NoAuthorities,
    /// The own certificate can't be used.
    #[error("{0}")]
    Certificate(Unusable),
    /// The own key can't be used.
    #[error("{0}")]
    Key(Unusable),
    /// The own key is another certificate's.
    #[error("the key {key} doesn't fit the certificate {certificate}: {error}", key = .identity.key.display(), certificate = .identity.certificate.display())]
    Unfit { identity: Box<Identity>, error: rustls::Error },
    /// The library for TLS refuses its own defaults.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

/// What is wrong with a file. Nothing of what it holds is told.
#[derive(Debug, thiserror::Error)]
#[error("the file {file} {what}", file = .path.display())]
pub struct Unusable {
    path: PathBuf,
    what: String,
}

impl Tls {
    /// What a client needs for a connection, from the files as they are now.
    ///
    /// # Errors
    /// Where a file can't be read, or doesn't hold what it should.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(self.believed()?);
        let Some(identity) = &self.identity else { return Ok(client.with_no_client_auth()) };
        let chain = certificates(&identity.certificate).map_err(TlsError::Certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| TlsError::Key(unusable(&identity.key, &error, "private key")))?;
        client.with_client_auth_cert(chain, key).map_err(|error| TlsError::Unfit { identity: Box::new(identity.clone()), error })
    }

    fn believed(&self) -> Result<RootCertStore, TlsError> {
        let mut believed = RootCertStore::empty();
        let Some(path) = &self.authorities else {
            believed.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if believed.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(believed) };
        };
        // Among those that systems ship, and that people put together with their own, there are some that this library can't read.
        let (added, _) = believed.add_parsable_certificates(certificates(path).map_err(TlsError::Authorities)?);
        if added == 0 {
            let what = "holds no certificate that can be used".to_owned();
            return Err(TlsError::Authorities(Unusable { path: path.clone(), what }));
        }
        Ok(believed)
    }
}

/// All certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let told = |error: &pem::Error| unusable(path, error, "certificate");
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| told(&error))?.collect();
    let certificates = certificates.map_err(|error| told(&error))?;
    if certificates.is_empty() { Err(told(&pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn unusable(path: &Path, error: &pem::Error, wanted: &str) -> Unusable {
    let what = match error {
        pem::Error::Io(error) => format!("can't be read: {error}"),
        pem::Error::NoItemsFound => format!("holds no {wanted} in PEM form (-----BEGIN …-----)"),
        // The library's words name the line that is wrong, and may show it.
        _ => format!("is not PEM, or not in order; it should hold a {wanted}"),
    };
    Unusable { path: path.to_owned(), what }
}

/// Why a certificate, ours or theirs, was refused, in a sentence with what to do; `None` where an error has another cause.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<rustls::Error>() {
            return Some(describe(refused).to_string());
        }
        // An I/O error shows the one that it wraps in this way alone.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

fn describe(error: &rustls::Error) -> impl fmt::Display {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!("its certificate has expired ({error})"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("its certificate is not valid yet ({error}); is the clock right?")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is for another name ({error})")
            }
            CertificateError::UnknownIssuer => {
                "its certificate was issued by an authority that is not believed here; name the right one's certificate in the configuration".to_owned()
            }
            other => format!("its certificate is refused ({other})"),
        },
        rustls::Error::AlertReceived(Alert::CertificateRequired) => "it asks for a certificate of ours and none is configured".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("it refused the encrypted connection, or our certificate ({alert:?})"),
        other => format!("the encrypted connection failed ({other})"),
    }
}
