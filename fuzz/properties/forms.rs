//! Fields, right and wrong ones, in every form that the contract knows: it is the rules that decide, and neither the form, nor the
//! order of the fields, nor their spelling in JSON.

use std::fmt::Write as _;

use super::MARK;
use super::choices::Choices;
use super::commands::{assert_command, assert_failure, is_account, is_id, is_nickname};
use crate::command::{Content, Decoded, Message, decode};
use crate::outcome::Failure;

pub fn holds(input: &[u8]) -> bool {
    let fields = Fields::choose(&mut Choices(input));
    let (usual, other) = (fields.pairs(Spelling::Usual), fields.pairs(Spelling::Other));
    let plain = Verdict::of(&fields.plain(&usual));
    assert_eq!(plain.kind == Kind::Command, fields.keeps_the_rules(&usual), "{usual:?} {plain:?}");
    if !is_id(fields.id) {
        return true;
    }
    // A longer spelling may be too long; and of what stands twice nobody can say what was meant.
    if !fields.have_twins() && (fields.keeps_the_rules(&other) || plain.kind != Kind::Command) {
        assert_eq!(Verdict::of(&fields.plain(&other)), plain, "{usual:?} {other:?}");
    }
    for message in fields.events(&usual) {
        assert_eq!(Verdict::of(&message), plain, "{usual:?} {message:?}");
    }
    true
}

/// All that a command can have.
const FIELDS: [&str; 6] = ["command_id", "action", "kf_account", "nickname", "revision", "meta"];

/// A command as somebody might put it together.
struct Fields<'a> {
    id: &'a str,
    action: &'static str,
    kf_account: Field<'a>,
    nickname: Field<'a>,
    revision: Field<'a>,
    meta: Field<'a>,
    /// The name of a field that nobody knows.
    extra: Option<&'a str>,
    /// So far the fields are turned round in the other spelling.
    turned: u8,
}

/// A field's value, if there is one.
enum Field<'a> {
    Absent,
    /// What this field should be.
    Good,
    Text(String),
    Value(Value<'a>),
}

/// Any JSON.
enum Value<'a> {
    Null,
    Flag(bool),
    Signed(i64),
    Unsigned(u64),
    Fraction(f64),
    Text(&'a str),
    List(Vec<Value<'a>>),
    Object(Vec<(&'a str, Value<'a>)>),
}

/// How equal values are spelled.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    Usual,
    Other,
}

impl<'a> Fields<'a> {
    fn choose(choices: &mut Choices<'a>) -> Self {
        Self {
            id: choices.maybe(Choices::text).unwrap_or("hr-1"),
            action: if choices.flag() { "add" } else { "delete" },
            kf_account: Field::choose(choices),
            nickname: Field::choose(choices),
            revision: Field::choose(choices),
            meta: Field::choose(choices),
            // Id and action stand elsewhere in an event, and would stand twice in what is none.
            extra: choices.maybe(Choices::text).filter(|name| !FIELDS.contains(name)),
            turned: choices.byte(),
        }
    }

    /// The fields besides id and action, each with its JSON.
    fn pairs(&self, spelling: Spelling) -> Vec<(String, String)> {
        let fields = [
            ("kf_account", &self.kf_account, "\"anna@test\""),
            ("nickname", &self.nickname, "\"hunter2客服\""),
            ("revision", &self.revision, "7"),
            ("meta", &self.meta, "{\"ticket\":\"hunter2\"}"),
        ];
        let known = fields.into_iter().filter_map(|(name, field, good)| Some((name.to_owned(), field.json(name, good, spelling)?)));
        let mut pairs: Vec<_> = known.chain(self.extra.map(|name| (name.to_owned(), "1".to_owned()))).collect();
        if spelling == Spelling::Other && !pairs.is_empty() {
            let middle = usize::from(self.turned) % pairs.len();
            pairs.rotate_left(middle);
        }
        pairs
    }

    fn plain(&self, pairs: &[(String, String)]) -> Message {
        let (id, rest) = (spelled(self.id, Spelling::Usual), joined(pairs));
        let comma = if rest.is_empty() { "" } else { "," };
        let body = format!("{{\"command_id\":{id},\"action\":\"{}\"{comma}{rest}}}", self.action);
        Message { body: body.into_bytes(), ..Message::default() }
    }

    /// The same as CloudEvents.
    fn events(&self, pairs: &[(String, String)]) -> Vec<Message> {
        let (id, kind) = (spelled(self.id, Spelling::Usual), format!("kf.{}", self.action));
        let data = format!("{{{}}}", joined(pairs));
        let body = format!("{{\"data\":{data},\"specversion\":\"1.0\",\"type\":\"{kind}\",\"source\":\"x\",\"id\":{id}}}");
        let content_type = Some("Application/CloudEvents+JSON; charset=utf-8".to_owned());
        let structured = Message { body: body.into_bytes(), content_type, ..Message::default() };
        let binary = ["ce-", "ce_", "cloudEvents:", "cloudEvents_"].map(|prefix| {
            let attributes = [("specversion", "1.0"), ("id", self.id), ("type", &kind)];
            let headers = attributes.map(|(name, value)| (format!("{prefix}{name}"), value.to_owned())).into();
            Message { body: data.clone().into_bytes(), headers, ..Message::default() }
        });
        [vec![structured], binary.to_vec()].concat()
    }

    /// Whether a key stands twice in one object anywhere.
    fn have_twins(&self) -> bool {
        let fields = [&self.kf_account, &self.nickname, &self.revision, &self.meta];
        fields.into_iter().any(|field| matches!(field, Field::Value(value) if value.has_twins()))
    }

