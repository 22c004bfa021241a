//! The table of WeChat's answers: what each of them means to an add, to a delete and to the fetch of a token.

use crate::support::wechat::{Answer, Endpoint};

use Answers::{Bodies, Errcodes, Http, Lost};
use Fate::{Account, Administrator, Already, Bug, Capacity, Day, Done, LostDone, Minute, Never, Permanent, Retry, Token, Unknown};

/// What becomes of a command that meets an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The answer does not come there.
    Never,
    Done,
    /// The wanted state held.
    Already,
    /// Asked again, and done then.
    Retry,
    /// The same, and nobody can tell which of the two calls did it.
    LostDone,
    /// The token is fetched anew and the call repeated at once.
    Token,
    /// This action of the Official Account waits, until the next minute or day.
    Minute,
    Day,
    /// The Official Account is paused for this reason.
    Account(&'static str),
    /// The same until an administrator has spoken: so many seconds at least.
    Administrator(u64),
    /// There is no room.
    Capacity,
    /// Failed for this reason.
    Permanent(&'static str),
    Bug,
    /// Tried five times.
    Unknown,
}

/// The answers of one row.
enum Answers {
    Errcodes(&'static [i64]),
    Http(&'static [u16]),
    /// HTTP 200 with these bytes, and a word for each.
    Bodies(&'static [(&'static str, &'static str)]),
    /// The connection ends after the work was done.
    Lost,
}

/// Answers; add, delete, token fetch.
type Row = (Answers, Fate, Fate, Fate);

const MINUTES: u64 = 60;
const HOURS: u64 = 3_600;
const MISCONFIGURED: Fate = Account("misconfigured");
const BLOCKED: Fate = Account("account_blocked");
const NOT_ENABLED: Fate = Account("service_not_enabled");
const PARAMETER: Fate = Permanent("invalid_parameter");
const ACCOUNT: Fate = Permanent("account_refused");
const NICKNAME: Fate = Permanent("nickname_refused");
const UNEXPECTED: Fate = Permanent("unexpected_errcode");

const NORMAL_STATE: (&str, &str) = ("normal-state", r#"{"errcode": 0, "errmsg": "in a normal state"}"#);
const EMPTY: (&str, &str) = ("empty", "");
const HTML: (&str, &str) = ("html", "<html>Bad gateway</html>");
const TEXT: (&str, &str) = ("text", "busy");
const LIST: (&str, &str) = ("list", "[]");
const NO_ERRCODE: (&str, &str) = ("no-errcode", r#"{"errmsg": "ok"}"#);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    //                                                           add            delete         token fetch
    (Errcodes(&[0]),                                             Done,          Done,          Done),
    (Bodies(&[NORMAL_STATE]),                                    Done,          Done,          Never),
    (Errcodes(&[-1]),                                            Retry,         Retry,         Retry),
    (Errcodes(&[40001]),                                         Token,         Token,         MISCONFIGURED),
    (Errcodes(&[40002]),                                         Bug,           Bug,           Bug),
    (Errcodes(&[40013]),                                         MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[40014]),                                         Token,         Token,         Never),
    (Errcodes(&[40033]),                                         Bug,           Bug,           Never),
    (Errcodes(&[40035]),                                         PARAMETER,     PARAMETER,     Never),
    (Errcodes(&[40066]),                                         Bug,           Bug,           Bug),
    (Errcodes(&[40125]),                                         MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[40164]),                                         MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[40243]),                                         MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[41001, 41002, 41004]),                           Bug,           Bug,           Bug),
    (Errcodes(&[42001]),                                         Token,         Token,         Never),
    // At a token endpoint it is told of a third-party platform's component token alone: `token_sources` tries that out.
    (Errcodes(&[42006]),                                         Token,         Token,         Never),
    (Errcodes(&[42007]),                                         MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[43002, 43003, 44002, 47001]),                    Bug,           Bug,           Bug),
    (Errcodes(&[45009]),                                         Day,           Day,           Day),
    (Errcodes(&[45011]),                                         Minute,        Minute,        Minute),
    (Errcodes(&[45035]),                                         MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[48001, 48004]),                                  MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[50001, 50002, 50003, 50004]),                    BLOCKED,       BLOCKED,       BLOCKED),
    (Errcodes(&[61003, 61004, 61007, 61011, 61014, 61015]),      MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[61016, 61017, 61023, 61024]),                    MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[61005, 61006]),                                  MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Errcodes(&[61450]),                                         Retry,         Retry,         Never),
    (Errcodes(&[61451, 61454, 61455]),                           PARAMETER,     PARAMETER,     Never),
    (Errcodes(&[61452]),                                         ACCOUNT,       ACCOUNT,       Never),
    (Errcodes(&[61453]),                                         Already,       UNEXPECTED,    Never),
    (Errcodes(&[61456]),                                         Capacity,      UNEXPECTED,    Never),
    (Errcodes(&[65400]),                                         NOT_ENABLED,   NOT_ENABLED,   Never),
    (Errcodes(&[65401]),                                         ACCOUNT,       Already,       Never),
    (Errcodes(&[65403]),                                         NICKNAME,      NICKNAME,      Never),
    (Errcodes(&[65404]),                                         ACCOUNT,       ACCOUNT,       Never),
    (Errcodes(&[65405]),                                         Capacity,      UNEXPECTED,    Never),
    (Errcodes(&[65406]),                                         Already,       UNEXPECTED,    Never),
    (Errcodes(&[65416]),                                         PARAMETER,     PARAMETER,     Never),
    (Errcodes(&[89501, 89502, 89504, 89505]),                    Administrator(5 * MINUTES), Administrator(5 * MINUTES), Administrator(5 * MINUTES)),
    (Errcodes(&[89503]),                                         Administrator(10 * MINUTES), Administrator(10 * MINUTES), Administrator(10 * MINUTES)),
    (Errcodes(&[89506]),                                         Administrator(24 * HOURS), Administrator(24 * HOURS), Administrator(24 * HOURS)),
    (Errcodes(&[89507]),                                         Administrator(HOURS), Administrator(HOURS), Administrator(HOURS)),
    // Any other errcode.
    (Errcodes(&[-2, 1, 12345, 65399, 99999]),                    Unknown,       Unknown,       Account("unknown_errcode")),
    (Http(&[408, 429, 500, 502, 503, 504]),                      Retry,         Retry,         Retry),
    (Http(&[412]),                                               Bug,           Bug,           Bug),
    (Http(&[301, 302, 303, 307, 308, 400, 401, 403, 404, 413]),  MISCONFIGURED, MISCONFIGURED, MISCONFIGURED),
    (Bodies(&[EMPTY, HTML, TEXT, LIST, NO_ERRCODE]),             Retry,         Retry,         Retry),
    (Lost,                                                       LostDone,      LostDone,      Retry),
];

