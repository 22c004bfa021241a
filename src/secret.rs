//! A text that is never shown: tokens, AppSecrets, and addresses that may hold one.

use secrecy::{ExposeSecret as _, SecretString};

/// A secret. It is wiped from memory when it is dropped, and shows nothing of itself in logs.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The text itself, for whoever has to send or store it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}
