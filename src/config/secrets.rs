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
        let (here, there) = (self.entries.get(key).cloned(), self.entries.get(&file_key).cloned());
        let in_environment = |entry: &Entry| matches!(entry.origin, Origin::Environment(_));
        let path = self.untold_text(&file_key, "");
        let text = self.untold_text(key, default);
        self.hide(key, !text.is_empty());
        if let Some(Entry { origin: Origin::File { path, .. }, .. }) = here.as_ref().filter(|_| is_secret(&text)) {
            self.secret_files.shared(path);
        }
        match (here, there) {
            (_, None) => text,
            // The environment goes before the file, also between the two ways to give a secret.
            (Some(here), Some(there)) if in_environment(&here) == in_environment(&there) => {
                self.fault(&file_key, format!("is given beside `{key}`; give one of them"));
                text
            }
            (Some(here), Some(_)) if in_environment(&here) => text,
            (_, Some(_)) => self.read_secret(key, &path),
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
        let lines = if self.is_given(&file_key) {
            if self.is_given(key) {
                self.fault(&file_key, format!("is given beside `{key}`; give one of them"));
            }
            let path = self.untold_text(&file_key, "");
            self.read_secret(key, &path).lines().map(str::to_owned).filter(|line| !line.trim().is_empty()).collect()
        } else {
            self.known.insert(file_key);
            if let Some(Entry { origin: Origin::File { path, .. }, .. }) = self.entries.get(key) {
                self.secret_files.shared(path);
            }
            let list = self.untold_list(key, &[]);
            self.hide(key, !list.is_empty());
            list
        };
        self.known.insert(key.to_owned());
        lines.into_iter().map(Secret::from).collect()
    }
}
