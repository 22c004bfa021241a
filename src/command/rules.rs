//! The rules of a command's own fields, each with what it says when it is broken.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::KfAccount;
use super::json::Json;
use crate::outcome::{Action, Failure, Reason};

/// The largest `meta` that is taken, in bytes of JSON as given.
pub const MAX_META: usize = 4 * 1024;
/// The fields that every form carries.
const FIELDS: [&str; 4] = ["kf_account", "nickname", "revision", "meta"];

/// No key twice, none that is not known.
pub fn check_names(fields: &Json, known: &[&str]) -> Result<(), Failure> {
    if let Some(key) = fields.duplicate_key() {
        return Err(Failure::new(Reason::DuplicateKey, format!("The key `{}` stands twice in one object.", clip(key))));
    }
    match fields.keys().find(|key| !FIELDS.contains(key) && !known.contains(key)) {
        Some(key) => {
            Err(Failure::new(Reason::UnknownField, format!("The field `{}` is not known. Put your own data into `meta`.", clip(key))))
        }
        None => Ok(()),
    }
}

/// `kf_account` is there and well-formed.
pub fn check_account(fields: &Json) -> Result<KfAccount, Failure> {
    match fields.get("kf_account") {
        None => Err(Failure::new(Reason::MissingField, "`kf_account` is missing.")),
        Some(Json::String(text)) => KfAccount::parse(text).ok_or_else(|| {
            let rule = "1 to 10 of A-Z a-z 0-9 _, an @, and the Official Account's WeChat ID of 1 to 30 of A-Z a-z 0-9 _ -";
            Failure::new(Reason::InvalidKfAccount, format!("`kf_account` is not one, such as anna@test: {rule}."))
        }),
        Some(_) => Err(wrong_type("kf_account", "a string")),
    }
}

/// An `add` has a nickname that keeps the rules, a `delete` has none.
pub fn check_nickname(fields: &Json, action: Action) -> Result<(), Failure> {
    let refuse = |detail: &str| Err(Failure::new(Reason::InvalidNickname, detail));
    match (action, fields.get("nickname")) {
        (Action::Delete, None) => Ok(()),
        (Action::Delete, Some(_)) => refuse("A `delete` takes no `nickname`. Leave it out."),
        (Action::Add, None) => refuse("An `add` needs a `nickname`."),
        (Action::Add, Some(Json::String(name))) => {
            if !(1..=16).contains(&name.chars().count()) {
                refuse("`nickname` has not 1 to 16 characters.")
            } else if name.chars().any(char::is_control) {
                refuse("`nickname` has a control character.")
            } else if name.chars().all(char::is_whitespace) {
                refuse("`nickname` is only white space.")
            } else {
                Ok(())
            }
        }
        (Action::Add, Some(_)) => Err(wrong_type("nickname", "a string")),
    }
}

/// `revision`, where given, is an integer in its range.
pub fn check_revision(fields: &Json) -> Result<(), Failure> {
    match fields.get("revision") {
        None => Ok(()),
        Some(Json::Number(number)) if number.is_i64() || number.is_u64() => match number.as_i64() {
            Some(0..) => Ok(()),
            _ => Err(Failure::new(Reason::InvalidRevision, "`revision` is outside 0 to 9223372036854775807.")),
        },
        Some(_) => Err(wrong_type("revision", "an integer")),
    }
}

/// `meta`, where given, is an object that is not too large.
pub fn check_meta(fields: &Json, raw: Option<&RawValue>) -> Result<(), Failure> {
    match fields.get("meta") {
        None => Ok(()),
        Some(Json::Object(_)) if raw.is_some_and(|raw| raw.get().len() <= MAX_META) => Ok(()),
        Some(Json::Object(_)) => Err(Failure::new(Reason::InvalidMeta, format!("`meta` has more than {MAX_META} bytes of JSON."))),
        Some(_) => Err(wrong_type("meta", "an object")),
    }
}

/// `meta` in the producer's own spelling, so that it comes back as it was given.
pub fn raw_meta(raw: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct OnlyMeta {
        meta: Option<Box<RawValue>>,
    }
    serde_json::from_slice::<OnlyMeta>(raw).ok().and_then(|only| only.meta)
}

/// What is said of a field of another type.
pub fn wrong_type(field: &str, wanted: &str) -> Failure {
    Failure::new(Reason::WrongType, format!("`{field}` is not {wanted}."))
}

/// A producer's own word in a sentence of ours: short, and without what would break a line.
pub fn clip(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(40).collect()
}
