//! Certificates that a test makes for itself: authorities, and what they sign for servers and clients, with a flaw where a test asks for one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is good, for another host.
    WrongName,
    Expired,
    /// It is signed by an authority that nobody has told of.
    UnknownAuthority,
}

impl Flaw {
    pub const ALL: [Self; 3] = [Self::WrongName, Self::Expired, Self::UnknownAuthority];

    /// A name for an account of its own.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongName => "name",
            Self::Expired => "expired",
            Self::UnknownAuthority => "unknown",
        }
    }

    /// The words by which the worker tells an operator of it.
    pub fn words(self) -> &'static str {
        match self {
            Self::WrongName => "its certificate is for another name",
            Self::Expired => "its certificate has expired",
            Self::UnknownAuthority => "its certificate was issued by an authority that is not believed here",
        }
    }
}

/// A certificate and its private key, both as PEM.
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

impl Certificate {
    /// Writes `<name>.pem` and, for its owner alone, `<name>-key.pem`; whatever was there before is replaced.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (pem, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
        fs::write(&pem, &self.pem).expect("a certificate can be written");
        fs::write(&key, &self.key).expect("a key can be written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a file of ours");
        (pem, key)
    }

    /// The same with its key in the form of its own kind, SEC1 or PKCS#1, instead of PKCS#8.
    pub fn traditional(self) -> Self {
        Self { key: openssl(&["pkey", "-traditional"], &self.key), ..self }
    }
}

/// What an authority is to sign.
pub struct Wanted {
    params: CertificateParams,
    key: KeyPair,
}

impl Wanted {
    /// A server's, for this machine.
    pub fn server() -> Self {
        Self::new("localhost", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's, with the common name that a broker takes for its user, and an organisation to tell certificates of one user apart.
    pub fn client(user: &str, organisation: &str) -> Self {
        let mut wanted = Self::new(user, &[], ExtendedKeyUsagePurpose::ClientAuth);
        wanted.params.distinguished_name.push(DnType::OrganizationName, organisation);
        wanted
    }

    fn new(common_name: &str, hosts: &[&str], usage: ExtendedKeyUsagePurpose) -> Self {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("hosts have plain names");
        params.distinguished_name = named(common_name);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        Self { params, key: KeyPair::generate().expect("a key can be made") }
    }

    /// Good until some years ago.
    pub fn expired(mut self) -> Self {
        self.params.not_after = date_time_ymd(2021, 1, 1);
        self
    }

    /// With an RSA key, where the others have one on an elliptic curve.
    pub fn with_rsa(mut self) -> Self {
        let key = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "");
        self.key = KeyPair::from_pem(&key).expect("openssl writes PKCS#8");
        self
    }
}

/// An authority of a test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority signs itself"))
    }

    /// Its own certificate, which whoever believes it is given.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes its own certificate.
    pub fn write(&self, path: PathBuf) -> PathBuf {
        fs::write(&path, self.pem()).expect("a certificate can be written");
        path
    }

    pub fn sign(&self, wanted: Wanted) -> Certificate {
        let Wanted { params, key } = wanted;
        let certificate = params.signed_by(&key, &self.0).expect("an authority signs");
        Certificate { pem: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate for this machine's server.
    pub fn server(&self) -> Certificate {
        self.sign(Wanted::server())
    }

    /// The same with a flaw.
    pub fn flawed(&self, flaw: Flaw) -> Certificate {
        match flaw {
            Flaw::WrongName => {
                self.sign(Wanted::new("another.example", &["another.example", "192.0.2.1"], ExtendedKeyUsagePurpose::ServerAuth))
            }
            Flaw::Expired => self.sign(Wanted::server().expired()),
            Flaw::UnknownAuthority => Self::new("an unknown authority").server(),
        }
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// What `openssl` makes of its standard input: forms of keys that the crate which makes the certificates doesn't know.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl is installed (apt-get install openssl)");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("openssl reads");
    drop(stdin);
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success() && !output.stdout.is_empty(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).expect("PEM is text")
}
