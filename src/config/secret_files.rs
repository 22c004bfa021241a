//! The files that secrets were read from: whether they have changed since, and whether everybody may read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files that hold secrets.
#[derive(Debug, Clone, Default)]
pub struct SecretFiles {
    /// Those that hold nothing else, each as it was when it was last looked at; `None` where it was not there.
    own: BTreeMap<PathBuf, Option<Stamp>>,
    /// Those of the configuration that hold some among other things.
    shared: BTreeSet<PathBuf>,
}

/// What differs where a file was written again, or where another one has taken its place, as Kubernetes does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    written: (i64, i64),
    length: u64,
}

/// A file with secrets that everybody on the machine may read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} holds a secret and everybody on this machine may read it (mode {mode:04o}); take that right away: chmod o= {file}", file = .path.display())]
pub struct Exposed {
    path: PathBuf,
    mode: u32,
}

impl SecretFiles {
    /// A file that holds nothing but a secret. It must be told before it is read: what is written meanwhile is then a change.
    pub(super) fn own(&mut self, path: &Path) {
        self.own.entry(path.to_owned()).or_insert_with(|| stamp(path));
    }

    /// A file of the configuration that holds a secret.
    pub(super) fn shared(&mut self, path: &Path) {
        self.shared.insert(path.to_owned());
    }

    /// Whether a file that holds nothing but a secret is another one than when it was last looked at. It is then looked at.
    pub fn have_changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.own {
            let now = stamp(path);
            changed |= std::mem::replace(known, now) != now;
        }
        changed
    }

    /// Those that everybody on this machine may read.
    pub fn exposed(&self) -> Vec<Exposed> {
        let mode = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.mode() & 0o7777).ok();
        let all = self.own.keys().chain(&self.shared);
        let exposed = all.filter_map(|path| Some(Exposed { path: path.clone(), mode: mode(path).filter(|mode| mode & 0o004 != 0)? }));
        exposed.collect()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let stamp =
        |metadata: Metadata| Stamp { inode: metadata.ino(), written: (metadata.mtime(), metadata.mtime_nsec()), length: metadata.len() };
    std::fs::metadata(path).map(stamp).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_gone_has_changed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "one").unwrap();
        let mut files = SecretFiles::default();
        files.own(&path);
        assert!(!files.have_changed());
        std::fs::write(&path, "three").unwrap();
        assert!(files.have_changed() && !files.have_changed());
        let other = folder.path().join("other");
        std::fs::write(&other, "three").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(files.have_changed() && !files.have_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(files.have_changed() && !files.have_changed());
    }

    #[test]
    fn what_everybody_may_read_is_told_and_what_a_group_may_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = SecretFiles::default();
        let path = |name: &str| folder.path().join(name);
        for (name, mode) in [("own", 0o600), ("group", 0o640), ("everybody", 0o644), ("odd", 0o604)] {
            std::fs::write(path(name), "secret").unwrap();
            std::fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
            if name == "odd" { files.shared(&path(name)) } else { files.own(&path(name)) }
        }
        assert_eq!(files.exposed(), [Exposed { path: path("everybody"), mode: 0o644 }, Exposed { path: path("odd"), mode: 0o604 }]);
    }
}
