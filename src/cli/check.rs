//! `kf-worker check`: the configuration was read without a fault; say what it amounts to.

use super::{Config, Exit};

/// Tells what the worker would run with. Nothing is connected to, no secret is shown.
pub fn check(config: &Config) -> Exit {
    let accounts: Vec<&str> = config.wechat.official_accounts.iter().map(|account| account.wechat_id.as_str()).collect();
    println!("The configuration is sound.");
    println!("  broker             {} on {}:{}", config.broker.prefix, config.broker.uri.authority.host, config.broker.uri.authority.port);
    println!("  WeChat             {}", config.wechat.base_urls.join(", "));
    println!("  Official Accounts  {}", accounts.join(", "));
    println!("  ledger             {}", config.ledger.path.display());
    println!("  admin port         {}", config.admin.listen);
    if config.rules.0.is_empty() {
        println!("  publishers         everybody whom RabbitMQ lets publish");
    } else {
        println!("  publishers         {} rules", config.rules.0.len());
    }
    Exit::Done
}
