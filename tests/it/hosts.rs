//! Other hosts of WeChat's API: taken when one can't be reached or its gateway fails, kept then, and never for an errcode.

use serde_json::json;

use crate::support::ports::free_port;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, Worker};

/// A worker's settings with these hosts, the preferred one first.
fn with_hosts(stage: &Stage, base_urls: &[&str]) -> Settings {
    let mut settings = stage.settings();
    settings.set("wechat.base_url", base_urls[0]).set("wechat.fallback_urls", json!(base_urls[1..]));
    settings
}

/// The host and port of a base URL, as metrics, logs and requests name it.
fn name(base_url: &str) -> &str {
    base_url.strip_prefix("http://").expect("these tests speak http")
}

/// The hosts to which the adds and deletes went, in order.
fn hosts_called(stage: &Stage) -> Vec<String> {
    stage.wechat.journal().into_iter().map(|call| format!("http://{}", call.headers["host"])).collect()
}

/// Which of these hosts is used, by the metric.
async fn used<'a>(worker: &Worker, base_urls: &[&'a str]) -> Vec<&'a str> {
    let mut used = Vec::new();
    for base_url in base_urls {
        let metric = format!("kf_wechat_host{{host=\"{}\"}}", name(base_url));
        if worker.metric(&metric).await.expect("each host has its gauge") > 0.0 {
            used.push(*base_url);
        }
    }
    used
}

