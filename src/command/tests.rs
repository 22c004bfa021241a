//! What is taken, what is refused and why, in every form of the contract.

use super::*;

fn plain(body: &str) -> Message {
    Message { body: body.as_bytes().to_vec(), ..Message::default() }
}

fn command(message: &Message) -> Command {
    match decode(message) {
        Decoded::Command(command) => command,
        other => panic!("not a command: {other:?}"),
    }
}

fn refused(body: &str) -> Refused {
    match decode(&plain(body)) {
        Decoded::Refused(refused) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

fn unreadable(message: &Message) -> Reason {
    match decode(message) {
        Decoded::Unreadable(failure) => failure.reason,
        other => panic!("not unreadable: {other:?}"),
    }
}

#[test]
fn the_documented_add_is_a_command() {
    let command = command(&plain(
        r#"{"command_id":"c1","action":"add","kf_account":"test1@test","nickname":"客服1","revision":7,"meta":{"a": 1.50}}"#,
    ));
    assert_eq!(command.action, Action::Add);
    assert_eq!(command.account.as_str(), "test1@test");
    assert_eq!(command.account.wechat_id(), "test");
    assert_eq!(command.given.nickname.as_deref(), Some("客服1"));
    assert_eq!(command.given.revision, Some(7));
    assert_eq!(command.given.meta.unwrap().get(), r#"{"a": 1.50}"#);
}

#[test]
fn a_refusal_names_the_rule() {
    let cases = [
        (r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"n","colour":1}"#, Reason::UnknownField),
        (r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"n","nickname":"m"}"#, Reason::DuplicateKey),
        (r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"n","meta":{"x":[{"y":1,"y":1}]}}"#, Reason::DuplicateKey),
        (r#"{"command_id":"c","action":"rename","kf_account":"a@test"}"#, Reason::InvalidAction),
        (r#"{"command_id":"c","action":1,"kf_account":"a@test"}"#, Reason::WrongType),
        (r#"{"command_id":"c","kf_account":"a@test"}"#, Reason::MissingField),
        (r#"{"command_id":"c","action":"delete"}"#, Reason::MissingField),
        (r#"{"command_id":"c","action":"delete","kf_account":"elevenchars@test"}"#, Reason::InvalidKfAccount),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@b@c"}"#, Reason::InvalidKfAccount),
        (r#"{"command_id":"c","action":"delete","kf_account":"a-b@test"}"#, Reason::InvalidKfAccount),
        (r#"{"command_id":"c","action":"delete","kf_account":"@test"}"#, Reason::InvalidKfAccount),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@test","nickname":"n"}"#, Reason::InvalidNickname),
        (r#"{"command_id":"c","action":"add","kf_account":"a@test"}"#, Reason::InvalidNickname),
        (
            r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"一二三四五六七八九十一二三四五六七"}"#,
            Reason::InvalidNickname,
        ),
        (r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":" \u3000"}"#, Reason::InvalidNickname),
        (r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"a\tb"}"#, Reason::InvalidNickname),
        (r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":null}"#, Reason::WrongType),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@test","revision":-1}"#, Reason::InvalidRevision),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@test","revision":9223372036854775808}"#, Reason::InvalidRevision),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@test","revision":1.5}"#, Reason::WrongType),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@test","revision":"1"}"#, Reason::WrongType),
        (r#"{"command_id":"c","action":"delete","kf_account":"a@test","meta":[]}"#, Reason::WrongType),
    ];
    for (body, reason) in cases {
        let refused = refused(body);
        assert_eq!(refused.failure.reason, reason, "{body}");
        assert_eq!(refused.given.command_id, "c");
        assert!(!refused.dead_letter);
    }
}

#[test]
fn sixteen_characters_are_counted_not_bytes() {
    let name = "一二三四五六七八九十一二三四五六";
    let command = command(&plain(&format!(r#"{{"command_id":"c","action":"add","kf_account":"a@test","nickname":"{name}"}}"#)));
    assert_eq!(command.given.nickname.as_deref(), Some(name));
}

#[test]
fn meta_is_taken_up_to_its_limit() {
    let body = |bytes: usize| {
        let meta = format!(r#"{{"k":"{}"}}"#, "x".repeat(bytes - 8));
        format!(r#"{{"command_id":"c","action":"delete","kf_account":"a@test","meta":{meta}}}"#)
    };
    assert_eq!(command(&plain(&body(MAX_META))).given.meta.unwrap().get().len(), MAX_META);
    assert_eq!(refused(&body(MAX_META + 1)).failure.reason, Reason::InvalidMeta);
}

#[test]
fn a_body_of_exactly_the_limit_is_read() {
    let mut body = br#"{"command_id":"c","action":"delete","kf_account":"a@test"}"#.to_vec();
    body.resize(MAX_BODY, b' ');
    command(&Message { body: body.clone(), ..Message::default() });
    body.push(b' ');
    assert_eq!(unreadable(&Message { body, ..Message::default() }), Reason::BodyTooLarge);
}

#[test]
fn an_id_that_cannot_be_read_leaves_nothing_to_answer() {
    let with_id = |body: &str, id: &str| Message { message_id: Some(id.to_owned()), ..plain(body) };
    assert_eq!(unreadable(&plain(r#"{"action":"delete","kf_account":"a@test"}"#)), Reason::MissingCommandId);
    assert_eq!(unreadable(&plain(r#"{"command_id":7,"action":"delete"}"#)), Reason::InvalidCommandId);
    assert_eq!(unreadable(&plain(r#"{"command_id":"a\n"}"#)), Reason::InvalidCommandId);
    assert_eq!(unreadable(&plain(&format!(r#"{{"command_id":"{}"}}"#, "x".repeat(129)))), Reason::InvalidCommandId);
    assert_eq!(unreadable(&plain(r#"{"command_id":"a","command_id":"b"}"#)), Reason::DuplicateKey);
    assert_eq!(unreadable(&with_id(r#"{"command_id":"a"}"#, "b")), Reason::IdMismatch);
    assert_eq!(unreadable(&plain("{")), Reason::NotAJsonObject);
}

#[test]
fn a_broken_body_is_rejected_by_its_message_id_and_kept() {
    for body in ["{", "[]", "", "\"text\"", "{\"a\":1}}"] {
        let message = Message { message_id: Some("m1".to_owned()), ..plain(body) };
        let Decoded::Refused(refused) = decode(&message) else { panic!("{body}") };
        assert_eq!(refused.failure.reason, Reason::NotAJsonObject);
        assert!(refused.dead_letter);
    }
    let message = Message { body: vec![b'{', 0xff], ..Message::default() };
    assert_eq!(unreadable(&message), Reason::NotAJsonObject);
}

#[test]
fn content_is_fields_and_values_not_their_spelling() {
    let one = command(&plain(r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"客","meta":{"x":1,"y":[1.0,2e1]}}"#));
    let same = Message {
        message_id: Some("c".to_owned()),
        ..plain(r#"{ "meta":{"y":[1,20],"x":1.0}, "nickname":"\u5ba2", "kf_account":"a@test", "action":"add" }"#)
    };
    let event = Message {
        content_type: Some("application/cloudevents+json; charset=utf-8".to_owned()),
        ..plain(
            r#"{"specversion":"1.0","id":"c","type":"kf.add","source":"hr","data":{"kf_account":"a@test","nickname":"客","meta":{"x":1,"y":[1,20]}}}"#,
        )
    };
    assert_eq!(one.content, command(&same).content);
    assert_eq!(one.content, command(&event).content);
    let other = command(&plain(r#"{"command_id":"c","action":"add","kf_account":"a@test","nickname":"客","meta":{"x":1,"y":[1,21]}}"#));
    assert_ne!(one.content, other.content);
}

#[test]
fn what_is_refused_has_the_same_content_in_every_form() {
    let content = |body: &str, content_type: Option<&str>| {
        let message = Message { content_type: content_type.map(str::to_owned), ..plain(body) };
        match decode(&message) {
            Decoded::Refused(refused) => refused.content,
            other => panic!("{other:?}"),
        }
    };
    let event = |data: &str| {
        let body = format!(r#"{{"specversion":"1.0","id":"c1","type":"kf.add","data":{data}}}"#);
        content(&body, Some("application/cloudevents+json"))
    };
    let fields = r#""kf_account":"anna@test","nickname":"安娜","extra":1"#;
    let without = content(&format!(r#"{{"command_id":"c1","action":"add",{fields}}}"#), None);
    assert_eq!(without, event(&format!("{{{fields}}}")));
    // Within a CloudEvent's `data` these say something else, and so does what stands twice.
    for (name, value) in [("action", "add"), ("command_id", "c1"), ("", "")] {
        assert_ne!(without, event(&format!(r#"{{"{name}":"{value}",{fields}}}"#)), "{name}");
    }
    assert_ne!(without, content(&format!(r#"{{"command_id":"c1","action":"add","action":"delete",{fields}}}"#), None));
}

#[test]
fn cloud_events_are_read_in_binary_form_under_every_prefix() {
    for prefix in ["ce-", "cloudEvents:", "cloudEvents_"] {
        let headers = [("specversion", "1.0"), ("id", "c9"), ("type", "kf.delete"), ("source", "hr"), ("time", "2026-01-02T03:04:05Z")];
        let message = Message {
            message_id: Some("another".to_owned()),
            headers: headers.iter().map(|(name, value)| (format!("{prefix}{name}"), (*value).to_owned())).collect(),
            ..plain(r#"{"kf_account":"a@test"}"#)
        };
        let command = command(&message);
        assert_eq!(command.given.command_id, "c9");
        assert_eq!(command.action, Action::Delete);
        assert_eq!(command.sent_at, Some(SentAt::Instant("2026-01-02T03:04:05Z".parse().unwrap())));
    }
}

#[test]
fn an_amqp_timestamp_is_only_as_exact_as_its_second() {
    let deleted: Timestamp = "2026-01-02T03:04:05.9Z".parse().unwrap();
    assert!(SentAt::Second(deleted.as_second() - 1).is_before(deleted));
    assert!(!SentAt::Second(deleted.as_second()).is_before(deleted));
}
