//! WeChat's error codes, their texts, and the JSON that carries them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

pub(super) const SYSTEM_BUSY: i32 = -1;
pub(super) const OK: i32 = 0;
pub(super) const TOKEN_INVALID: i32 = 40001;
pub(super) const GRANT_TYPE_INVALID: i32 = 40002;
pub(super) const APPID_INVALID: i32 = 40013;
pub(super) const ESCAPES_REFUSED: i32 = 40033;
pub(super) const PARAMETER_INVALID: i32 = 40035;
pub(super) const APPSECRET_INVALID: i32 = 40125;
pub(super) const TOKEN_MISSING: i32 = 41001;
pub(super) const APPID_MISSING: i32 = 41002;
pub(super) const APPSECRET_MISSING: i32 = 41004;
pub(super) const TOKEN_EXPIRED: i32 = 42001;
pub(super) const COMPONENT_TOKEN_EXPIRED: i32 = 42006;
pub(super) const GET_REQUIRED: i32 = 43001;
pub(super) const POST_REQUIRED: i32 = 43002;
pub(super) const BODY_EMPTY: i32 = 44002;
pub(super) const DAY_QUOTA: i32 = 45009;
pub(super) const MINUTE_QUOTA: i32 = 45011;
pub(super) const BODY_MALFORMED: i32 = 47001;
pub(super) const NOT_AUTHORISED: i32 = 61003;
pub(super) const TICKET_EXPIRED: i32 = 61005;
pub(super) const TICKET_INVALID: i32 = 61006;
pub(super) const REFRESH_TOKEN_INVALID: i32 = 61023;
pub(super) const KF_ACCOUNT_INVALID: i32 = 65401;
pub(super) const NICKNAME_ILLEGAL: i32 = 65403;
pub(super) const KF_ACCOUNT_ILLEGAL: i32 = 65404;
pub(super) const KF_ACCOUNT_LIMIT: i32 = 65405;
pub(super) const KF_ACCOUNT_EXISTS: i32 = 65406;

/// The answer to a call that was done and has nothing else to say.
pub(super) const OK_BODY: &str = r#"{"errcode":0,"errmsg":"ok"}"#;

/// The answer to a call that was refused, with a request id of its own.
pub(super) fn body(errcode: i32) -> String {
    json!({"errcode": errcode, "errmsg": format!("{} rid: {}", text(errcode), rid())}).to_string()
}

/// A request id: the second, then two random numbers, as WeChat's look.
fn rid() -> String {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let random: u64 = rand::random();
    format!("{:08x}-{:08x}-{:08x}", second & 0xffff_ffff, random >> 32, random & 0xffff_ffff)
}

/// The text of a code as WeChat documents it or as it is seen in users' traces.
fn text(errcode: i32) -> &'static str {
    match errcode {
        SYSTEM_BUSY => "system error",
        TOKEN_INVALID => "invalid credential, access_token is invalid or not latest",
        GRANT_TYPE_INVALID => "invalid grant_type",
        APPID_INVALID => "invalid appid",
        40014 => "invalid access_token",
        ESCAPES_REFUSED => r"invalid charset. please check your request, if include \uxxxx will create fail!",
        PARAMETER_INVALID => "invalid parameter",
        40066 => "invalid url",
        APPSECRET_INVALID => "invalid appsecret",
        40164 => "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist",
        40243 => "AppSecret has been frozen",
        TOKEN_MISSING => "access_token missing",
        APPID_MISSING => "appid missing",
        APPSECRET_MISSING => "appsecret missing",
        TOKEN_EXPIRED => "access_token expired",
        COMPONENT_TOKEN_EXPIRED => "component_access_token expired",
        42007 => "access_token and refresh_token exception",
        GET_REQUIRED => "require GET method",
        POST_REQUIRED => "require POST method",
        43003 => "require https",
        BODY_EMPTY => "empty post data",
        DAY_QUOTA => "reach max api daily quota limit",
        MINUTE_QUOTA => "api minute-quota reach limit mustslower retry next minute",
        45035 => "access clientip is not registered, not in ip-white-list",
        BODY_MALFORMED => "data format error",
        48001 => "api unauthorized",
        48004 => "api forbidden for irregularities",
        50001 => "user unauthorized",
        50002 => "user limited",
        NOT_AUTHORISED => "component is not authorized by this account",
        61004 => "access clientip is not registered",
        TICKET_EXPIRED => "component ticket is expired",
        TICKET_INVALID => "component ticket is invalid",
        61007 => "api is unauthorized to component",
        REFRESH_TOKEN_INVALID => "refresh_token is invalid",
        61450 => "system error",
        61451 => "invalid parameter",
        61452 => "invalid kf_account",
        61453 => "kf_account exsited",
        61456 => "kf_account count exceeded",
        65400 => "please enable new custom service, or wait for a while if you have enabled",
        KF_ACCOUNT_INVALID => "invalid custom service account",
        NICKNAME_ILLEGAL => "illegal nickname",
        KF_ACCOUNT_ILLEGAL => "illegal custom service account",
        KF_ACCOUNT_LIMIT => "custom service account number reach limit",
        KF_ACCOUNT_EXISTS => "custom service account exists",
        65416 => "parameter invalid",
        89501..=89503 => "this ip is waiting for the administrator's confirmation",
        89504 | 89505 => "this ip call is not allowed before the administrator confirms",
        89506 | 89507 => "this ip has been refused by the administrator",
        _ => "unknown error",
    }
}
