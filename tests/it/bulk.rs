//! Ten thousand commands over two hundred accounts, one in twenty of them a repeat.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::broker::{Message, Received};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::Endpoint;

const COMMANDS: usize = 10_000;
/// So few that none of the two Official Accounts is ever full.
const ACCOUNTS: usize = 200;
/// Every so many messages one is sent before.
const REPEAT: usize = 20;

/// The messages in the order of sending: adds and deletes in turn for each account, every twentieth one a repeat.
fn messages() -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::with_capacity(COMMANDS);
    let mut commands = 0;
    for number in 0..COMMANDS {
        if number % REPEAT == REPEAT - 1 {
            // Now a recent one that may still be queued, now an old one that was finished long ago.
            let back = if number % (2 * REPEAT) == REPEAT - 1 { 7 } else { number / 2 };
            messages.push(messages[number - back].clone());
            continue;
        }
        let (account, round) = (commands % ACCOUNTS, commands / ACCOUNTS);
        commands += 1;
        let official = if account % 2 == 0 { "test" } else { "other" };
        let kf_account = format!("a{account}@{official}");
        let command_id = format!("c{number}");
        messages.push(match round % 2 {
            0 => add(&command_id, &kf_account, "客服"),
            _ => delete(&command_id, &kf_account),
        });
    }
    messages
}

fn text<'a>(command: &'a Value, field: &str) -> &'a str {
    command[field].as_str().expect("a text")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_commands_end_in_one_outcome_each_and_in_order() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    // On a slow machine nothing may be put off, since what is put off gives way to what is newer.
    settings.set("worker.slow_after", "10m");
    let worker = stage.worker_with(&settings).await;
    let messages = messages();
    stage.broker.publish_all(messages.iter().map(Message::json)).await;
    let events = stage.events.collect(COMMANDS).await;

    let mut sent: HashMap<&str, usize> = HashMap::new();
    let mut order: HashMap<&str, Vec<&str>> = HashMap::new();
    for message in &messages {
        let times = sent.entry(text(message, "command_id")).or_default();
        *times += 1;
        if *times == 1 {
            order.entry(text(message, "kf_account")).or_default().push(text(message, "action"));
        }
    }
    let mut told: HashMap<&str, Vec<&Received>> = HashMap::new();
    for event in &events {
        told.entry(event.command_id()).or_default().push(event);
    }
    assert_eq!(told.len(), sent.len(), "every command has an outcome");
    for (command_id, times) in &sent {
        let outcomes = &told[command_id];
        assert_eq!(outcomes.len(), *times, "{command_id} is answered as often as it was sent");
        assert_eq!(outcomes[0].status(), "succeeded", "{}", outcomes[0].data);
        assert_eq!(outcomes[0].attempts(), 1);
        for again in &outcomes[1..] {
            outcomes[0].assert_repeated_by(again);
        }
    }

    let mut called: HashMap<String, Vec<&str>> = HashMap::new();
    for call in stage.wechat.journal() {
        let action = if call.endpoint == Endpoint::Add { "add" } else { "delete" };
        called.entry(call.account).or_default().push(action);
    }
    assert_eq!(called.len(), ACCOUNTS);
    for (account, actions) in &called {
        assert_eq!(actions, &order[account.as_str()], "{account}: once for each command, in the order sent");
    }
    assert_eq!(stage.settle(worker).await.len(), 0);
    assert_eq!(stage.broker.ready("dead").await, Some(0));
}
