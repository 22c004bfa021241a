//! The control endpoint.

use reqwest::Method;
use serde_json::json;

use super::{LIST, Wechat};
use crate::simulator::{Effect, Rule, Settings};

#[tokio::test]
async fn calls_are_counted_by_endpoint_and_answer_and_what_they_are_about() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    wechat.add(&token, "a@test").await;
    wechat.add(&token, "a@test").await;
    wechat.del(&token, "b@test").await;
    wechat.set_faults(json!([{"effect": {"http_status": 503}}])).await;
    wechat.send(Method::GET, LIST, "").await.unwrap();
    assert_eq!(
        wechat.get("/control/calls").await,
        json!({
            "calls": {
                "token": {"0": 1},
                "add": {"0": 1, "65406": 1},
                "del": {"65401": 1},
                "getkflist": {"http_503": 1},
            },
            "highest_overlap": 1,
            "official_accounts": {
                "test": {
                    "token": {"0": 1},
                    "add": {"0": 1, "65406": 1},
                    "del": {"65401": 1},
                },
            },
            "kf_accounts": {
                "a@test": {"calls": {"add": {"0": 1, "65406": 1}}, "in_flight": 0, "highest_overlap": 1},
                "b@test": {"calls": {"del": {"65401": 1}}, "in_flight": 0, "highest_overlap": 1},
            },
        })
    );
}

#[tokio::test]
async fn fault_rules_are_shown_replaced_and_removed() {
    let wechat = Wechat::start(Settings::default()).await;
    let rules = json!([
        {"endpoint": "getkflist", "wechat_id": "test", "kf_account": "a@test", "times": 2, "probability": 0.5, "latency": "1m 30s", "jitter": "5ms", "effect": {"errcode": 45009}},
        {"effect": "lost_answer"}, {"effect": "reset"}, {"effect": "hang"}, {"effect": "malformed"}, {"effect": {"http_status": 500}},
    ]);
    wechat.set_faults(rules.clone()).await;
    assert_eq!(wechat.get("/control/faults").await, rules);
    wechat.set_faults(json!([{"effect": "reset"}])).await;
    assert_eq!(wechat.get("/control/faults").await, json!([{"effect": "reset"}]));
    let removed = wechat.send(Method::DELETE, "/control/faults", "").await.unwrap();
    assert_eq!(removed.status(), 204);
    assert_eq!(wechat.get("/control/faults").await, json!([]));
}

#[tokio::test]
async fn wrong_fault_rules_are_refused_with_a_sentence_and_change_nothing() {
    let wechat = Wechat::start(Settings::default()).await;
    wechat.set_faults(json!([{"times": 9, "effect": {"errcode": -1}}])).await;
    let wrong = [
        ("{", "no list of fault rules"),
        (r#"{"effect": "reset"}"#, "no list of fault rules"),
        (r#"[{"efect": "reset"}]"#, "unknown field `efect`"),
        (r#"[{"effect": "explode"}]"#, "unknown variant `explode`"),
        (r#"[{"endpoint": "update", "effect": "reset"}]"#, "unknown variant `update`"),
        (r#"[{"latency": "soon"}]"#, "no list of fault rules"),
        (r#"[{"latency": "400 days"}]"#, "a year is the longest"),
        (r#"[{"effect": "reset"}, {"times": 3}]"#, "rule 2: a rule needs"),
        (r#"[{"effect": "reset", "times": 0}]"#, "rule 1: times"),
        (r#"[{"effect": "reset", "probability": 1.5}]"#, "rule 1: probability"),
        (r#"[{"effect": {"http_status": 99}}]"#, "rule 1: http_status"),
        (r#"[{"effect": {"errcode": 0}}]"#, "rule 1: errcode 0"),
    ];
    for (body, sentence) in wrong {
        let answer = wechat.send(Method::PUT, "/control/faults", body).await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        let said = answer.text().await.unwrap();
        assert!(said.contains(sentence), "{body}: {said}");
    }
    let kept = json!([{"times": 9, "effect": {"errcode": -1}}]);
    assert_eq!(wechat.get("/control/faults").await, kept);
}

#[tokio::test]
async fn every_token_can_be_ended_at_once() {
    let wechat = Wechat::start(Settings::default()).await;
    let token = wechat.stable_token().await;
    assert_eq!(wechat.add(&token, "a@test").await, 0);
    let ended = wechat.send(Method::POST, "/control/tokens/expire", "").await.unwrap();
    assert_eq!(ended.status(), 204);
    assert_eq!(wechat.add(&token, "a@test").await, 42001);
    let token = wechat.stable_token().await;
    assert_eq!(wechat.add(&token, "a@test").await, 65406);
}

#[tokio::test]
async fn a_reset_brings_back_the_state_at_start() {
    let settings = Settings {
        faults: vec![Rule { endpoint: Some(crate::simulator::Endpoint::Del), effect: Some(Effect::Errcode(-1)), ..Rule::default() }],
        ..Settings::default()
    };
    let wechat = Wechat::start(settings).await;
    let token = wechat.stable_token().await;
    wechat.add(&token, "a@test").await;
    wechat.set_faults(json!([])).await;
    wechat.send(Method::POST, "/control/reset", "").await.unwrap();
    assert!(wechat.kf_accounts().await.is_empty());
    let nothing = json!({"calls": {}, "highest_overlap": 0, "official_accounts": {}, "kf_accounts": {}});
    assert_eq!(wechat.get("/control/calls").await, nothing);
    assert_eq!(wechat.add(&token, "a@test").await, 40001);
    let token = wechat.stable_token().await;
    assert_eq!(wechat.del(&token, "a@test").await, -1);
}
