//! Which Official Account it is: its WeChat ID and what proves to be it.

use std::str::FromStr;

/// An Official Account and what proves to be it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficialAccount {
    /// Its WeChat ID, the part of a kf account after `@`.
    pub wechat_id: String,
    /// Its AppID.
    pub app_id: String,
    /// Its AppSecret.
    pub app_secret: String,
}

impl Default for OfficialAccount {
    /// `test:wx0123456789abcdef:secret`
    fn default() -> Self {
        Self { wechat_id: "test".to_owned(), app_id: "wx0123456789abcdef".to_owned(), app_secret: "secret".to_owned() }
    }
}

impl FromStr for OfficialAccount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':').map(str::to_owned);
        let (Some(wechat_id), Some(app_id), Some(app_secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("write it as WECHAT_ID:APPID:SECRET");
        };
        if !is_wechat_id(&wechat_id) {
            return Err("the WeChat ID is 1 to 30 letters, digits, _ or -");
        }
        if app_id.is_empty() || app_secret.is_empty() {
            return Err("neither the APPID nor the SECRET may be empty");
        }
        Ok(Self { wechat_id, app_id, app_secret })
    }
}

/// Whether it has the form of a WeChat ID.
pub(super) fn is_wechat_id(text: &str) -> bool {
    (1..=30).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
