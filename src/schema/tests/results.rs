//! What the worker makes is a result, what contradicts itself is none, and what is new is tolerated.

use super::*;
use crate::outcome::{Reason, Status};

fn schema() -> [Validator; 2] {
    both(Document::Result, "Result")
}

fn result(name: &str) -> Value {
    examples::results().into_iter().find(|example| example.name == name).unwrap().payload
}

#[test]
fn what_the_worker_makes_is_a_result() {
    let schema = schema();
    for example in examples::results().into_iter().chain([examples::refusal()]) {
        assert_valid(&schema, &example.payload);
    }
}

#[test]
fn a_result_that_contradicts_itself_is_none() {
    let schema = schema();
    let error = result("failed")["data"]["error"].clone();
    for (name, pointer, value) in [
        ("succeeded", "/data/error", error),
        ("succeeded", "/data/effect", Value::Null),
        ("succeeded", "/data/effect", json!("deleted")),
        ("alreadyDone", "/data/effect", json!("created")),
        ("succeeded", "/data/status", json!("failed")),
        ("succeeded", "/data/status", json!("done")),
        ("succeeded", "/data/action", json!("delete")),
        ("succeeded", "/data/nickname_differs", json!(false)),
        ("succeeded", "/data/revision", json!(-1)),
        ("succeeded", "/data/meta", Value::Null),
        ("succeeded", "/data/attempts", json!(-1)),
        ("succeeded", "/data/attempts", json!("1")),
        ("succeeded", "/data/finished_at", json!("2026-03-02T08:00:01+08:00")),
        ("succeeded", "/data/received_at", json!(1_772_438_401)),
        ("succeeded", "/data/command_id", json!("")),
        ("succeeded", "/type", json!("kf.add.failed")),
        ("succeeded", "/type", json!("kf.delete.succeeded")),
        ("succeeded", "/type", json!("kf.unknown.succeeded")),
        ("succeeded", "/source", json!("another")),
        ("succeeded", "/specversion", json!("0.3")),
        ("succeeded", "/subject", json!("")),
        ("failed", "/data/effect", json!("none")),
        ("failed", "/data/nickname_differs", json!(true)),
        ("failed", "/data/error/reason", json!("no_such_reason")),
        ("failed", "/data/error/errcode", Value::Null),
        ("failed", "/data/error/errmsg", Value::Null),
        ("failedUntried", "/data/error/errmsg", json!("ok")),
        ("rejectedUnread", "/data/action", json!("add")),
        ("rejected", "/type", json!("kf.unknown.rejected")),
    ] {
        let mut event = result(name);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        event.pointer_mut(parent).unwrap()[key] = value;
        assert!(!accepted(&schema, &event), "{pointer} of {name}: {event:#}");
    }
}

#[test]
fn what_every_result_has_is_required() {
    let schema = schema();
    let missing = [
        ("succeeded", "", vec!["specversion", "id", "source", "type", "time", "datacontenttype", "data"]),
        ("succeeded", "/data", vec!["command_id", "status", "attempts", "received_at", "finished_at", "action", "kf_account", "effect"]),
        ("failed", "/data", vec!["error"]),
        ("failed", "/data/error", vec!["reason", "errcode", "errmsg", "detail"]),
        ("superseded", "/data", vec!["action", "error"]),
    ];
    for (name, parent, keys) in missing {
        for key in keys {
            let mut event = result(name);
            event.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            assert!(!accepted(&schema, &event), "{name} without {parent}/{key}");
        }
    }
}

#[test]
fn each_reason_goes_with_its_own_status() {
    let schema = schema();
    let expected = |status: Status| match status {
        Status::Succeeded => Vec::new(),
        Status::Failed => Reason::FAILED.to_vec(),
        Status::Rejected => [Reason::REJECTED, &[Reason::NotAuthorised]].concat(),
        Status::Superseded => Reason::SUPERSEDED.to_vec(),
    };
    for (name, status) in [("failed", Status::Failed), ("rejected", Status::Rejected), ("superseded", Status::Superseded)] {
        for reason in Reason::ALL {
            let mut event = result(name);
            event["data"]["error"]["reason"] = json!(reason);
            assert_eq!(accepted(&schema, &event), expected(status).contains(reason), "{status} because of {reason}");
        }
    }
}

#[test]
fn new_fields_of_results_are_tolerated() {
    let schema = schema();
    for parent in ["", "/data", "/data/error"] {
        let mut event = result("failed");
        event.pointer_mut(parent).unwrap()["new_with_a_later_version"] = json!(1);
        assert_valid(&schema, &event);
    }
}
