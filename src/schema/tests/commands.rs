//! What the decoder takes, the schema takes, and what it refuses, the schema refuses; the few differences are listed.

use super::*;

/// JSON texts of one field that both an add and a delete can have, or that neither can.
struct Field {
    name: &'static str,
    good: &'static [&'static str],
    bad: &'static [&'static str],
}

const WRONG_TYPES: [&str; 5] = ["null", "true", "17.5", "[]", "[\"a@test\"]"];

const FIELDS: [Field; 4] = [
    Field {
        name: "kf_account",
        good: &[r#""a@t""#, r#""test1@test""#, r#""A_Z_0_9_az@gh_0123456789-abcdefghijklmnop""#, r#""___@---""#],
        bad: &[
            r#""""#,
            r#""a""#,
            r#""@test""#,
            r#""a@""#,
            r#""elevenchars@test""#,
            r#""a@gh_0123456789-abcdefghijklmnopq""#,
            r#""a@b@c""#,
            r#""a-b@test""#,
            r#""a b@test""#,
            r#"" a@test""#,
            r#""a@test ""#,
            r#""a@test\n""#,
            r#""a\n@test""#,
            r#""客@test""#,
            r#""a@te.st""#,
            "{}",
            "7",
        ],
    },
    Field {
        name: "revision",
        good: &["0", "1", "9007199254740993", "9223372036854775807"],
        bad: &["-1", "9223372036854775808", "18446744073709551615", "18446744073709551616", "1.5", r#""1""#, "{}"],
    },
    Field { name: "meta", good: &["{}", r#"{"a":{"b":[null,1.0,"x"]}}"#], bad: &["7", r#""{}""#] },
    Field { name: "surprise", good: &[], bad: &["1", "{}", r#""x""#] },
];

/// JSON texts of `nickname`: of an add.
const GOOD_NICKNAMES: [&str; 9] = [
    r#""a""#,
    r#""客服1""#,
    r#""一二三四五六七八九十一二三四五六""#,
    // Sixteen scalar values of four bytes, each two units of UTF-16.
    r#""😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀""#,
    // One person to the eye, seven scalar values.
    r#""👨‍👩‍👧‍👦""#,
    r#"" a ""#,
    r#""\ufeff""#,
    r#""\u200b""#,
    r#""😀""#,
];
const BAD_NICKNAMES: [&str; 9] = [
    r#""""#,
    r#""一二三四五六七八九十一二三四五六七""#,
    r#""😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀""#,
    r#""👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦""#,
    r#"" ""#,
    r#"" \u3000\u00a0""#,
    r#""a\tb""#,
    r#""a\u0000""#,
    r#""a\n""#,
];

/// The fields of a command, as JSON texts by name.
type Fields = Vec<(&'static str, String)>;

fn fields(action: &str) -> Fields {
    let nickname = (action == "add").then(|| ("nickname", r#""客服1""#.to_owned()));
    [("kf_account", r#""test1@test""#.to_owned())].into_iter().chain(nickname).collect()
}

fn with(mut fields: Fields, name: &'static str, value: &str) -> Fields {
    fields.retain(|(known, _)| *known != name);
    fields.push((name, value.to_owned()));
    fields
}

fn object(fields: &Fields) -> String {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Both forms of a command, with what judges them.
struct Forms {
    plain: [Validator; 2],
    structured: [Validator; 2],
}

impl Forms {
    fn new() -> Self {
        Self { plain: both(Document::Command, "Command"), structured: both(Document::CloudEventCommand, "CloudEventCommand") }
    }

    /// Decoder and schema both say this of a command, in either form.
    #[track_caller]
    fn agree(&self, good: bool, action: &str, fields: &Fields) {
        let plain = [vec![("command_id", "\"c\"".to_owned()), ("action", format!("\"{action}\""))], fields.clone()].concat();
        self.agree_on_plain(good, &object(&plain));
        let data = object(fields);
        self.agree_on_structured(good, &format!(r#"{{"specversion":"1.0","source":"hr","id":"c","type":"kf.{action}","data":{data}}}"#));
    }

    #[track_caller]
    fn agree_on_plain(&self, good: bool, body: &str) {
        let read = is_command(&Message { body: body.into(), ..Message::default() });
        let valid = accepted(&self.plain, &serde_json::from_str(body).unwrap());
        assert_eq!((read, valid), (good, good), "decoder and schema of {body}");
    }

    #[track_caller]
    fn agree_on_structured(&self, good: bool, body: &str) {
        let read = is_command(&structured(body));
        let valid = accepted(&self.structured, &serde_json::from_str(body).unwrap());
        assert_eq!((read, valid), (good, good), "decoder and schema of {body}");
    }
}

fn structured(body: &str) -> Message {
    Message { body: body.into(), content_type: Some(CONTENT_TYPE.to_owned()), ..Message::default() }
}

#[test]
fn every_rule_of_a_field_is_in_the_schema() {
    let forms = Forms::new();
    for action in ["add", "delete"] {
        forms.agree(true, action, &fields(action));
        for Field { name, good, bad } in FIELDS {
            for value in good {
                forms.agree(true, action, &with(fields(action), name, value));
            }
            for value in bad.iter().chain(&WRONG_TYPES) {
                forms.agree(false, action, &with(fields(action), name, value));
            }
        }
        let without = |name: &str| fields(action).into_iter().filter(|(known, _)| *known != name).collect::<Fields>();
        forms.agree(false, action, &without("kf_account"));
        forms.agree(action == "delete", action, &without("nickname"));
    }
    for value in GOOD_NICKNAMES {
        forms.agree(true, "add", &with(fields("add"), "nickname", value));
    }
    for value in GOOD_NICKNAMES.iter().chain(&BAD_NICKNAMES).chain(&WRONG_TYPES) {
        forms.agree(false, "delete", &with(fields("delete"), "nickname", value));
    }
    for value in BAD_NICKNAMES.iter().chain(&WRONG_TYPES) {
        forms.agree(false, "add", &with(fields("add"), "nickname", value));
    }
    for action in ["", "rename", "Add", "add ", "kf.add"] {
        forms.agree(false, action, &fields("add"));
    }
}

#[test]
fn every_white_and_every_control_character_is_in_the_schema() {
    let forms = Forms::new();
    let special = |c: char| c.is_whitespace() || c.is_control();
    // Each of them with its neighbours, where a class that is too wide or too narrow would show.
    let beside =
        |c: &char| special(*c) || [-1, 1].iter().any(|step| char::from_u32((*c as u32).wrapping_add_signed(*step)).is_some_and(special));
    let characters: Vec<char> = ('\0'..=char::MAX).filter(beside).collect();
    assert!(characters.len() > 90, "{}", characters.len());
    for character in characters {
        let alone = serde_json::to_string(&character).unwrap();
        forms.agree(!special(character), "add", &with(fields("add"), "nickname", &alone));
        let within = serde_json::to_string(&format!("a{character}b")).unwrap();
        forms.agree(!character.is_control(), "add", &with(fields("add"), "nickname", &within));
    }
}

#[test]
fn every_rule_of_the_id_is_in_the_schema() {
    let forms = Forms::new();
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let good = [text(" "), text("~"), text("c"), text("a b/c:\"\\"), text(&"x".repeat(128))];
    let bad =
        [text(""), text(&"x".repeat(129)), text("c\n"), text("\t"), text("\u{7f}"), text("é"), text("客"), "7".to_owned(), "{}".to_owned()];
    for (right, ids) in [(true, good.to_vec()), (false, [bad.to_vec(), WRONG_TYPES.map(str::to_owned).to_vec()].concat())] {
        for id in ids {
            forms.agree_on_plain(right, &format!(r#"{{"command_id":{id},"action":"delete","kf_account":"a@test"}}"#));
            let envelope = r#""specversion":"1.0","source":"hr","type":"kf.delete","data":{"kf_account":"a@test"}"#;
            forms.agree_on_structured(right, &format!(r#"{{"id":{id},{envelope}}}"#));
        }
    }
}

#[test]
fn what_is_around_the_fields_is_in_the_schema() {
    let forms = Forms::new();
    for body in [
        "[]",
        "null",
        "7",
        r#""text""#,
        "{}",
        r#"{"command_id":"c","kf_account":"a@test"}"#,
        r#"{"command_id":"c","action":1,"kf_account":"a@test"}"#,
        r#"{"command_id":"c","action":null,"kf_account":"a@test"}"#,
        r#"{"command_id":"c","action":["delete"],"kf_account":"a@test"}"#,
        r#"{"id":"c","type":"kf.delete","data":{"kf_account":"a@test"}}"#,
    ] {
        forms.agree_on_plain(false, body);
    }
    let envelope = r#""specversion":"1.0","source":"hr","id":"c""#;
    for rest in [
        r#""type":"kf.delete""#,
        r#""type":"kf.delete","data":null"#,
        r#""type":"kf.delete","data":[]"#,
        r#""type":"kf.delete","data":"{}""#,
        r#""type":"kf.delete","data":{}"#,
        r#""type":"delete","data":{"kf_account":"a@test"}"#,
        r#""type":7,"data":{"kf_account":"a@test"}"#,
        r#""data":{"kf_account":"a@test"}"#,
        r#""type":"kf.delete","data":{"kf_account":"a@test","action":"delete"}"#,
        r#""type":"kf.delete","data":{"kf_account":"a@test","command_id":"c"}"#,
    ] {
        forms.agree_on_structured(false, &format!("{{{envelope},{rest}}}"));
    }
    let others = r#""subject":"x","extension":[1],"datacontenttype":"application/json","time":"2026-03-02T08:00:00+08:00""#;
    forms.agree_on_structured(true, &format!(r#"{{{envelope},{others},"type":"kf.delete","data":{{"kf_account":"a@test"}}}}"#));
}

#[test]
fn what_the_schema_of_a_command_cannot_say() {
    let schema = both(Document::Command, "Command");
    let long = format!(r#"{{"k":"{}"}}"#, "x".repeat(4 * 1024));
    let wide = format!(r#"{{"command_id":"c","action":"delete","kf_account":"a@test"}}{}"#, " ".repeat(64 * 1024));
    let delete = |rest: &str| format!(r#"{{"command_id":"c","action":"delete","kf_account":"a@test",{rest}}}"#);
    for (why, body) in [
        ("a validator never sees the first of two equal keys", delete(r#""revision":1,"revision":1"#)),
        ("nor inside of `meta`", delete(r#""meta":{"a":1,"a":1}"#)),
        ("an object has no length in bytes", delete(&format!(r#""meta":{long}"#))),
        ("nor has the whole", wide),
        ("to JSON Schema a number without a fraction is an integer", delete(r#""revision":1.0"#)),
        ("however it is written", delete(r#""revision":1e2"#)),
        ("the same; JSON's -0 is no integer to the decoder", delete(r#""revision":-0"#)),
        ("the id may stand in `message_id`, which the schema does not see", r#"{"action":"delete","kf_account":"a@test"}"#.to_owned()),
    ] {
        assert!(!is_command(&Message { body: body.clone().into(), ..Message::default() }), "refused, but {why}");
        assert!(accepted(&schema, &serde_json::from_str(&body).unwrap()), "accepted, since {why}");
    }
    let beside = Message {
        body: r#"{"command_id":"c","action":"delete","kf_account":"a@test"}"#.into(),
        message_id: Some("d".to_owned()),
        ..Message::default()
    };
    assert!(!is_command(&beside), "that the two ids are equal, the schema does not see either");
}

#[test]
fn what_only_cloudevents_itself_asks_for() {
    let schema = both(Document::CloudEventCommand, "CloudEventCommand");
    let data = r#""id":"c","type":"kf.delete","data":{"kf_account":"a@test"}"#;
    for (why, envelope) in [
        ("no version", r#""source":"hr""#),
        ("another version", r#""specversion":"0.3","source":"hr""#),
        ("no source", r#""specversion":"1.0""#),
        ("a source that is no URI", r#""specversion":"1.0","source":"h r""#),
        ("a time that is none, which the worker takes for none", r#""specversion":"1.0","source":"hr","time":"today""#),
    ] {
        let body = format!("{{{envelope},{data}}}");
        assert!(is_command(&structured(&body)), "the worker does not need it: {why}");
        assert!(!accepted(&schema, &serde_json::from_str(&body).unwrap()), "the schema does: {why}");
    }
}
