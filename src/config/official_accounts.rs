//! Reads the Official Accounts, each with the source of its token, and the third-party platforms that act for some.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::trouble_with_url;
use crate::accounts::{MaxRate, OfficialAccountSettings, PlatformSettings, Settings, Ticket, TokenKind};
use crate::secret::Secret;
use crate::wechat::{AppCredentials, OwnServer};

/// The words for the sources of tokens.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    Stable,
    Legacy,
    Url,
    Authorizer,
}

/// WeChat allows so many forced refreshes a day.
const MOST_FORCED: i64 = 20;

/// Reads them from the configuration itself and from the folder that it may name.
pub fn read_official_accounts(reader: &mut Reader, file: Option<&Path>) -> Settings {
    let folder = reader.text("wechat.official_account_dir", "");
    if !folder.is_empty() {
        // Beside the file that names it, wherever the worker was started.
        let beside = file.and_then(Path::parent).unwrap_or(Path::new("")).join(&folder);
        reader.include("wechat.official_account_dir", &beside, "official_account");
    }
    let platforms: Vec<PlatformSettings> = reader.tables("platform").iter().map(|entry| read_platform(reader, entry)).collect();
    let mut known = HashSet::new();
    let mut official_accounts = Vec::new();
    for entry in reader.tables("official_account") {
        let account = read_official_account(reader, &entry, &platforms);
        if !known.insert(account.wechat_id.clone()) {
            reader.fault(&format!("{entry}.wechat_id"), format!("`{}` is configured twice", account.wechat_id));
        }
        official_accounts.push(account);
    }
    if official_accounts.is_empty() {
        let what = "is missing: configure at least one [[official_account]] with wechat_id, app_id and app_secret, or name a folder with wechat.official_account_dir";
        reader.fault("official_account", what);
    }
    Settings { official_accounts, platforms }
}

fn read_official_account(reader: &mut Reader, entry: &str, platforms: &[PlatformSettings]) -> OfficialAccountSettings {
    let key = |name: &str| format!("{entry}.{name}");
    let wechat_id = reader.required(&key("wechat_id"));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if wechat_id.len() > 30 || !wechat_id.chars().all(fits) {
        reader.fault(&key("wechat_id"), "is not 1 to 30 of A-Z a-z 0-9 _ -");
    }
    let max_rate = reader.text(&key("max_rate"), "");
    let max_rate = reader.is_given(&key("max_rate")).then_some(max_rate).and_then(|text| {
        let rate = text.parse::<MaxRate>();
        rate.map_err(|trouble| reader.fault(&key("max_rate"), trouble)).ok()
    });
    let words = [("stable", Word::Stable), ("legacy", Word::Legacy), ("url", Word::Url), ("authorizer", Word::Authorizer)];
    let token = match reader.choice(&key("token"), &words, Word::Stable) {
        Word::Stable => {
            let forced_refreshes = reader.integer(&key("forced_refreshes"), 0, 0..=MOST_FORCED).try_into().unwrap_or(0);
            TokenKind::Stable { app: read_app(reader, entry), forced_refreshes }
        }
        Word::Legacy => TokenKind::Legacy(read_app(reader, entry)),
        Word::Url => TokenKind::Url(read_server(reader, &key("token_url"), &key("token_headers"))),
        Word::Authorizer => TokenKind::Authorizer {
            platform: read_platform_of(reader, &key("platform"), platforms),
            app_id: reader.required(&key("app_id")),
            refresh_token: reader.secret(&key("refresh_token")),
        },
    };
    OfficialAccountSettings { wechat_id, token, max_rate }
}

fn read_app(reader: &mut Reader, entry: &str) -> AppCredentials {
    AppCredentials { app_id: reader.required(&format!("{entry}.app_id")), app_secret: reader.secret(&format!("{entry}.app_secret")) }
}

/// The platform that acts for an Official Account; where there is only one, it need not be named.
fn read_platform_of(reader: &mut Reader, key: &str, platforms: &[PlatformSettings]) -> String {
    let only = match platforms {
        [only] => only.app.app_id.as_str(),
        _ => "",
    };
    let platform = reader.text(key, only);
    if !platforms.iter().any(|known| known.app.app_id == platform) {
        reader.fault(key, "names no third-party platform; write the app_id of one that is configured as [[platform]]");
    }
    platform
}

fn read_platform(reader: &mut Reader, entry: &str) -> PlatformSettings {
    let key = |name: &str| format!("{entry}.{name}");
    let (file, url) = (key("verify_ticket_file"), key("verify_ticket_url"));
    let app = read_app(reader, entry);
    let path = reader.path(&file);
    let server = reader.is_given(&url) || reader.is_given(&format!("{url}_file"));
    let ticket = match (path, server) {
        (None, true) => Ticket::Server(read_server(reader, &url, &key("verify_ticket_headers"))),
        (Some(path), false) => Ticket::File(path),
        _ => {
            reader.text(&url, "");
            reader.fault(&file, "give this or `verify_ticket_url`: where the verify ticket is kept that WeChat pushes to the platform");
            Ticket::File(PathBuf::new())
        }
    };
    PlatformSettings { app, ticket }
}

fn read_server(reader: &mut Reader, url_key: &str, headers_key: &str) -> OwnServer {
    let url = reader.secret(url_key);
    if let Some(trouble) = trouble_with_url(url.expose()).filter(|_| !url.expose().is_empty()) {
        reader.fault(url_key, trouble);
    }
    let mut headers = Vec::new();
    for line in reader.secret_list(headers_key) {
        match line.expose().split_once(':') {
            Some((name, value)) if is_header_name(name) && is_header_value(value) => {
                headers.push((name.to_owned(), Secret::from(value.trim().to_owned())));
            }
            _ => reader.fault(headers_key, "holds a line that is no header such as \"Authorization: Bearer …\""),
        }
    }
    OwnServer { url, headers }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

pub(super) fn is_header_value(value: &str) -> bool {
    value.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}
