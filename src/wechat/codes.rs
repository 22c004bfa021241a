//! What every errcode means for each endpoint: the table that decides, and the advice that goes with each reason.

use std::time::Duration;

use super::answer::Endpoint;
use crate::outcome::{Class, Reason};

/// What an errcode says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Success.
    Done,
    /// The wanted state holds already.
    Already,
    /// Anything else.
    Trouble(Class, Reason),
}

const MINUTES: Duration = Duration::from_secs(60);
const HOURS: Duration = Duration::from_secs(3_600);

/// Classifies an errcode. Sources: WeChat's documentation of the two calls and of its global return codes; what only
/// its SDKs and users' traces know is treated the same.
pub fn verdict(endpoint: Endpoint, errcode: i64) -> Verdict {
    use Endpoint::{Add, AuthorizerToken, Delete, List, Token};
    use Verdict::{Already, Done, Trouble};
    let account = |reason| Trouble(Class::ACCOUNT, reason);
    let administrator = |probe| Trouble(Class::Account { probe }, Reason::AwaitingAdministrator);
    let bug = Trouble(Class::Bug, Reason::WorkerBug);
    let permanent = |reason| Trouble(Class::Permanent, reason);
    match (errcode, endpoint) {
        (0, _) => Done,
        (-1, _) | (61450, Add | Delete | List) => Trouble(Class::Retry, Reason::SystemBusy),

        // The token. Asked for an authorizer's token, WeChat speaks of the platform's.
        (40001 | 40014 | 42001 | 42006, Add | Delete | List | AuthorizerToken) => Trouble(Class::Token, Reason::TokenRefused),
        (40001, Token) => account(Reason::Misconfigured),

        // Our own request.
        (40002 | 40066 | 41001 | 41002 | 41004 | 43002 | 43003 | 44002 | 47001, _) | (40033, Add | Delete | List) => bug,

        // Quotas.
        (45011, _) => Trouble(Class::Minute, Reason::MinuteQuota),
        (45009, _) => Trouble(Class::Day, Reason::DayQuota),

        // The Official Account or the third-party platform.
        (40013 | 40125 | 40164 | 40243 | 42007 | 45035 | 48001 | 48004, _) => account(Reason::Misconfigured),
        (61003 | 61004 | 61005 | 61006 | 61007 | 61011 | 61014..=61017 | 61023 | 61024, _) => account(Reason::Misconfigured),
        (50001..=50004, _) => account(Reason::AccountBlocked),
        (65400, Add | Delete | List) => account(Reason::ServiceNotEnabled),
        (89501 | 89502 | 89504 | 89505, _) => administrator(5 * MINUTES),
        (89503, _) => administrator(10 * MINUTES),
        (89506, _) => administrator(24 * HOURS),
        (89507, _) => administrator(HOURS),

        // The command: its wanted state, its room, its parameters.
        (65406 | 61453, Add) | (65401, Delete) => Already,
        (65405 | 61456, Add) => Trouble(Class::Capacity, Reason::AccountLimitReached),
        (65406 | 61453 | 65405 | 61456, Delete) => permanent(Reason::UnexpectedErrcode),
        (65403, Add | Delete) => permanent(Reason::NicknameRefused),
        (65401, Add) | (65404 | 61452, Add | Delete) => permanent(Reason::AccountRefused),
        (40035 | 61451 | 61454 | 61455 | 65416, Add | Delete) => permanent(Reason::InvalidParameter),

        // Nobody has documented it.
        (_, Token | AuthorizerToken) => account(Reason::UnknownErrcode),
        (_, Add | Delete | List) => Trouble(Class::Unknown, Reason::UnknownErrcode),
    }
}