    /// The rules, as the contract has them.
    fn keeps_the_rules(&self, pairs: &[(String, String)]) -> bool {
        let json = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, json)| json.as_str());
        let text = |name: &str| json(name).and_then(|json| serde_json::from_str::<String>(json).ok());
        let nickname = match self.action {
            "add" => text("nickname").is_some_and(|name| is_nickname(&name)),
            _ => json("nickname").is_none(),
        };
        let revision = json("revision").is_none_or(|json| json.parse::<i64>().is_ok_and(|number| number >= 0 && json != "-0"));
        let is_object = match &self.meta {
            Field::Absent | Field::Good => true,
            Field::Value(value @ Value::Object(_)) => !value.has_twins(),
            Field::Text(_) | Field::Value(_) => false,
        };
        let meta = is_object && json("meta").is_none_or(|json| json.len() <= 4_096);
        is_id(self.id) && text("kf_account").is_some_and(|text| is_account(&text)) && nickname && revision && meta && self.extra.is_none()
    }
}

/// `"name":json` for each.
fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, json)| format!("{}:{json}", spelled(name, Spelling::Usual))).collect::<Vec<_>>().join(",")
}

impl<'a> Field<'a> {
    fn choose(choices: &mut Choices<'a>) -> Self {
        match choices.of(6) {
            0 => Self::Absent,
            1 | 2 => Self::Good,
            // Around the longest account, and around the longest nickname.
            3 => {
                let (prefix, id) = (usize::from(choices.of(12)), usize::from(choices.of(33)));
                Self::Text(format!("{}{}@{}", "a".repeat(prefix), choices.letter(), "b".repeat(id)))
            }
            4 => Self::Text(choices.letter().to_string().repeat(usize::from(choices.of(18)))),
            _ => Self::Value(Value::choose(choices, 0)),
        }
    }

    fn json(&self, name: &str, good: &str, spelling: Spelling) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Good => Some(good.to_owned()),
            Self::Text(text) => Some(spelled(text, spelling)),
            // A revision is an integer by its spelling.
            Self::Value(value) => Some(value.json(if name == "revision" { Spelling::Usual } else { spelling })),
        }
    }
}

impl<'a> Value<'a> {
    /// Where reading ends is another property's concern: nothing goes deeper than anybody goes.
    fn choose(choices: &mut Choices<'a>, depth: u8) -> Self {
        match choices.of(if depth < 50 { 8 } else { 6 }) {
            0 => Self::Null,
            1 => Self::Flag(choices.flag()),
            2 => Self::Signed(choices.number().cast_signed() >> choices.of(64)),
            3 => Self::Unsigned(choices.number()),
            4 => Self::Fraction(f64::from_bits(choices.number())),
            5 => Self::Text(choices.text()),
            6 => Self::List(choices.list(|choices| Self::choose(choices, depth + 1))),
            _ => Self::Object(choices.list(|choices| (choices.text(), Self::choose(choices, depth + 1)))),
        }
    }

    fn json(&self, spelling: Spelling) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Signed(number) if spelling == Spelling::Other && number.unsigned_abs() < 1 << 53 => format!("{number}.0E0"),
            Self::Signed(number) => number.to_string(),
            Self::Unsigned(number) => number.to_string(),
            Self::Fraction(number) if !number.is_finite() => "null".to_owned(),
            Self::Fraction(number) if spelling == Spelling::Other => format!("{number:e}"),
            Self::Fraction(number) => format!("{number:?}"),
            Self::Text(text) => spelled(text, spelling),
            Self::List(items) => format!("[{}]", items.iter().map(|item| item.json(spelling)).collect::<Vec<_>>().join(" , ")),
            Self::Object(pairs) => {
                let mut pairs: Vec<_> =
                    pairs.iter().map(|(name, value)| format!("{}:{}", spelled(name, spelling), value.json(spelling))).collect();
                if spelling == Spelling::Other {
                    pairs.reverse();
                }
                format!("{{{}}}", pairs.join(","))
            }
        }
    }

    /// Whether two keys of one object in it are the same.
    fn has_twins(&self) -> bool {
        match self {
            Self::List(items) => items.iter().any(Self::has_twins),
            Self::Object(pairs) => {
                let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.windows(2).any(|pair| pair[0] == pair[1]) || pairs.iter().any(|(_, value)| value.has_twins())
            }
            _ => false,
        }
    }
}

/// A text in JSON, its letters as they are or by their numbers.
fn spelled(text: &str, spelling: Spelling) -> String {
    match spelling {
        Spelling::Usual => serde_json::Value::from(text).to_string(),
        Spelling::Other => {
            text.encode_utf16().fold("\"".to_owned(), |mut json, unit| {
                // Writing to a String can't fail.
                let _ = write!(json, "\\u{unit:04X}");
                json
            }) + "\""
        }
    }
}

/// What became of a message.
#[derive(Debug, PartialEq)]
struct Verdict {
    kind: Kind,
    content: Option<Content>,
    detail: String,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Command,
    Refused,
    Unreadable,
}

impl Verdict {
    fn of(message: &Message) -> Self {
        let told = |failure: Failure| {
            assert_failure(&failure);
            assert!(!failure.detail.contains(MARK) && !failure.detail.contains("客服"), "{failure:?}");
            failure.detail
        };
        match decode(message) {
            Decoded::Command(command) => {
                assert_command(&command);
                Self { kind: Kind::Command, content: Some(command.content), detail: String::new() }
            }
            Decoded::Refused(refused) => Self { kind: Kind::Refused, content: Some(refused.content), detail: told(refused.failure) },
            Decoded::Unreadable(failure) => Self { kind: Kind::Unreadable, content: None, detail: told(failure) },
        }
    }
}
