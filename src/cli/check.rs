//! `kf-worker check`: the configuration was read without a fault; say what it amounts to.

use super::{Config, Exit};

/// So many Official Accounts are named, the others counted.
const MOST_NAMES: usize = 20;

/// Tells what the worker would run with. Nothing is connected to, no secret is shown.
pub fn check(config: &Config) -> Exit {
    let official_accounts = &config.accounts.official_accounts;
    let mut accounts: Vec<&str> = official_accounts.iter().take(MOST_NAMES).map(|account| account.wechat_id.as_str()).collect();
    let more = format!("and {} more", official_accounts.len().saturating_sub(MOST_NAMES));
    if official_accounts.len() > MOST_NAMES {
        accounts.push(&more);
    }
    super::print(format_args!("The configuration is sound."));
    super::print(format_args!("  broker             {} on {}", config.broker.prefix, config.broker.url));
    super::print(format_args!("  partitions         {}", config.broker.partitions));
    super::print(format_args!("  WeChat             {}", config.wechat.base_urls.join(", ")));
    super::print(format_args!("  Official Accounts  {}", accounts.join(", ")));
    super::print(format_args!("  ledger             {}", config.ledger.place));
    super::print(format_args!("  admin port         {}", config.admin.listen));
    if config.rules.0.is_empty() {
        super::print(format_args!("  publishers         everybody whom RabbitMQ lets publish"));
    } else {
        super::print(format_args!("  publishers         {} rules", config.rules.0.len()));
    }
    for exposed in config.secret_files.exposed() {
        super::tell(format_args!("warning: {exposed}"));
    }
    Exit::Done
}