/// What is wrong and what to do, in a sentence for people.
pub fn advice(reason: Reason, errcode: i64) -> &'static str {
    match (reason, errcode) {
        (_, 40164 | 45035) => {
            "WeChat does not know this worker's IP address; put the address that its answer names on the IP whitelist of the Official Account."
        }
        (_, 48001) => {
            "The Official Account may not use this API: it must be certified, have its WeChat ID set, and, where a third-party platform acts for it, grant one of the permission sets 1, 6, 19 or 100 to 101."
        }
        (_, 61005 | 61006) => {
            "WeChat refused the third-party platform's verify ticket; it pushes a new one every ten minutes, see that the platform receives and keeps it."
        }
        (_, 61007) => "The third-party platform was not granted one of the permission sets 1, 6, 19 or 100 to 101.",
        (_, 40125 | 40001) if reason == Reason::Misconfigured => "The AppSecret is wrong; correct `app_secret` of this Official Account.",
        (_, 40013) => "The AppID is wrong; correct `app_id` of this Official Account.",
        (_, 40243) => "The AppSecret is frozen; unfreeze it in the Official Account's console.",
        (Reason::ServiceNotEnabled, _) => {
            "Customer service is not enabled on the Official Account, or was enabled a moment ago, or the account is not certified; enable it in the console and wait for a while."
        }
        (Reason::Misconfigured, _) => "The Official Account's credentials or permissions are not right; compare them with its console.",
        (Reason::AccountBlocked, _) => "WeChat has blocked or frozen the Official Account; its owner must clear this with WeChat.",
        (Reason::AwaitingAdministrator, _) => "WeChat waits for the Official Account's administrator to confirm this worker's IP address.",
        (Reason::MinuteQuota, _) => "The per-minute quota of this call is used up; it goes on in the next minute.",
        (Reason::DayQuota, _) => "The daily quota of this call is used up; it goes on after 00:00 in China.",
        (Reason::SystemBusy, _) => "WeChat is busy.",
        (Reason::TokenRefused, _) => "WeChat refused the access token; another program may be fetching tokens with the same AppID.",
        (Reason::AccountLimitReached, _) => {
            "The Official Account holds its 100 customer-service accounts; delete one, then replay the command."
        }
        (Reason::NicknameRefused, _) => "WeChat refused the nickname; send another under a new id.",
        (Reason::AccountRefused, _) => {
            "WeChat refused the account name; check its form and that the part behind the @ is the Official Account's own WeChat ID."
        }
        (Reason::InvalidParameter, _) => "WeChat called a parameter invalid; check account and nickname.",
        (Reason::UnexpectedErrcode, _) => "WeChat gave an answer that does not belong to this call.",
        (Reason::WorkerBug, _) => "WeChat called the worker's request malformed; report this with the errmsg.",
        _ => "WeChat gave an answer that is not documented; ask its support with the rid in errmsg.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Endpoint::{Add, Delete, Token};

    #[test]
    fn the_list_and_an_authorizers_token_are_judged_like_their_neighbours() {
        use Endpoint::{AuthorizerToken, List};
        for errcode in [-1, 40001, 42001, 45009, 45011, 48001, 50002, 65400, 12345] {
            assert_eq!(verdict(List, errcode), verdict(Delete, errcode), "{errcode}");
        }
        for errcode in [-1, 40125, 45009, 61003, 61023, 12345] {
            assert_eq!(verdict(AuthorizerToken, errcode), verdict(Token, errcode), "{errcode}");
        }
        // There it is the platform's token that was refused, and that can be had anew.
        assert_eq!(verdict(AuthorizerToken, 42006), verdict(Add, 42006));
    }

    #[test]
    fn the_classes_stand_as_documented() {
        let class = |endpoint, errcode| match verdict(endpoint, errcode) {
            Verdict::Done => "done",
            Verdict::Already => "already",
            Verdict::Trouble(class, _) => match class {
                Class::Retry => "retry",
                Class::Token | Class::TokenUnchanged { .. } => "token",
                Class::Unknown => "unknown",
                Class::Minute => "minute",
                Class::Day => "day",
                Class::Account { .. } => "account",
                Class::Capacity => "capacity",
                Class::Permanent => "permanent",
                Class::Bug => "bug",
            },
        };
        // errcodes; add, delete, token fetch (a dash where the code does not occur).
        let table: &[(&[i64], &str, &str, &str)] = &[
            (&[0], "done", "done", "done"),
            (&[-1], "retry", "retry", "retry"),
            (&[40001], "token", "token", "account"),
            (&[40002], "bug", "bug", "bug"),
            (&[40013, 40125, 40164, 40243, 42007, 45035, 48001, 48004], "account", "account", "account"),
            (&[40014, 42001], "token", "token", "-"),
            (&[40033], "bug", "bug", "-"),
            (&[40035], "permanent", "permanent", "-"),
            (&[40066, 41001, 41002, 41004, 43002, 43003, 44002, 47001], "bug", "bug", "bug"),
            (&[42006], "token", "token", "-"),
            (&[45009], "day", "day", "day"),
            (&[45011], "minute", "minute", "minute"),
            (&[50001, 50002, 50003, 50004], "account", "account", "account"),
            (&[61003, 61004, 61005, 61006, 61007, 61011, 61014, 61015, 61016, 61017, 61023, 61024], "account", "account", "account"),
            (&[61450], "retry", "retry", "-"),
            (&[61451, 61452, 61454, 61455, 65403, 65404, 65416], "permanent", "permanent", "-"),
            (&[61453, 65406], "already", "permanent", "-"),
            (&[61456, 65405], "capacity", "permanent", "-"),
            (&[65400], "account", "account", "-"),
            (&[65401], "permanent", "already", "-"),
            (&[89501, 89502, 89503, 89504, 89505, 89506, 89507], "account", "account", "account"),
            (&[12345, 99999, -2], "unknown", "unknown", "account"),
        ];
        for (errcodes, add, delete, token) in table {
            for errcode in *errcodes {
                assert_eq!(class(Add, *errcode), *add, "add {errcode}");
                assert_eq!(class(Delete, *errcode), *delete, "delete {errcode}");
                if *token != "-" {
                    assert_eq!(class(Token, *errcode), *token, "token {errcode}");
                }
            }
        }
    }
}
