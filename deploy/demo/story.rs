//! What the demo sends and what has to come of each: the documented examples, repeats, and mistakes.

use serde_json::json;

/// One command and the result that it must have.
pub struct Step {
    /// What is sent, in a few words.
    pub sent: &'static str,
    pub command_id: &'static str,
    /// The routing key, which producers set to the account.
    pub kf_account: &'static str,
    pub body: String,
    pub result: Expected,
}

pub enum Expected {
    /// This status, this effect or reason, and so many calls to WeChat.
    New { status: &'static str, word: &'static str, attempts: u64 },
    /// Exactly what was answered when this command id was first sent, without a call to WeChat.
    AsBefore,
}

/// The accounts that exist at the end, with their nicknames.
pub const ACCOUNTS: [(&str, &str); 2] = [("anna_li@test", "李安娜 Anna"), ("test2@test", "王小明")];

/// How many messages need a person at the end: the one that is no JSON and the one for an Official Account nobody configured.
pub const DEAD_LETTERS: u32 = 2;

/// The story, in the order in which it is sent.
pub fn steps() -> Vec<Step> {
    vec![
        add("add, as in the documentation", "demo-01", "test1@test", "客服1", succeeded("created")),
        add("add 王小明", "demo-02", "test2@test", "王小明", succeeded("created")),
        add("add 李安娜 Anna", "demo-03", "anna_li@test", "李安娜 Anna", succeeded("created")),
        add("the first add, sent again", "demo-01", "test1@test", "客服1", Expected::AsBefore),
        add("add what exists, new id", "demo-04", "test1@test", "客服1", succeeded("none")),
        delete("delete it", "demo-05", "test1@test", succeeded("deleted")),
        add("the first add, once more", "demo-01", "test1@test", "客服1", Expected::AsBefore),
        delete("delete what is not there", "demo-06", "test1@test", succeeded("none")),
        add("a nickname of 17 characters", "demo-07", "test3@test", "一二三四五六七八九十一二三四五六七", rejected("invalid_nickname")),
        Step {
            sent: "broken JSON",
            command_id: "demo-08",
            kf_account: "test3@test",
            body: r#"{"action": "add", "kf_account""#.into(),
            result: rejected("not_a_json_object"),
        },
        Step {
            sent: "an unknown field",
            command_id: "demo-09",
            kf_account: "test3@test",
            body: json!({"action": "delete", "kf_account": "test3@test", "force": true}).to_string(),
            result: rejected("unknown_field"),
        },
        add("an unknown Official Account", "demo-10", "test1@other", "客服1", failed("unknown_official_account")),
        add("a used id, other content", "demo-02", "test2@test", "王大明", rejected("command_id_reused")),
    ]
}

fn add(sent: &'static str, command_id: &'static str, kf_account: &'static str, nickname: &str, result: Expected) -> Step {
    let body = json!({"command_id": command_id, "action": "add", "kf_account": kf_account, "nickname": nickname}).to_string();
    Step { sent, command_id, kf_account, body, result }
}

fn delete(sent: &'static str, command_id: &'static str, kf_account: &'static str, result: Expected) -> Step {
    let body = json!({"command_id": command_id, "action": "delete", "kf_account": kf_account}).to_string();
    Step { sent, command_id, kf_account, body, result }
}

fn succeeded(effect: &'static str) -> Expected {
    Expected::New { status: "succeeded", word: effect, attempts: 1 }
}

fn rejected(reason: &'static str) -> Expected {
    Expected::New { status: "rejected", word: reason, attempts: 0 }
}

fn failed(reason: &'static str) -> Expected {
    Expected::New { status: "failed", word: reason, attempts: 0 }
}
