//! `kf-worker check`: the configuration was read without a fault; say what it amounts to.

use super::{Config, Exit};

/// Tells what the worker would run with. Nothing is connected to, no secret is shown.
pub fn check(config: &Config) -> Exit {
    let accounts: Vec<&str> = config.wechat.official_accounts.iter().map(|account| account.wechat_id.as_str()).collect();
    super::print(format_args!("The configuration is sound."));
    super::print(format_args!(
        "  broker             {} on {}:{}",
        config.broker.prefix, config.broker.uri.authority.host, config.broker.uri.authority.port
    ));
    super::print(format_args!("  WeChat             {}", config.wechat.base_urls.join(", ")));
    super::print(format_args!("  Official Accounts  {}", accounts.join(", ")));
    super::print(format_args!("  ledger             {}", config.ledger.path.display()));
    super::print(format_args!("  admin port         {}", config.admin.listen));
    if config.rules.0.is_empty() {
        super::print(format_args!("  publishers         everybody whom RabbitMQ lets publish"));
    } else {
        super::print(format_args!("  publishers         {} rules", config.rules.0.len()));
    }
    Exit::Done
}
