//! Where access tokens come from: a token server, a third-party platform, WeChat itself; what is kept of them, and what is never shown.

mod authorizer;
mod kept;
mod own_server;
mod shared;
mod wechats_own;

use crate::support::broker::Received;
use crate::support::stage::Stage;
use crate::support::wechat::Endpoint;
use crate::support::worker::{Settings, Worker};

/// One `[[official_account]]` of these lines, in the place of all others.
fn only(stage: &Stage, wechat_id: &str, lines: &str) -> Settings {
    let mut settings = stage.settings();
    settings.official_accounts = format!("[[official_account]]\nwechat_id = \"{wechat_id}\"\n{lines}\n\n");
    settings
}

/// Official Accounts for which the platform acts, each with its refresh token, and the platform, whose ticket is kept
/// as `ticket` says.
fn authorised(stage: &Stage, refresh_tokens: &[(&str, &str)], ticket: &str) -> Settings {
    let mut settings = stage.settings();
    settings.official_accounts.clear();
    for (wechat_id, refresh_token) in refresh_tokens {
        let app_id = stage.wechat.official_account(wechat_id).app_id;
        let credentials = format!("app_id = \"{app_id}\"\nrefresh_token = \"{refresh_token}\"");
        let account = format!("[[official_account]]\nwechat_id = \"{wechat_id}\"\ntoken = \"authorizer\"\n{credentials}\n\n");
        settings.official_accounts.push_str(&account);
    }
    let platform = stage.wechat.platform();
    let (app_id, app_secret) = (platform.app_id, platform.app_secret);
    settings.official_accounts.push_str(&format!("[[platform]]\napp_id = \"{app_id}\"\napp_secret = \"{app_secret}\"\n{ticket}\n\n"));
    settings
}

/// The same for `test` alone, with its first refresh token and the ticket in a file.
pub fn authorised_with_ticket_file(stage: &Stage) -> Settings {
    let ticket = stage.path("ticket");
    std::fs::write(&ticket, stage.wechat.platform().ticket).expect("the ticket can be written");
    authorised(stage, &[("test", &first_refresh_token(stage, "test"))], &format!("verify_ticket_file = \"{}\"", ticket.display()))
}

fn first_refresh_token(stage: &Stage, wechat_id: &str) -> String {
    stage.wechat.official_account(wechat_id).refresh_tokens().swap_remove(0)
}

/// The refresh tokens with which an authorizer's token was asked for, in order.
fn refresh_tokens_sent(stage: &Stage) -> Vec<String> {
    let calls = stage.wechat.calls(Endpoint::AuthorizerToken);
    let sent = |body: &str| serde_json::from_str::<serde_json::Value>(body).ok()?["authorizer_refresh_token"].as_str().map(str::to_owned);
    calls.iter().map(|call| sent(&call.body).expect("a refresh token is sent")).collect()
}

/// Ends the worker, in order or not, and starts it again.
async fn restart(worker: &mut Worker, kill: bool) {
    if kill {
        worker.kill().await;
    } else {
        assert_eq!(worker.terminate().await, Some(0));
    }
    worker.restart().await;
}

/// Ends the worker in order. What was acknowledged as it was killed may have been told again; nothing else is.
async fn settle(mut stage: Stage, worker: Worker, told: &[Received]) {
    for again in stage.settle(worker).await {
        let first = told.iter().find(|event| event.command_id() == again.command_id());
        first.unwrap_or_else(|| panic!("nobody ordered {again:?}")).assert_repeated_by(&again);
    }
}

/// Fails where any of these texts stands in one of those.
fn assert_not_shown(secrets: &[&str], shown: &[&str]) {
    for secret in secrets {
        assert!(secret.len() > 5, "`{secret}` could stand anywhere");
        for text in shown {
            assert!(!text.contains(secret), "`{secret}` is shown: {text}");
        }
    }
}
