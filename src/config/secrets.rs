//! Takes secrets, which may stand in files of their own, and the paths of such files.

use std::path::PathBuf;

use super::file::{Entry, Origin};
use super::in_force::{HIDDEN, Setting, Source};
use super::reader::Reader;
use crate::secret::Secret;

impl Reader {
    /// A secret that must be given, here or in the file that `<key>_file` names.
    pub fn secret(&mut self, key: &str) -> Secret {
        let text = self.secret_or(key, "", |_| true);
        if text.is_empty() && !self.faults.iter().any(|fault| fault.key.starts_with(key)) {
            self.fault(key, format!("is missing; give it, or `{key}_file`"));
        }
        Secret::from(text)
    }

    /// A text that may hold a secret, so that it can also stand in a file of its own.
    pub fn secret_or(&mut self, key: &str, default: &str, is_secret: impl FnOnce(&str) -> bool) -> String {
        let file_key = format!("{key}_file");
        let path = self.untold_text(&file_key, "");
        let text = self.untold_text(key, default);
        self.hide(key, !text.is_empty());
        if is_secret(&text) {
            self.note_shared(key);
        }
        if self.stands_in_file(key, &file_key) { self.read_secret(key, &path) } else { text }
    }

    /// Whether a value is taken from the file that another key names. The environment goes before the configuration's file,
    /// also between the two ways to give a secret.
    fn stands_in_file(&mut self, key: &str, file_key: &str) -> bool {
        let in_environment = |key: &str| self.entries.get(key).map(|entry| matches!(entry.origin, Origin::Environment(_)));
        match (in_environment(key), in_environment(file_key)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(here), Some(there)) => {
                if here == there {
                    self.fault(file_key, format!("is given beside `{key}`; give one of them"));
                }
                there
            }
        }
    }

    /// Notes that the configuration's own file holds a secret, where that is where this key stands.
    fn note_shared(&mut self, key: &str) {
        if let Some(Entry { origin: Origin::File { path, .. }, .. }) = self.entries.get(key) {
            self.secret_files.shared(path);
        }
    }

    /// Notes that a key has a value, which is nobody's business, or that it has none.
    fn hide(&mut self, key: &str, is_there: bool) {
        self.tell(key, is_there.then_some(HIDDEN));
    }

    /// Reads the file that `<key>_file` names.
    fn read_secret(&mut self, key: &str, path: &str) -> String {
        let path = self.found(path);
        self.secret_files.own(&path);
        self.settings.tell(Setting::new(key, HIDDEN.into(), Source::SecretFile(path.clone())));
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            Err(error) => {
                self.fault(&format!("{key}_file"), format!("the file {} can't be read: {error}", path.display()));
                String::new()
            }
        }
    }

    /// The path of a file that is looked for as secrets are; `None` where none is given.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.text(key, "");
        (!path.is_empty()).then(|| self.found(&path))
    }

    /// The path of a file that holds a private key; likewise.
    pub fn secret_path(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.path(key)?;
        self.secret_files.own(&path);
        Some(path)
    }

    /// A bare name is one of systemd's credentials where there is one of that name.
    fn found(&self, path: &str) -> PathBuf {
        let credential = self.credentials.as_ref().map(|folder| folder.join(path)).filter(|credential| credential.is_file());
        credential.unwrap_or_else(|| PathBuf::from(path))
    }

    /// Texts that may hold secrets, so that they can also stand in a file of their own, one in each line.
    pub fn secret_list(&mut self, key: &str) -> Vec<Secret> {
        let file_key = format!("{key}_file");
        let path = self.untold_text(&file_key, "");
        let list = self.untold_list(key, &[]);
        self.hide(key, !list.is_empty());
        self.note_shared(key);
        let lines = match self.stands_in_file(key, &file_key) {
            true => self.read_secret(key, &path).lines().map(str::to_owned).filter(|line| !line.trim().is_empty()).collect(),
            false => list,
        };
        lines.into_iter().map(Secret::from).collect()
    }
}
