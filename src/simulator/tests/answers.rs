//! What WeChat answers: the documented exchange and each documented error.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ADD, DEL, LEGACY, LIST, STABLE, Wechat, credentials, text};
use crate::simulator::Settings;

/// Checks the code of a refusal and that its text ends in a request id, which it returns.
pub fn refused(answer: &Value, errcode: i32) -> String {
    assert_eq!(answer["errcode"], errcode, "{answer}");
    let message = text(&answer["errmsg"]);
    let (said, rid) = message.rsplit_once(" rid: ").unwrap();
    assert!(!said.is_empty() && said != "unknown error", "{message}");
    let groups: Vec<&str> = rid.split('-').collect();
    assert!(groups.len() == 3 && groups.iter().all(|group| group.len() == 8 && u32::from_str_radix(group, 16).is_ok()), "{message}");
    rid.to_owned()
}

#[tokio::test]
async fn the_documented_exchange_works() {
    let wechat = Wechat::start(Settings::default()).await;
    let answer = wechat.post(STABLE, credentials()).await;
    assert_eq!(answer["expires_in"], 7200);
    assert_eq!(answer.get("errcode"), None);
    let token = text(&answer["access_token"]);

    let path = format!("{ADD}?access_token={token}");
    let body = r#"{"kf_account": "test1@test", "nickname": "客服1"}"#;
    let added = wechat.send(Method::POST, &path, body).await.unwrap();
    assert_eq!(added.headers()["content-type"], "application/json; encoding=utf-8");
    assert_eq!(added.text().await.unwrap(), r#"{"errcode":0,"errmsg":"ok"}"#);

    let listed = wechat.get(&format!("{LIST}?access_token={token}")).await;
    let kf = &listed["kf_list"][0];
    assert_eq!(kf["kf_account"], "test1@test");
    assert_eq!(kf["kf_nick"], "客服1");
    assert_eq!(kf["kf_id"], "1001");

    let path = format!("{DEL}?access_token={token}");
    let deleted = wechat.post(&path, r#"{"kf_account": "test1@test"}"#).await;
    assert_eq!(deleted, json!({"errcode": 0, "errmsg": "ok"}));
    assert_eq!(wechat.kf_accounts().await, Vec::<String>::new());
}

#[tokio::test]
async fn each_wrong_call_gets_its_documented_code() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.add(&token, "here@test").await;
    let add = format!("{ADD}?access_token={token}");
    let del = format!("{DEL}?access_token={token}");
    let list = format!("{LIST}?access_token={token}");
    let good = r#"{"kf_account": "a@test", "nickname": "a"}"#;
    let nickname = |nickname: &str| json!({"kf_account": "a@test", "nickname": nickname}).to_string();
    let account = |kf_account: &str| json!({"kf_account": kf_account, "nickname": "a"}).to_string();
    let (get, post) = (Method::GET, Method::POST);

    let wrong: Vec<(&Method, &str, String, i32)> = vec![
        (&get, &add, String::new(), 43002),
        (&get, &del, String::new(), 43002),
        (&get, STABLE, String::new(), 43002),
        (&post, &list, good.into(), 43001),
        (&post, LEGACY, good.into(), 43001),
        (&post, ADD, good.into(), 41001),
        (&get, LIST, String::new(), 41001),
        (&post, "/customservice/kfaccount/add?access_token=", good.into(), 41001),
        (&post, "/customservice/kfaccount/add?access_token=0_no", good.into(), 40001),
        (&post, "/customservice/kfaccount/del?access_token=99_no", good.into(), 40001),
        (&get, "/cgi-bin/customservice/getkflist?access_token=%E5%AE%A2", String::new(), 40001),
        (&post, &add, String::new(), 44002),
        (&post, &del, String::new(), 44002),
        (&post, &add, "{".into(), 47001),
        (&post, &add, r#"["a@test", "a", null]"#.into(), 47001),
        (&post, &add, r#"{"kf_account": 7, "nickname": "a"}"#.into(), 47001),
        (&post, &add, r#"{"kf_account": "a@test", "nickname": "\u5ba2"}"#.into(), 40033),
        (&post, &del, r#"{"kf_account": "\u0061@test"}"#.into(), 40033),
        (&post, &add, r#"{"kf_account": "a@test", "nickname": "a", "password": "x"}"#.into(), 40035),
        (&post, &add, account("a"), 65404),
        (&post, &add, account("@test"), 65404),
        (&post, &add, account("a@"), 65404),
        (&post, &add, account("a@b@test"), 65404),
        (&post, &add, account("eleven_char@test"), 65404),
        (&post, &add, account("客服@test"), 65404),
        (&post, &add, account("a-b@test"), 65404),
        (&post, &add, account(&format!("a@{}", "b".repeat(31))), 65404),
        (&post, &add, r#"{"nickname": "a"}"#.into(), 65404),
        (&post, &add, account("a@other"), 65401),
        (&post, &add, nickname(""), 65403),
        (&post, &add, nickname("  "), 65403),
        (&post, &add, nickname("a\nb"), 65403),
        (&post, &add, nickname(&"客".repeat(17)), 65403),
        (&post, &add, nickname(&"a".repeat(1000)), 65403),
        (&post, &add, r#"{"kf_account": "a@test"}"#.into(), 65403),
        (&post, &add, account("here@test"), 65406),
        (&post, &del, account("gone@test"), 65401),
        (&post, &del, account("here@other"), 65401),
        (&post, &del, account("no form"), 65401),
    ];
    for (method, path, body, errcode) in wrong {
        let answer = wechat.ask(method.clone(), path, body).await;
        refused(&answer, errcode);
    }
    assert_eq!(wechat.kf_accounts().await, ["here@test"]);
}

#[tokio::test]
async fn each_wrong_token_call_gets_its_documented_code() {
    let wechat = Wechat::start(Settings::default()).await;
    let wrong = [
        ("other", "wx0123456789abcdef", "secret", 40002, 40002),
        ("", "wx0123456789abcdef", "secret", 40002, 40002),
        ("client_credential", "", "secret", 41002, 41002),
        ("client_credential", "wx0123456789abcdef", "", 41004, 41004),
        ("client_credential", "wx00", "secret", 40013, 40013),
        ("client_credential", "wx0123456789abcdef", "wrong", 40125, 40001),
    ];
    for (grant_type, appid, secret, stable, legacy) in wrong {
        let body = json!({"grant_type": grant_type, "appid": appid, "secret": secret}).to_string();
        refused(&wechat.post(STABLE, body).await, stable);
        let path = format!("/cgi-bin/token?grant_type={grant_type}&appid={appid}&secret={secret}");
        refused(&wechat.get(&path).await, legacy);
    }
    refused(&wechat.post(STABLE, "").await, 44002);
    refused(&wechat.post(STABLE, "[]").await, 47001);
}

#[tokio::test]
async fn every_refusal_has_a_request_id_of_its_own() {
    let wechat = Wechat::start(Settings::default()).await;
    let first = refused(&wechat.get(LIST).await, 41001);
    let second = refused(&wechat.get(LIST).await, 41001);
    assert_ne!(first, second);
}

#[tokio::test]
async fn the_longest_names_are_taken() {
    let official = "W_-4567890123456789012345678901";
    let settings = Settings { official_accounts: vec![format!("{}:wx1:s:e:c", &official[..30]).parse().unwrap()], ..Settings::default() };
    let wechat = Wechat::start(settings).await;
    let body = json!({"grant_type": "client_credential", "appid": "wx1", "secret": "s:e:c"});
    let token = text(&wechat.post(STABLE, body.to_string()).await["access_token"]);
    let kf = format!("Ten_chars0@{}", &official[..30]);
    let body = json!({"kf_account": kf, "nickname": "🙂".repeat(16)}).to_string();
    let answer = wechat.post(&format!("{ADD}?access_token={token}"), body).await;
    assert_eq!(answer["errcode"], 0);
}

#[tokio::test]
async fn an_escaped_backslash_before_a_u_is_no_unicode_escape() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    let body = r#"{"kf_account": "a@test", "nickname": "\\u5ba2"}"#;
    let answer = wechat.post(&format!("{ADD}?access_token={token}"), body).await;
    assert_eq!(answer["errcode"], 0);
}

#[tokio::test]
async fn the_hundred_and_first_kf_account_finds_no_room_until_one_goes() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    for number in 0..100 {
        assert_eq!(wechat.add(&token, &format!("kf{number}@test")).await, 0);
    }
    assert_eq!(wechat.add(&token, "more@test").await, 65405);
    assert_eq!(wechat.add(&token, "kf99@test").await, 65406);
    assert_eq!(wechat.del(&token, "kf0@test").await, 0);
    assert_eq!(wechat.add(&token, "more@test").await, 0);
    assert_eq!(wechat.kf_accounts().await.len(), 100);
}

#[tokio::test]
async fn every_other_number_in_the_list_is_no_text() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    for kf_account in ["a@test", "b@test", "c@test"] {
        assert_eq!(wechat.add(&token, kf_account).await, 0);
    }
    let listed = wechat.get(&format!("{LIST}?access_token={token}")).await;
    let numbers: Vec<_> = listed["kf_list"].as_array().unwrap().iter().map(|kf| &kf["kf_id"]).collect();
    assert_eq!(numbers, [&json!("1001"), &json!(1002), &json!("1003")]);
}

#[tokio::test]
async fn official_accounts_are_apart() {
    let settings =
        Settings { official_accounts: vec!["one:wx1:s1".parse().unwrap(), "two:wx2:s2".parse().unwrap()], ..Settings::default() };
    let wechat = Wechat::start(settings).await;
    let path = "/cgi-bin/token?grant_type=client_credential&appid=wx2&secret=s2";
    let token = text(&wechat.get(path).await["access_token"]);
    assert_eq!(wechat.add(&token, "a@one").await, 65401);
    assert_eq!(wechat.add(&token, "a@two").await, 0);
    let accounts = wechat.get("/control/accounts").await;
    let added = json!([{"kf_account": "a@two", "nickname": "客服1", "kf_id": 1001}]);
    assert_eq!(accounts, json!({"one": [], "two": added}));
}

#[tokio::test]
async fn answers_are_labelled_text_plain_where_asked_for() {
    let settings = Settings { text_plain: true, ..Settings::default() };
    let wechat = Wechat::start(settings).await;
    let answer = wechat.send(Method::GET, LIST, "").await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain");
}
