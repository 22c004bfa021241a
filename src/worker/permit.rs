//! The right to call WeChat: waited for among all commands, given up where somebody else would be kept waiting by it.

use std::pin::pin;
use std::time::Duration;

use super::{Job, Worker};
use crate::accounts::{OfficialAccount, Pause};
use crate::calls::Permit;
use crate::lanes::Turn;
use crate::ledger::{Finished, LedgerError, Position};

/// Why a call may not be made.
pub enum NoPermit {
    /// The delivery is no longer ours, or will not be for long.
    LetGo,
    /// Its Official Account was paused while it waited.
    Paused(Box<Pause>),
    HeldTooLong,
    /// The calls of its Official Account hang, and it is one of those that others wait for.
    CrowdsOut,
    /// A newer command has superseded it.
    Superseded(Finished),
    Ledger(LedgerError),
}

/// How often a command that waits for its turn looks whether others wait for it.
const LOOK: Duration = Duration::from_millis(250);

impl Worker {
    /// The right to call, alone for a command that was under way when the process died, so that it is known which one it
    /// was if that happens again. Whoever waits for it leaves when its Official Account is paused meanwhile, except for
    /// a last try in spite of the pause.
    pub(super) async fn permit(
        &self,
        job: &Job,
        official_account: &OfficialAccount,
        turn: &Turn<String, Position, Box<Job>>,
        last_time: bool,
    ) -> Result<Permit, NoPermit> {
        let mut ready = pin!(async {
            let permit = self.calls.acquire(official_account.wechat_id(), job.ticket.suspect).await;
            // A timer that is over already would still end with the next millisecond.
            if !permit.wait().is_zero() {
                tokio::time::sleep(permit.wait()).await;
            }
            permit
        });
        let mut paused = pin!(async {
            match last_time {
                true => std::future::pending().await,
                false => self.paused_meanwhile(job, official_account).await,
            }
        });
        let mut crowds_out = pin!(self.crowds_out(job, official_account));
        loop {
            tokio::select! {
                () = self.let_go(job) => return Err(NoPermit::LetGo),
                permit = &mut ready => return Ok(permit),
                pause = &mut paused => return Err(NoPermit::Paused(Box::new(pause))),
                () = tokio::time::sleep_until(self.held_until(job)) => return Err(NoPermit::HeldTooLong),
                () = &mut crowds_out => return Err(NoPermit::CrowdsOut),
                // Something came into its lane. Where it is older, the ledger says so when this one begins.
                () = turn.changed() => match self.ledger.check(job.ticket.position).await {
                    Ok(None) => {}
                    Ok(Some(finished)) => return Err(NoPermit::Superseded(finished)),
                    Err(error) => return Err(NoPermit::Ledger(error)),
                },
            }
        }
    }

    /// Ends when the Official Account is paused for this job.
    pub(super) async fn paused_meanwhile(&self, job: &Job, official_account: &OfficialAccount) -> Pause {
        loop {
            // Listened for before looking, so that nothing is missed in between.
            let news = official_account.news();
            match official_account.paused(job.command.action) {
                Some(pause) => return pause,
                None => news.await,
            }
        }
    }

    /// Ends when the calls of the Official Account hang and this job is beyond its share of the window.
    async fn crowds_out(&self, job: &Job, official_account: &OfficialAccount) {
        loop {
            tokio::time::sleep(LOOK).await;
            let beyond = || job.in_hand.as_ref().is_some_and(|taken| taken.is_beyond(self.settings.window_share));
            if official_account.in_hand.hangs() && !self.accounts.is_only_one() && beyond() {
                return;
            }
        }
    }
}