/// How often the host was changed.
async fn changes(worker: &Worker) -> f64 {
    worker.metric("kf_wechat_host_changes_total").await.expect("the counter is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_reached_is_left_and_not_tried_again_soon() {
    let mut stage = Stage::new().await;
    let (dead, alive) = (format!("http://127.0.0.1:{}", free_port()), stage.wechat.base_url());
    let settings = with_hosts(&stage, &[&dead, &alive]);
    let worker = stage.worker_with(&settings).await;
    assert_eq!(used(&worker, &[&dead, &alive]).await, [&dead]);
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(used(&worker, &[&dead, &alive]).await, [&alive]);
    let log = worker.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("another host of WeChat's API is used")).collect();
    assert!(told.len() == 1 && told[0].contains(name(&alive)), "{told:?}");

    for number in 0..5 {
        let event = stage.outcome(&add(&format!("d{number}"), &format!("a{number}@test"), "安娜")).await;
        event.assert_succeeded("created");
        assert_eq!(event.attempts(), 1, "the host that can't be reached is not tried");
    }
    assert!((changes(&worker).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_goes_away_is_left_for_the_next_one() {
    let mut stage = Stage::new().await;
    let (door, home) = (stage.wechat.open_door().await, stage.wechat.base_url());
    let first = door.base_url();
    let settings = with_hosts(&stage, &[&first, &home]);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    drop(door);
    stage.outcome(&add("c2", "ben@test", "本")).await.assert_succeeded("created");
    stage.outcome(&add("c3", "carl@other", "卡尔")).await.assert_succeeded("created");
    assert_eq!(hosts_called(&stage), [first.as_str(), &home, &home]);
    assert_eq!(used(&worker, &[&first, &home]).await, [&home]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_fails_changes_the_host_for_everybody() {
    let mut stage = Stage::new().await;
    let (door, first) = (stage.wechat.open_door().await, stage.wechat.base_url());
    let second = door.base_url();
    let settings = with_hosts(&stage, &[&first, &second]);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    stage.wechat.next(Endpoint::Add, Some("ben@test"), Answer::Http(502));
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2);
    stage.outcome(&delete("c3", "anna@test")).await.assert_succeeded("deleted");
    stage.outcome(&add("c4", "carl@other", "卡尔")).await.assert_succeeded("created");
    assert_eq!(hosts_called(&stage), [&first, &first, &second, &second, &second].map(String::as_str));
    assert_eq!(used(&worker, &[&first, &second]).await, [&second]);

    // The second one's gateway fails in turn: there are no more, so it begins anew.
    stage.wechat.next(Endpoint::Delete, Some("ben@test"), Answer::Http(503));
    stage.outcome(&delete("c5", "ben@test")).await.assert_succeeded("deleted");
    assert_eq!(hosts_called(&stage)[5..], [&second, &first].map(String::as_str));
    assert!((changes(&worker).await - 2.0).abs() < f64::EPSILON);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_errcode_never_changes_the_host() {
    let mut stage = Stage::with_official_accounts(&["test", "quota", "blocked"]).await;
    let (door, first) = (stage.wechat.open_door().await, stage.wechat.base_url());
    let second = door.base_url();
    let settings = with_hosts(&stage, &[&first, &second]);
    let mut worker = stage.worker_with(&settings).await;
    for errcode in [-1, -1, -1, 61450, 40001] {
        stage.wechat.next(
            Endpoint::Add,
            Some("anna@test"),
            if errcode == 40001 { Answer::EndToken(errcode) } else { Answer::Errcode(errcode) },
        );
    }
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Body("<html>no errcode at all</html>".to_owned()));
    stage.wechat.always(Endpoint::Add, Some("ben@quota"), Answer::Errcode(45009));
    stage.wechat.always(Endpoint::Add, Some("carl@blocked"), Answer::Errcode(50002));
    for (command_id, account) in [("c2", "ben@quota"), ("c3", "carl@blocked")] {
        stage.send(&add(command_id, account, "本")).await;
        stage.ledger().until(command_id, "waiting").await;
    }
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 7);
    assert_eq!(hosts_called(&stage), vec![first.clone(); 9]);
    assert_eq!((used(&worker, &[&first, &second]).await, changes(&worker).await.to_string()), (vec![first.as_str()], "0".to_owned()));
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lost_answer_says_nothing_of_a_host_but_three_in_a_row_do() {
    let mut stage = Stage::new().await;
    let (door, first) = (stage.wechat.open_door().await, stage.wechat.base_url());
    let second = door.base_url();
    let settings = with_hosts(&stage, &[&first, &second]);
    let worker = stage.worker_with(&settings).await;
    for name in ["anna@test", "ben@test", "carl@test"] {
        stage.wechat.next(Endpoint::Add, Some(name), Answer::Lose);
        stage.outcome(&add(name, name, "安娜")).await.assert_succeeded("unknown");
    }
    assert_eq!(hosts_called(&stage), vec![first.clone(); 6], "an answer came between any two that were lost");
    for _ in 0..3 {
        stage.wechat.next(Endpoint::Add, Some("dora@test"), Answer::Lose);
    }
    stage.outcome(&add("c4", "dora@test", "朵拉")).await.assert_succeeded("unknown");
    assert_eq!(hosts_called(&stage)[6..], [&first, &first, &first, &second].map(String::as_str));
    assert_eq!(used(&worker, &[&first, &second]).await, [&second]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_in_trouble_says_nothing_of_wechats_hosts() {
    let mut stage = Stage::with_official_accounts(&["test", "unreachable"]).await;
    let (door, first) = (stage.wechat.open_door().await, stage.wechat.base_url());
    let second = door.base_url();
    let mut settings = with_hosts(&stage, &[&first, &second]);
    let servers = [("test", stage.wechat.token_server_url("test")), ("unreachable", format!("http://127.0.0.1:{}/token", free_port()))];
    let account = |(wechat_id, url): (&str, String)| {
        let header = format!("x-api-key: {}", stage.wechat.api_key());
        format!(
            "[[official_account]]\nwechat_id = \"{wechat_id}\"\ntoken = \"url\"\ntoken_url = \"{url}\"\ntoken_headers = [\"{header}\"]\n\n"
        )
    };
    settings.official_accounts = servers.map(account).concat();
    let mut worker = stage.worker_with(&settings).await;
    stage.send(&add("c1", "ben@unreachable", "本")).await;
    stage.ledger().until("c1", "waiting").await;
    stage.wechat.next(Endpoint::TokenServer, Some("test"), Answer::Http(502));
    stage.outcome(&add("c2", "anna@test", "安娜")).await.assert_succeeded("created");
    assert_eq!(hosts_called(&stage), [first.as_str()]);
    assert_eq!(used(&worker, &[&first, &second]).await, [&first]);
    assert_eq!(worker.terminate().await, Some(0));
}
