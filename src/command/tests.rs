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
    assert_eq!(unreadable(&with_id("{", "m\n1")), Reason::NotAJsonObject);
}

#[test]
fn an_id_may_stand_in_the_body_beside_it_or_the_same_in_both() {
    let beside = |body: &str, id: &str| Message { message_id: Some(id.to_owned()), ..plain(body) };
    let with_id = r#"{"command_id":"c1","action":"delete","kf_account":"a@test"}"#;
    let without = r#"{"action":"delete","kf_account":"a@test"}"#;
    for message in [plain(with_id), beside(with_id, ""), beside(without, "c1"), beside(with_id, "c1")] {
        assert_eq!(command(&message).given.command_id, "c1", "{message:?}");
    }
    assert_eq!(beside("", "c1").id_beside(), Some("c1"));
    assert_eq!(beside("", "c\n1").id_beside(), None, "what is no command id names nobody");
}

#[test]
fn a_refusal_names_the_field_in_short_and_on_one_line() {
    let detail =
        |field: &str| refused(&format!(r#"{{"command_id":"c","action":"delete","kf_account":"a@test","{field}":1}}"#)).failure.detail;
    assert!(detail("colour").contains("`colour`"), "{}", detail("colour"));
    assert!(detail("a\\nb").contains("`ab`"), "{}", detail("a\\nb"));
    assert!(detail(&"x".repeat(41)).contains(&format!("`{}`", "x".repeat(40))), "{}", detail(&"x".repeat(41)));
}

#[test]
fn the_smallest_revision_is_nothing() {
    let first = command(&plain(r#"{"command_id":"c","action":"delete","kf_account":"a@test","revision":0}"#));
    assert_eq!(first.given.revision, Some(0));
    let below = refused(r#"{"command_id":"c","action":"delete","kf_account":"a@test","revision":-1}"#);
    assert_eq!(below.given.revision, None, "what is no revision is not given back as one");
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
fn a_number_of_many_digits_is_the_same_however_it_is_spelled() {
    let content = |number: &str| {
        let body = format!(r#"{{"command_id":"c","action":"delete","kf_account":"a@test","meta":{{"n":{number}}}}}"#);
        command(&plain(&body)).content
    };
    assert_eq!(content("3820908639953850"), content("3820908639953850.0E0"));
    assert_ne!(content("3820908639953850"), content("3820908639953851"));
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
fn any_field_or_value_that_differs_makes_other_content() {
    let content = |fields: &str| {
        let body = format!(r#"{{"command_id":"c","action":"add",{fields}}}"#);
        command(&plain(&body)).content
    };
    let one = r#""kf_account":"a@test","nickname":"n""#;
    for other in [
        r#""kf_account":"b@test","nickname":"n""#,
        r#""kf_account":"a@test","nickname":"m""#,
        r#""kf_account":"a@test","nickname":"n","revision":0"#,
        r#""kf_account":"a@test","nickname":"n","meta":{}"#,
    ] {
        assert_ne!(content(one), content(other), "{other}");
    }
    let meta = |value: &str| content(&format!(r#"{one},"meta":{{"x":{value}}}"#));
    // The last pair is one number as a float, which can't tell whole numbers apart from there on.
    for (value, other) in
        [("true", "false"), ("null", "false"), ("1.5", "2"), ("1.5", "1"), ("[1,2]", "[2,1]"), ("9007199254740992", "9007199254740993")]
    {
        assert_ne!(meta(value), meta(other), "{value} {other}");
    }
    let body = r#"{"command_id":"c","action":"delete","kf_account":"a@test"}"#;
    let refused_for = |field: &str| refused(&body.replace('}', &format!(",{field}}}"))).content;
    assert_ne!(refused_for(r#""colour":1"#), refused_for(r#""colour":2"#), "also where it is refused");
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
fn one_attribute_of_a_cloud_event_is_enough_to_be_read_as_one() {
    let with_header = |name: &str, body: &str| Message {
        message_id: Some("beside".to_owned()),
        headers: BTreeMap::from([("ce-id".to_owned(), "c9".to_owned()), (name.to_owned(), "kf.delete".to_owned())]),
        ..plain(body)
    };
    assert_eq!(command(&with_header("ce-type", r#"{"kf_account":"a@test"}"#)).given.command_id, "c9");
    for name in ["ce-type", "ce-specversion"] {
        let Decoded::Refused(refused) = decode(&with_header(name, "{")) else { panic!("{name}") };
        assert_eq!(refused.given.command_id, "c9", "its own id comes before the one beside it");
    }
}

#[test]
fn a_structured_cloud_event_says_when_it_was_sent_and_who_it_is() {
    let structured = |attributes: &str| Message {
        content_type: Some("application/cloudevents+json".to_owned()),
        ..plain(&format!(r#"{{"specversion":"1.0","type":"kf.delete",{attributes}}}"#))
    };
    let read = command(&structured(r#""id":"c9","time":"2026-01-02T03:04:05Z","data":{"kf_account":"a@test"}"#));
    assert_eq!((read.given.command_id.as_str(), read.action), ("c9", Action::Delete));
    assert_eq!(read.sent_at, Some(SentAt::Instant("2026-01-02T03:04:05Z".parse().unwrap())));
    assert_eq!(unreadable(&structured(r#""data":{"kf_account":"a@test"}"#)), Reason::MissingCommandId);
    assert_eq!(unreadable(&structured(r#""id":"a\n","data":{"kf_account":"a@test"}"#)), Reason::InvalidCommandId);
    let Decoded::Refused(without) = decode(&structured(r#""id":"c9","data":[]"#)) else { panic!("data is no object") };
    assert_eq!((without.failure.reason, without.dead_letter), (Reason::MissingField, false));
}

#[test]
fn an_amqp_timestamp_is_only_as_exact_as_its_second() {
    let deleted: Timestamp = "2026-01-02T03:04:05.9Z".parse().unwrap();
    assert!(SentAt::Second(deleted.as_second() - 1).is_before(deleted));
    assert!(!SentAt::Second(deleted.as_second()).is_before(deleted));
    assert_eq!(SentAt::Second(deleted.as_second()).instant(), "2026-01-02T03:04:05Z".parse().ok());
}

#[test]
fn a_cloud_events_time_is_exact() {
    let deleted: Timestamp = "2026-01-02T03:04:05.9Z".parse().unwrap();
    let sent = |time: &str| SentAt::Instant(time.parse().unwrap());
    assert!(sent("2026-01-02T03:04:05.8Z").is_before(deleted));
    assert!(!sent("2026-01-02T03:04:05.9Z").is_before(deleted));
    assert!(!sent("2026-01-02T03:04:06Z").is_before(deleted));
    assert_eq!(SentAt::Instant(deleted).instant(), Some(deleted));
}

#[test]
fn an_account_is_shown_as_it_is_written() {
    assert_eq!(KfAccount::parse("test_1@wx-1").unwrap().to_string(), "test_1@wx-1");
    assert!(KfAccount::is_one("test_1@wx-1"));
    assert!(!KfAccount::is_one("test_1"));
}

#[test]
fn half_a_fingerprint_is_enough_to_tell_contents_apart() {
    let short = plain("one").fingerprint().short();
    assert!(short.len() == 32 && short.bytes().all(|byte| byte.is_ascii_hexdigit()), "{short}");
    assert_ne!(short, plain("two").fingerprint().short());
}
