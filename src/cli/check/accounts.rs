//! Whether each Official Account gives a token, and is the one that it is configured as.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::accounts::{Credentials, NONE_KEPT, NotLent, OfficialAccount, OfficialAccounts};
use crate::config::Config;
use crate::ledger::Reader;
use crate::metrics::Metrics;
use crate::outcome::{AttemptFailure, Class};
use crate::proof::{Proof, Verdict};
use crate::traces::Traces;
use crate::wechat::{BuildError, WeChat, refused_address};

/// Asked at the same time.
const AT_ONCE: usize = 8;

/// Looks at all of them, and tells of each in turn.
///
/// # Errors
/// Where WeChat can't be asked at all, for want of certificates.
pub async fn prove(config: Config, ledger: Option<&Reader>, metrics: Arc<Metrics>, mut tell: impl FnMut(Proof)) -> Result<(), BuildError> {
    let wechat = &WeChat::new(config.wechat, Arc::clone(&metrics), Traces::default())?;
    let all = OfficialAccounts::new(&config.accounts, config.retry.budget, metrics).all();
    let mut proven = stream::iter(all).map(|account| async move { look_at(wechat, ledger, &account).await }).buffered(AT_ONCE);
    while let Some(proof) = proven.next().await {
        tell(proof);
    }
    Ok(())
}

async fn look_at(wechat: &WeChat, ledger: Option<&Reader>, account: &OfficialAccount) -> Proof {
    let wechat_id = account.wechat_id();
    let what = format!("Official Account {wechat_id}");
    let token = match account.tokens.borrow(wechat, ledger).await {
        Ok(token) => token,
        Err(NotLent::NoneKept) => return Proof::unproven(what, NONE_KEPT),
        Err(NotLent::Ledger(error)) => return Proof::unproven(what, error.to_string()),
        Err(NotLent::Failed(failed)) => return trouble(what, "there is no access token", wechat_id, &failed),
    };
    let snapshot = match account.roster.asked_since(Instant::now(), wechat.list(&token)).await {
        Ok(snapshot) => snapshot,
        Err(failed) => return trouble(what, "there is a token, and the kf accounts can't be listed", wechat_id, &failed),
    };
    let used = snapshot.used;
    match account.learn(&snapshot) {
        Credentials::Mistaken => {
            let failed = account.mismatch(snapshot.stranger(wechat_id));
            trouble(what, "there is a token", wechat_id, &failed)
        }
        // An empty list has nothing that says whose it is.
        Credentials::Believed | Credentials::Unchecked if used == 0 => {
            Proof::ok(what, "there is a token, and WeChat lists no kf account yet, by which `wechat_id` could be compared")
        }
        Credentials::Believed | Credentials::Unchecked => {
            Proof::ok(what, format!("there is a token, and WeChat lists {used} of 100 kf accounts, all of `{wechat_id}`"))
        }
    }
}

fn trouble(what: String, stage: &str, wechat_id: &str, failed: &AttemptFailure) -> Proof {
    let failure = &failed.failure;
    let verdict = match failed.class {
        Class::Retry => Verdict::Unreachable,
        Class::Minute | Class::Day => Verdict::Unproven,
        Class::Token
        | Class::TokenUnchanged { .. }
        | Class::Unknown
        | Class::Account { .. }
        | Class::Capacity
        | Class::Permanent
        | Class::Bug => Verdict::Wrong,
    };
    let advice = match refused_address(failure) {
        Some(address) => format!("WeChat sees this machine as {address}: put {address} on the whitelist of `{wechat_id}` in its console."),
        None => failure.detail.clone(),
    };
    let answer = failure.answer.as_ref().map(|answer| format!(" WeChat answered {}: {}", answer.errcode, answer.errmsg));
    Proof::new(what, verdict, format!("{stage} ({}): {advice}{}", failure.reason, answer.unwrap_or_default()))
}
