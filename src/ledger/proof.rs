//! Looks at the ledger before a worker runs, without making or changing it.

use std::fs::OpenOptions;
use std::path::Path;

use super::{OpenError, Place, Reader, postgres};
use crate::proof::{Proof, Verdict};

const WHAT: &str = "ledger";

/// What is there, and the ledger itself where it can be read.
pub async fn prove(place: &Place) -> (Proof, Option<Reader>) {
    if let Place::Sqlite(path) = place
        && !path.exists()
    {
        return (to_be_made(path), None);
    }
    let reader = match Reader::open(place).await {
        Ok(reader) => reader,
        Err(OpenError::Postgres(error @ postgres::OpenError::Missing(_))) => {
            return (Proof::new(WHAT, Verdict::Missing, error.to_string()), None);
        }
        Err(error) => {
            let verdict = if error.may_pass() { Verdict::Unreachable } else { Verdict::Wrong };
            return (Proof::new(WHAT, verdict, error.to_string()), None);
        }
    };
    let proof = match reader.steps_behind() {
        Err(error) => Proof::wrong(WHAT, format!("{place}: {error}")),
        Ok(..=-1) => Proof::wrong(WHAT, format!("{place} was written by a newer version of kf-worker; use that version")),
        Ok(behind) => match (writable(place), reader.census().await) {
            (Err(error), _) => Proof::wrong(WHAT, format!("{place} can't be written: {error}; give it to the worker's user")),
            // One of an older form may lack what is asked for.
            (Ok(()), _) if behind > 0 => Proof::ok(WHAT, format!("{place} can be read; `kf-worker run` brings it to this version's form")),
            (Ok(()), Err(error)) => Proof::wrong(WHAT, format!("{place}: {error}")),
            (Ok(()), Ok(census)) => Proof::ok(WHAT, format!("{place} can be read; {} unfinished commands", census.unfinished)),
        },
    };
    (proof, Some(reader))
}

fn to_be_made(path: &Path) -> Proof {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Only writing shows whether one may write: there are more reasons against it than a file's mode.
    let trial = folder.join(format!(".kf-worker-check-{:016x}", rand::random::<u64>()));
    match OpenOptions::new().write(true).create_new(true).open(&trial) {
        Ok(file) => {
            drop(file);
            // One that stays there is empty, and in nobody's way.
            let _ = std::fs::remove_file(&trial);
            Proof::new(WHAT, Verdict::Missing, format!("{} will be made by `kf-worker run`", path.display()))
        }
        Err(error) => Proof::wrong(
            WHAT,
            format!(
                "{} can't be made: in the folder {} nothing can be written: {error}; make the folder, and give it to the worker's user",
                path.display(),
                folder.display()
            ),
        ),
    }
}

fn writable(place: &Place) -> std::io::Result<()> {
    match place {
        Place::Sqlite(path) => OpenOptions::new().write(true).open(path).map(drop),
        // Whoever may connect and read is told by the database at the first command.
        Place::Postgres(_) => Ok(()),
    }
}
