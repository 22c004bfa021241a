//! The form of what a run has published: events addressed as promised, dead letters that say why, and no secret in either.

use lapin::BasicProperties;
use serde_json::Value;

use crate::support::broker::Received;

/// What stands only where a secret of the simulated WeChat's was told: the beginning of every AppSecret, and of a token in a URL.
pub const SECRETS: [&str; 2] = ["secret-", "access_token="];

/// What is wrong with an event's address and dates.
pub fn faults_of_event(event: &Received) -> Vec<String> {
    let (data, json) = (&event.json["data"], &event.json);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let action = data["action"].as_str().unwrap_or("unknown");
    let key = format!("{action}.{}", text(&data["status"]));
    let kind = format!("kf.{key}");
    let property = |property: fn(&BasicProperties) -> &Option<_>| event.property(property).unwrap_or_default().to_owned();
    let pairs = [
        ("routing key", event.routing_key.clone(), key),
        ("type", text(&json["type"]), kind.clone()),
        ("property type", property(BasicProperties::kind), kind),
        ("property message_id", property(BasicProperties::message_id), text(&json["id"])),
        ("property correlation_id", property(BasicProperties::correlation_id), text(&data["command_id"])),
        ("property app_id", property(BasicProperties::app_id), "kf-worker".to_owned()),
        ("source", text(&json["source"]), "kf-worker".to_owned()),
        ("subject", text(&json["subject"]), text(&data["kf_account"])),
        ("time", text(&json["time"]), text(&data["finished_at"])),
    ];
    let mut faults: Vec<String> = pairs
        .into_iter()
        .filter(|(_, found, wanted)| found != wanted)
        .map(|(name, found, wanted)| format!("{} has the {name} `{found}` for `{wanted}`", event.event_id()))
        .collect();
    if *event.properties.delivery_mode() != Some(2) {
        faults.push(format!("{} is not persistent", event.event_id()));
    }
    // Both are UTC and written alike, so that their texts sort as they do, up to the second.
    if text(&data["received_at"]).get(..19) > text(&data["finished_at"]).get(..19) {
        faults.push(format!("{} was finished before it was received: {}", event.event_id(), event.data));
    }
    if data["status"] == "rejected" && data["attempts"] != 0 {
        faults.push(format!("{} was rejected and tried: {}", event.event_id(), event.data));
    }
    faults.extend(secrets_in(event));
    faults
}

/// What is wrong with a dead letter's headers.
pub fn faults_of_dead_letter(dead: &Received) -> Vec<String> {
    let headers = dead.headers();
    let wanted = ["kf-dead-id", "kf-reason", "kf-detail", "kf-failed-at"];
    let missing = wanted.into_iter().filter(|name| headers.get(*name).is_none_or(String::is_empty));
    let mut faults: Vec<String> =
        missing.map(|name| format!("a dead letter has no {name}: {headers:?} {}", String::from_utf8_lossy(&dead.bytes))).collect();
    faults.extend(secrets_in(dead));
    faults
}

fn secrets_in(message: &Received) -> Option<String> {
    let text = format!("{:?} {}", message.properties, String::from_utf8_lossy(&message.bytes));
    SECRETS.into_iter().find(|secret| text.contains(secret)).map(|secret| format!("`{secret}…` stands in {text}"))
}
