//! The file in which a third-party platform keeps the ticket that was pushed to it last.

use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use super::Settings;
use super::server::{Server, ServerState};
use super::tickets::PUSHED_APART;

impl Server {
    /// Keeps the ticket file as new as the tickets are, and ends only when it can't.
    pub async fn keep_tickets(&self) -> io::Error {
        loop {
            let until_next_push = self.state().until_next_push(SystemTime::now());
            tokio::time::sleep(until_next_push).await;
            if let Err(error) = self.state().keep_ticket(&self.settings, SystemTime::now()) {
                return error;
            }
        }
    }
}

impl ServerState {
    /// Writes the first third-party platform's current ticket to the ticket file, where there are both. It is written under
    /// the lock, so that no older ticket replaces a newer one.
    pub fn keep_ticket(&mut self, settings: &Settings, now: SystemTime) -> io::Result<()> {
        let Some(third_party) = self.platform.third_parties_mut().first_mut() else { return Ok(()) };
        // Without a file too the tickets that were due are pushed, or the next push would stay in the past.
        let ticket = third_party.tickets.current(now);
        settings.ticket_file.as_ref().map_or(Ok(()), |path| write(path, ticket))
    }

    /// How long until another ticket is pushed, as far as is known. One that is pushed by hand is kept by whoever pushes it.
    pub fn until_next_push(&mut self, now: SystemTime) -> Duration {
        let next = self.platform.third_parties_mut().first().and_then(|third_party| third_party.tickets.next_push());
        next.map_or(PUSHED_APART, |next| next.duration_since(now).unwrap_or_default().min(PUSHED_APART))
    }
}

/// Writes the ticket as a line. Whoever reads the file meanwhile sees the former ticket or this one, never a part.
fn write(path: &Path, ticket: &str) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    fs::write(&beside, format!("{ticket}\n"))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| io::Error::new(error.kind(), format!("can't write the ticket to {}: {error}", path.display())))
}
