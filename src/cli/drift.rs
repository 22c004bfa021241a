//! `kf-worker drift`: what WeChat lists, compared with the ledger's wanted accounts, beside the running worker.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use super::outcomes::shown;
use super::{Config, Exit};
use crate::accounts::{NONE_KEPT, NotLent, OfficialAccount, OfficialAccounts};
use crate::drift::{Drift, compare};
use crate::ledger::{OpenError, Reader};
use crate::metrics::Metrics;
use crate::traces::Traces;
use crate::wechat::{BuildError, WeChat};

/// What stands below its help.
pub const EXAMPLES: &str = "Examples:
  kf-worker drift
  kf-worker drift test other --json

Exit codes: 0 nothing differs, 1 something does, 69 WeChat or the ledger can't be reached, 78 configuration.";

/// Lists asked for at the same time.
const AT_ONCE: usize = 8;

/// Compares and prints; a line for each Official Account in which nothing differs, the accounts where something does.
pub fn drift(config: Config, wechat_ids: &[String], json: bool) -> Exit {
    let known = &config.accounts.official_accounts;
    if let Some(unknown) = wechat_ids.iter().find(|id| !known.iter().any(|account| account.wechat_id == **id)) {
        super::tell(format_args!("the Official Account `{unknown}` is not in the configuration"));
        return Exit::Configuration;
    }
    let compared = super::in_runtime(async { compare_all(config, wechat_ids, json).await });
    match compared {
        Ok(Ok(exit)) | Err(exit) => exit,
        Ok(Err(error)) => {
            super::tell(&error);
            match error {
                DriftError::Ledger(error) => Exit::from(&error),
                DriftError::WeChat(_) => Exit::Configuration,
                DriftError::Metrics(_) => Exit::Failed,
            }
        }
    }
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
enum DriftError {
    #[error("the metrics can't be made: {0}")]
    Metrics(String),
    #[error(transparent)]
    Ledger(#[from] OpenError),
    #[error(transparent)]
    WeChat(#[from] BuildError),
}

/// What comparing needs.
struct Means {
    wechat: WeChat,
    ledger: Reader,
}

async fn compare_all(config: Config, wechat_ids: &[String], json: bool) -> Result<Exit, DriftError> {
    // Nobody reads these metrics; the parts count all the same.
    let metrics = Arc::new(Metrics::new().map_err(|error| DriftError::Metrics(error.to_string()))?);
    let ledger = Reader::open(&config.ledger.place).await?;
    let wechat = WeChat::new(config.wechat, Arc::clone(&metrics), Traces::default())?;
    let means = Means { wechat, ledger };
    let all = OfficialAccounts::new(&config.accounts, config.retry.budget, metrics).all();
    let asked = all.into_iter().filter(|account| wechat_ids.is_empty() || wechat_ids.iter().any(|id| id == account.wechat_id()));
    let mut found = stream::iter(asked)
        .map(|account| {
            let means = &means;
            async move { (look_at(means, &account).await, account) }
        })
        .buffered(AT_ONCE);
    let (mut differs, mut unknown) = (false, false);
    while let Some((drift, account)) = found.next().await {
        match drift {
            Ok(drift) => {
                differs |= !drift.is_none();
                print(account.wechat_id(), &drift, json);
            }
            Err(message) => {
                unknown = true;
                super::tell(format_args!("{}: {}", account.wechat_id(), shown(&message)));
            }
        }
    }
    Ok(match (differs, unknown) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Unavailable,
        (false, false) => Exit::Done,
    })
}

async fn look_at(means: &Means, account: &OfficialAccount) -> Result<Drift, String> {
    let wanted = async || means.ledger.wanted(account.wechat_id()).await.map_err(|error| error.to_string());
    let before = wanted().await?;
    let token = account.tokens.borrow(&means.wechat, Some(&means.ledger)).await.map_err(|error| match error {
        NotLent::Failed(failed) => format!("there is no access token ({}): {}", failed.failure.reason, failed.failure.detail),
        NotLent::NoneKept => format!("there is no access token: {NONE_KEPT}"),
        NotLent::Ledger(error) => error.to_string(),
    })?;
    let listed = account.roster.asked_since(Instant::now(), means.wechat.list(&token)).await;
    let snapshot = listed.map_err(|failed| {
        let answer = failed.failure.answer.map(|answer| format!(" WeChat answered {}: {}", answer.errcode, answer.errmsg));
        format!("the kf accounts can't be listed ({}): {}{}", failed.failure.reason, failed.failure.detail, answer.unwrap_or_default())
    })?;
    Ok(compare(&before, &wanted().await?, &snapshot))
}

fn print(wechat_id: &str, drift: &Drift, json: bool) {
    if json {
        let mut line = json!(drift);
        line["official_account"] = wechat_id.into();
        return super::print(line);
    }
    let Drift { listed, missing, unexpected, renamed, unfinished } = drift;
    if drift.is_none() {
        super::print(format_args!("{wechat_id}: as it should be; {listed} of 100 accounts, {} with unfinished commands", unfinished.len()));
        return;
    }
    let (gone, more, named) = (missing.len(), unexpected.len(), renamed.len());
    super::print(format_args!("{wechat_id}: {gone} missing, {more} unexpected, {named} differently named; {listed} of 100 accounts"));
    for kf_account in missing {
        super::print(format_args!("  missing     {}", shown(kf_account)));
    }
    for other in unexpected {
        let why = if other.deleted { "deleted by its last command" } else { "no command ever named it" };
        super::print(format_args!("  unexpected  {} ({why})", shown(&other.kf_account)));
    }
    for other in renamed {
        let [kf_account, asked_for, listed] = [&other.kf_account, &other.asked_for, &other.listed].map(|text| shown(text));
        super::print(format_args!("  renamed     {kf_account} (asked for: {asked_for}, listed: {listed})"));
    }
}
