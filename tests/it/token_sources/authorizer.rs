//! `token = "authorizer"`: a third-party platform acts for the Official Account.

use serde_json::Value;

use super::{assert_not_shown, authorised, authorised_with_ticket_file, first_refresh_token, refresh_tokens_sent};
use crate::support::broker::Message;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// The tickets with which a component token was asked for, in order.
fn tickets_sent(stage: &Stage) -> Vec<String> {
    let bodies = stage.wechat.calls(Endpoint::ComponentToken).into_iter().map(|call| serde_json::from_str::<Value>(&call.body));
    bodies.map(|body| body.expect("JSON")["component_verify_ticket"].as_str().expect("a ticket").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_acts_for_an_official_account_with_its_ticket_from_a_file() {
    let mut stage = Stage::new().await;
    let mut settings = authorised_with_ticket_file(&stage);
    settings.env("RUST_LOG", "info,lapin=error,kf_worker=debug");
    let worker = stage.worker_with(&settings).await;
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    let platform = stage.wechat.platform();
    assert_eq!(tickets_sent(&stage), std::slice::from_ref(&platform.ticket));
    let refresh_tokens = stage.wechat.official_account("test").refresh_tokens();
    assert_eq!(refresh_tokens_sent(&stage), refresh_tokens[..1]);

    let token = stage.wechat.calls(Endpoint::Add)[0].token.clone();
    let (_, metrics) = worker.get("/metrics").await.expect("the worker answers");
    let secrets = [&platform.ticket, &platform.app_secret, &token, &refresh_tokens[0], &refresh_tokens[1], "COMPONENT-"];
    assert_not_shown(&secrets.map(|secret: &str| secret), &[&worker.log(), &metrics, &event.data]);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ticket_may_come_from_the_platforms_own_server() {
    for named in [false, true] {
        let mut stage = Stage::new().await;
        let ticket = stage.wechat.platform().ticket;
        let body = if named { format!("{{\"component_verify_ticket\": \"{ticket}\"}}") } else { format!("{ticket}\n") };
        stage.wechat.always(Endpoint::TokenServer, Some("ticket"), Answer::Body(body));
        let source = format!(
            "verify_ticket_url = \"{}\"\nverify_ticket_headers = [\"x-api-key: {}\"]",
            stage.wechat.token_server_url("ticket"),
            stage.wechat.api_key()
        );
        let settings = authorised(&stage, &[("test", &first_refresh_token(&stage, "test"))], &source);
        let worker = stage.worker_with(&settings).await;
        stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
        assert_eq!(tickets_sent(&stage), [ticket]);
        let asked = stage.wechat.calls(Endpoint::TokenServer);
        assert_eq!((asked.len(), asked[0].headers.get("x-api-key")), (1, Some(&stage.wechat.api_key())));
        assert_eq!(stage.settle(worker).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_has_ended_pauses_until_the_platform_keeps_a_good_one() {
    for errcode in [61005, 61006] {
        let mut stage = Stage::new().await;
        let mut settings = authorised_with_ticket_file(&stage);
        settings.set("retry.probe_interval", "300ms").set("retry.defer", serde_json::json!(["200ms", "400ms"]));
        stage.wechat.set_ticket("ticket@@@that-the-platform-has-missed");
        stage.wechat.next(Endpoint::ComponentToken, None, Answer::Errcode(errcode));
        let worker = stage.worker_with(&settings).await;
        stage.send(&add("c1", "anna@test", "安娜")).await;
        let platform = stage.wechat.platform();
        stage.wechat.until_answered(Endpoint::ComponentToken, &platform.app_id, 2).await;
        let entry = stage.ledger().until("c1", "waiting").await;
        assert_eq!((entry.trouble.as_deref(), entry.attempts), (Some("misconfigured"), 0), "{errcode}");
        let log = worker.log();
        let paused = log.lines().find(|line| line.contains("the Official Account is paused")).expect("the pause is logged");
        assert!(paused.contains("verify ticket") && paused.contains(&errcode.to_string()), "{paused}");

        std::fs::write(stage.path("ticket"), &platform.ticket).expect("the ticket can be written");
        stage.events.of("c1").await.assert_succeeded("created");
        assert_eq!(worker.pauses().await, Vec::<String>::new());
        assert_eq!(stage.settle(worker).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_not_there_pauses_with_a_word_on_where_it_was_looked_for() {
    let mut stage = Stage::new().await;
    let mut settings = authorised_with_ticket_file(&stage);
    settings.set("retry.probe_interval", "300ms").set("retry.defer", serde_json::json!(["200ms", "400ms"]));
    let ticket = stage.path("ticket");
    std::fs::remove_file(&ticket).expect("there was one");
    let worker = stage.worker_with(&settings).await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    assert_eq!(stage.ledger().until("c1", "waiting").await.trouble.as_deref(), Some("misconfigured"));
    let log = worker.log();
    let paused = log.lines().find(|line| line.contains("the Official Account is paused")).expect("the pause is logged");
    assert!(paused.contains("verify ticket") && paused.contains(&ticket.display().to_string()), "{paused}");
    assert_eq!(stage.wechat.calls(Endpoint::ComponentToken).len(), 0, "WeChat is asked for nothing without one");
    std::fs::write(&ticket, stage.wechat.platform().ticket).expect("the ticket can be written");
    stage.events.of("c1").await.assert_succeeded("created");
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_token_that_has_ended_is_renewed_and_the_call_goes_through() {
    let mut stage = Stage::new().await;
    let settings = authorised_with_ticket_file(&stage);
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    // Both have ended: WeChat answers 40001 to the call, then 42006 to the fetch.
    stage.wechat.end_token("test");
    stage.wechat.end_component_tokens();
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 2);
    assert_eq!(stage.wechat.calls(Endpoint::ComponentToken).len(), 2, "it is renewed once");
    assert_eq!(stage.wechat.calls(Endpoint::AuthorizerToken).len(), 3, "asked, refused, asked again");
    assert!(!worker.log().contains("the Official Account is paused"));
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn official_accounts_of_one_platform_share_its_token_however_many_commands_come_at_once() {
    let mut stage = Stage::new().await;
    let ticket = stage.wechat.platform().ticket;
    std::fs::write(stage.path("ticket"), ticket).expect("the ticket can be written");
    let refresh_tokens = ["test", "other"].map(|wechat_id| (wechat_id, first_refresh_token(&stage, wechat_id)));
    let refresh_tokens: Vec<(&str, &str)> = refresh_tokens.iter().map(|(wechat_id, token)| (*wechat_id, token.as_str())).collect();
    let settings = authorised(&stage, &refresh_tokens, &format!("verify_ticket_file = \"{}\"", stage.path("ticket").display()));
    let worker = stage.worker_with(&settings).await;
    let suffix = |number: usize| if number.is_multiple_of(2) { "test" } else { "other" };
    let command = |number: usize| Message::json(&add(&format!("c{number}"), &format!("a{number}@{}", suffix(number)), "安娜"));
    stage.broker.publish_all((0..50).map(command)).await;
    for event in stage.events.collect(50).await {
        event.assert_succeeded("created");
    }
    assert_eq!((stage.wechat.calls(Endpoint::ComponentToken).len(), stage.wechat.calls(Endpoint::AuthorizerToken).len()), (1, 2));
    assert_eq!(stage.settle(worker).await.len(), 0);
}
