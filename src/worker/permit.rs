//! The right to call WeChat: waited for among all commands, given up where somebody else would be kept waiting by it.

use std::time::Duration;

use super::{Job, Worker};
use crate::accounts::{OfficialAccount, Pause};
use crate::calls::Permit;

/// Why a call may not be made.
pub enum NoPermit {
    /// The delivery is no longer ours, or will not be for long.
    LetGo,
    /// Its Official Account was paused while it waited.
    Paused(Box<Pause>),
    HeldTooLong,
    /// The calls of its Official Account hang, and it is one of those that others wait for.
    CrowdsOut,
}

/// How often a command that waits for its turn looks whether others wait for it.
const LOOK: Duration = Duration::from_millis(250);

impl Worker {
    /// The right to call, alone for a command that was under way when the process died, so that it is known which one it
    /// was if that happens again. Whoever waits for it leaves when its Official Account is paused meanwhile.
    pub(super) async fn permit(&self, job: &Job, official_account: &OfficialAccount, last_time: bool) -> Result<Permit, NoPermit> {
        let ready = async {
            let permit = self.calls.acquire(official_account.wechat_id(), job.ticket.suspect).await;
            tokio::time::sleep(permit.wait()).await;
            permit
        };
        let paused = async {
            loop {
                // Listened for before looking, so that nothing is missed in between.
                let news = official_account.news();
                match official_account.paused(job.command.action) {
                    Some(pause) if !last_time => return Box::new(pause),
                    _ => news.await,
                }
            }
        };
        let crowds_out = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let beyond = || job.in_hand.as_ref().is_some_and(|taken| taken.is_beyond(self.settings.window_share));
                if official_account.in_hand.hangs() && !self.accounts.is_only_one() && beyond() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.draining.cancelled() => Err(NoPermit::LetGo),
            () = job.delivery.session().lost() => Err(NoPermit::LetGo),
            permit = ready => Ok(permit),
            pause = paused => Err(NoPermit::Paused(pause)),
            () = tokio::time::sleep_until(self.held_until(job)) => Err(NoPermit::HeldTooLong),
            () = crowds_out => Err(NoPermit::CrowdsOut),
        }
    }
}
