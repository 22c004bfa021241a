//! A WeChat, or what stands before it, that answers whatever it likes: memory and time stay bounded, and others are not held up.

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::support::stage::{Stage, add};
use crate::support::wechat::{Answer, Endpoint, Piece};

/// The worker may need so much more memory meanwhile.
const MORE_MEMORY: f64 = 60e6;

fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

/// Bytes that are no answer of WeChat's, with a word for each.
fn lies() -> Vec<(&'static str, Vec<Piece>)> {
    let once = |bytes: Vec<u8>| vec![Piece::Once(bytes)];
    let body = |bytes: &[u8]| once([&head(&format!("Content-Length: {}\r\n", bytes.len()))[..], bytes].concat());
    let ok = br#"{"errcode":0,"errmsg":"ok"}"#;
    vec![
        ("endless", vec![Piece::Once(head("Connection: close\r\n")), Piece::Endless(vec![b' '; 64 * 1024])]),
        ("endless-chunks", vec![Piece::Once(head("Transfer-Encoding: chunked\r\n")), Piece::Endless(b"4\r\nabcd\r\n".repeat(4096))]),
        ("megabytes", body(&[b"{\"errcode\":0,\"x\":\"", &vec![b'x'; 8 << 20][..], b"\"}"].concat())),
        ("amplified", body(&[b"{\"x\":[", &b"0,".repeat(500_000)[..], b"0]}"].concat())),
        ("length-too-large", once([&head("Content-Length: 999999\r\n")[..], ok].concat())),
        ("length-huge", once([&head("Content-Length: 18446744073709551615\r\n")[..], ok].concat())),
        ("length-no-number", once([&head("Content-Length: many\r\n")[..], ok].concat())),
        ("two-lengths", once([&head("Content-Length: 5\r\nContent-Length: 27\r\n")[..], ok].concat())),
        ("chunk-cut", once([&head("Transfer-Encoding: chunked\r\n")[..], b"1b\r\n{\"errcode\":0"].concat())),
        ("chunk-huge", once([&head("Transfer-Encoding: chunked\r\n")[..], b"ffffffffffffffffff\r\n{}"].concat())),
        ("no-http", once(b"\0\xff\xfeSSH-2.0-x\r\n".to_vec())),
        ("many-headers", once(head(&"X-Flood: 1\r\n".repeat(20_000)))),
        ("endless-header", vec![Piece::Once(b"HTTP/1.1 200 OK\r\nX-Flood: ".to_vec()), Piece::Endless(vec![b'x'; 64 * 1024])]),
        ("not-utf-8", body(b"{\"errcode\":0,\"errmsg\":\"\xff\xfe\"}")),
        ("nested", body(&b"[".repeat(200_000))),
        ("errcode-huge", body(br#"{"errcode":99999999999999999999999999}"#)),
        ("errcode-list", body(br#"{"errcode":[0]}"#)),
        // Nothing that was not asked for is unpacked: 1 KiB of it would become a megabyte.
        ("gzip", once([&head("Content-Encoding: gzip\r\nContent-Length: 24\r\n")[..], b"\x1f\x8b\x08\0\0\0\0\0\0\x03", &[0; 14]].concat())),
        // An answer to nothing stands behind the answer: it is not the next one's.
        ("two-answers", once([&head("Content-Length: 2\r\n")[..], b"{}", &head("Content-Length: 27\r\n"), ok].concat())),
        // What says two things says nothing.
        ("errcode-twice", body(br#"{"errcode":65401,"errcode":0,"errmsg":"ok"}"#)),
        ("continue-flood", once(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000))),
        ("drip", vec![Piece::Once(head("Content-Length: 1000\r\n")), Piece::Drip]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_ends_in_time_and_is_asked_again_while_other_official_accounts_go_on() {
    let lies = lies();
    let wechat_ids: Vec<String> = lies.iter().map(|(word, _)| format!("oa-{word}")).chain(["well".to_owned()]).collect();
    let mut stage = Stage::with_official_accounts(&wechat_ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "2s");
    let worker = stage.worker_with(&settings).await;
    let before = worker.metric("process_resident_memory_bytes").await.expect("the worker answers");
    for (word, pieces) in &lies {
        let account = format!("anna@oa-{word}");
        for _ in 0..3 {
            stage.wechat.next(Endpoint::Add, Some(&account), Answer::Wire(pieces.clone()));
        }
        stage.send(&add(word, &account, "安娜")).await;
    }
    for number in 0..20 {
        let event = stage.outcome(&add(&format!("well-{number}"), &format!("w{number}@well"), "好")).await;
        event.assert_succeeded("created");
        assert!(event.attempts() <= 2, "{event:?}");
    }
    for (word, _) in &lies {
        let event = stage.events.of(word).await;
        event.assert_succeeded("created");
        // One whose connection is closed in the moment it is asked on costs another attempt.
        assert!((4..=6).contains(&event.attempts()), "{word}: {}", event.data);
    }
    let memory = worker.metric("process_resident_memory_bytes").await.expect("the worker answers");
    assert!(memory < before + MORE_MEMORY, "{before} bytes of memory have become {memory}");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirection_takes_the_token_to_another_host() {
    let mut stage = Stage::with_official_accounts(&["moved", "lured", "well"]).await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1s").set("retry.defer", json!(["1s"]));
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = elsewhere.local_addr().expect("it is bound");
    let asked = tokio::spawn(async move {
        let (mut stream, _) = elsewhere.accept().await.expect("the listener lives");
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).await.unwrap_or_default();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    });
    let redirection = |status: u16| {
        let head = format!(
            "HTTP/1.1 {status} Moved\r\nLocation: http://{address}/steal\r\nRefresh: 0; url=http://{address}/\r\nContent-Length: 0\r\n\r\n"
        );
        Answer::Wire(vec![Piece::Once(head.into_bytes())])
    };
    for status in [301, 307, 308] {
        stage.wechat.next(Endpoint::Add, Some("anna@moved"), redirection(status));
    }
    let lured = stage.wechat.official_account("lured").app_id;
    stage.wechat.next(Endpoint::StableToken, Some(&lured), redirection(307));
    let worker = stage.worker_with(&settings).await;
    stage.send(&add("c1", "anna@moved", "安娜")).await;
    stage.send(&add("c2", "anna@lured", "安娜")).await;
    stage.outcome(&add("c3", "anna@well", "安娜")).await.assert_succeeded("created");
    for command_id in ["c1", "c2"] {
        stage.events.of(command_id).await.assert_succeeded("created");
    }
    assert!(!asked.is_finished(), "somebody else was asked: {:?}", asked.await);
    asked.abort();
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_too_long_to_be_one_is_asked_for_again_and_costs_no_command() {
    let mut stage = Stage::with_official_accounts(&["long", "well"]).await;
    let app_id = stage.wechat.official_account("long").app_id;
    let token = json!({ "access_token": "t".repeat(100_000), "expires_in": 7200 }).to_string();
    stage.wechat.next(Endpoint::StableToken, Some(&app_id), Answer::Body(token));
    let worker = stage.worker().await;
    stage.send(&add("c1", "anna@long", "安娜")).await;
    stage.outcome(&add("c2", "anna@well", "安娜")).await.assert_succeeded("created");
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_announced_without_end_are_given_up_in_time() {
    let mut stage = Stage::with_official_accounts(&["announced", "well"]).await;
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "1s");
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1_000);
    stage.wechat.next(Endpoint::Add, Some("anna@announced"), Answer::Wire(vec![Piece::Endless(hints)]));
    let worker = stage.worker_with(&settings).await;
    let before = worker.metric("process_resident_memory_bytes").await.expect("the worker answers");
    stage.send(&add("c1", "anna@announced", "安娜")).await;
    // It costs a processor until then: others may be slower, and no more.
    assert_eq!(stage.outcome(&add("c2", "anna@well", "安娜")).await.status(), "succeeded");
    let event = stage.events.of("c1").await;
    assert_eq!((event.status(), event.attempts()), ("succeeded", 2), "{}", event.data);
    let memory = worker.metric("process_resident_memory_bytes").await.expect("the worker answers");
    assert!(memory < before + MORE_MEMORY, "{before} bytes of memory have become {memory}");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
