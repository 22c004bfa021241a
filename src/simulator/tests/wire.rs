//! What only a hand-written request can show: lengths, broken bodies, unknown paths and the end.

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ADD, DEADLINE, Wechat};
use crate::simulator::{OfficialAccount, Settings, Simulator};

/// Sends bytes and reads all that comes back until the server closes.
async fn raw(wechat: &Wechat, request: impl AsRef<[u8]>) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(wechat.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}

#[tokio::test]
async fn a_post_without_a_length_is_refused_by_the_gateway() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    let head = format!("POST {ADD}?access_token={token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let chunk = r#"{"kf_account":"a@test","nickname":"a"}"#;
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len());
    let answer = raw(&wechat, chunked).await;
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    let answer = raw(&wechat, format!("{head}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    assert!(wechat.kf_accounts().await.is_empty());
    assert_eq!(wechat.get("/control/calls").await["calls"]["add"]["http_412"], 2);
    let answer = raw(&wechat, format!("{head}Content-Length: 0\r\n\r\n")).await;
    assert!(answer.contains(r#""errcode":44002"#), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_is_malformed() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    let head = format!("POST {ADD}?access_token={token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n");
    let answer = raw(&wechat, [head.as_bytes(), b"{\xff}"].concat()).await;
    assert!(answer.contains(r#""errcode":47001"#), "{answer}");
}

#[tokio::test]
async fn a_huge_body_is_refused() {
    let wechat = Wechat::start(Settings::default()).await;
    let answer = wechat.send(Method::POST, ADD, "x".repeat(1024 * 1024 + 1)).await.unwrap();
    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let wechat = Wechat::start(Settings::default()).await;
    for path in ["/", "/customservice/kfaccount/update", "/cgi-bin/customservice/kfaccount/add", "/control"] {
        let answer = wechat.send(Method::POST, path, "{}").await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn it_ends_when_asked_although_connections_are_kept_open() {
    let mut wechat = Wechat::start(Settings::default()).await;
    wechat.stable_token().await;
    let mut half_a_request = TcpStream::connect(wechat.address).await.unwrap();
    half_a_request.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
    wechat.shutdown.cancel();
    let ended = tokio::time::timeout(DEADLINE, &mut wechat.running).await;
    assert!(ended.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let wechat = Wechat::start(Settings::default()).await;
    let settings = Settings { listen: wechat.address, ..Settings::default() };
    let error = Simulator::bind(settings).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn an_official_account_is_read_from_text() {
    let default: OfficialAccount = "test:wx0123456789abcdef:secret".parse().unwrap();
    assert_eq!(default, OfficialAccount::default());
    for wrong in ["", "test", "test:wx", "te st:wx:s", ":wx:s", "test::s", "test:wx:"] {
        assert!(wrong.parse::<OfficialAccount>().is_err(), "{wrong}");
    }
}