/// One answer in one column, and an Official Account of its own that meets it.
#[derive(Debug)]
pub struct Pair {
    pub wechat_id: String,
    /// Add, delete, or the fetch of a token.
    pub column: Endpoint,
    pub answer: Answer,
    pub fate: Fate,
}

impl Pair {
    /// The errcode that WeChat answers, where it is one.
    pub fn errcode(&self) -> Option<i64> {
        match self.answer {
            Answer::Errcode(errcode) | Answer::EndToken(errcode) => Some(errcode),
            _ => None,
        }
    }
}

/// Every pair of the table, in its order.
pub fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (answers, add, delete, token) in TABLE {
        for (word, answer) in each(answers) {
            for (column, name, fate) in
                [(Endpoint::Add, "add", add), (Endpoint::Delete, "delete", delete), (Endpoint::StableToken, "token", token)]
            {
                let answer = match (fate, &answer) {
                    (Never, _) => continue,
                    // WeChat says so of a token that has ended: it gives out another one afterwards.
                    (Token, Answer::Errcode(errcode)) => Answer::EndToken(*errcode),
                    // The fetch of a token is answered with the token.
                    (Done, _) if column == Endpoint::StableToken => Answer::Usual,
                    _ => answer.clone(),
                };
                pairs.push(Pair { wechat_id: format!("{name}-{word}"), column, answer, fate: *fate });
            }
        }
    }
    pairs
}

/// The answers of a row, each with a word that can stand in a WeChat ID.
fn each(answers: &Answers) -> Vec<(String, Answer)> {
    match answers {
        Errcodes(errcodes) => errcodes.iter().map(|errcode| (errcode.to_string(), Answer::Errcode(*errcode))).collect(),
        Http(statuses) => statuses.iter().map(|status| (format!("http-{status}"), Answer::Http(*status))).collect(),
        Bodies(bodies) => bodies.iter().map(|(word, body)| ((*word).to_owned(), Answer::Body((*body).to_owned()))).collect(),
        Lost => vec![("lost".to_owned(), Answer::Lose)],
    }
}
