//! Compares every Official Account with WeChat's list from time to time, and shows what differs as metrics.

use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use crate::accounts::{NoToken, OfficialAccount, Sources};
use crate::drift::compare;
use crate::ledger::LedgerError;
use crate::outcome::Action;
use crate::retry;

impl Worker {
    /// Looks at every Official Account once in an interval, spread over it, until the worker shuts down.
    pub async fn watch(&self, interval: Duration) {
        while !self.draining.is_cancelled() {
            self.look_at_all(interval).await;
        }
    }

    async fn look_at_all(&self, interval: Duration) {
        let began = Instant::now();
        let all = self.accounts.all();
        let between = interval / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        for official_account in all {
            if let Err(error) = self.look_at(&official_account).await {
                tracing::warn!(official_account = official_account.wechat_id(), %error, "it could not be compared with WeChat's list");
            }
            self.sleep_until(Instant::now() + between / 2 + retry::jitter(between / 2)).await;
            // Only here: a token that is being fetched, and with it a changed refresh token, must reach the ledger.
            if self.draining.is_cancelled() {
                return;
            }
        }
        self.sleep_until(began + interval).await;
    }

    async fn sleep_until(&self, end: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = self.draining.cancelled() => {}
        }
    }

    async fn look_at(&self, official_account: &OfficialAccount) -> Result<(), LedgerError> {
        // Nothing is asked for it while anything holds it back.
        if [Action::Add, Action::Delete].into_iter().any(|action| official_account.paused(action).is_some()) {
            return Ok(());
        }
        let wechat_id = official_account.wechat_id();
        let before = self.ledger.wanted(wechat_id.to_owned()).await?;
        let sources = Sources { wechat: &self.wechat, ledger: &self.ledger, metrics: &self.metrics };
        let token = match official_account.tokens.get(sources).await {
            Ok(token) => token,
            // Why was told where it was fetched.
            Err(NoToken::Failed { .. }) => return Ok(()),
            Err(NoToken::Ledger(error)) => return Err(error),
        };
        let Some(snapshot) = self.list_since(official_account, &token, Instant::now()).await else { return Ok(()) };
        let after = self.ledger.wanted(wechat_id.to_owned()).await?;
        let drift = compare(&before, &after, &snapshot);
        let counts = [drift.missing.len(), drift.unexpected.len(), drift.renamed.len()];
        self.metrics.drift(wechat_id, counts);
        if !drift.is_none() {
            let [missing, unexpected, renamed] = counts;
            tracing::warn!(
                official_account = wechat_id,
                missing,
                unexpected,
                renamed,
                "WeChat's list differs; `kf-worker drift` tells how"
            );
        }
        Ok(())
    }
}
