//! Every command ends in exactly one outcome; these are the closed word lists that events, ledger, metrics and logs share.

use std::time::Duration;

use schemars::JsonSchema;

/// How a command ended. There is no other ending: a command is either unfinished or has one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The wanted state holds.
    Succeeded(Success),
    /// It was tried, or can't be tried with today's configuration, and will not be tried again.
    Failed(Failure),
    /// It was never tried: the command itself is wrong.
    Rejected(Failure),
    /// It was never finished: a newer command for the same account was accepted.
    Superseded(Failure),
}

impl Outcome {
    /// The word for this outcome in events, metrics and logs.
    pub fn status(&self) -> Status {
        match self {
            Self::Succeeded(_) => Status::Succeeded,
            Self::Failed(_) => Status::Failed,
            Self::Rejected(_) => Status::Rejected,
            Self::Superseded(_) => Status::Superseded,
        }
    }

    /// Why it did not succeed; `None` where it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded(_) => None,
            Self::Failed(failure) | Self::Rejected(failure) | Self::Superseded(failure) => Some(failure),
        }
    }
}

/// What a success amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Success {
    pub effect: Effect,
    /// WeChat's list shows the account under another nickname than the command asked for.
    pub nickname_differs: bool,
}

impl From<Effect> for Success {
    fn from(effect: Effect) -> Self {
        Self { effect, nickname_differs: false }
    }
}

/// Why a command did not succeed, for programs (`reason`, `errcode`) and for people (`detail`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One word of the closed list.
    pub reason: Reason,
    /// What WeChat answered last, where it answered.
    pub answer: Option<Answer>,
    /// What is wrong and what to do, in a sentence without personal data.
    pub detail: String,
}

impl Failure {
    /// A failure in which WeChat had no part.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, answer: None, detail: detail.into() }
    }

    /// WeChat's number and text, for logs.
    pub fn answered(&self) -> (Option<i64>, Option<&str>) {
        (self.answer.as_ref().map(|answer| answer.errcode), self.answer.as_ref().map(|answer| answer.errmsg.as_str()))
    }
}

/// WeChat's own words: the number that decides and the text (with its `rid`) that support asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub errcode: i64,
    pub errmsg: String,
}

/// One attempt that did not reach the wanted state, classified at the edge: nobody further in looks at errcodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFailure {
    /// What kind of trouble it is, and so what the worker does.
    pub class: Class,
    /// What is told to people and programs, should it be the last word.
    pub failure: Failure,
    /// The request may have reached WeChat and its answer was lost: the change may have happened.
    pub answer_lost: bool,
}

impl AttemptFailure {
    /// A failure after which nothing can have changed unseen.
    pub fn new(class: Class, failure: Failure) -> Self {
        Self { class, failure, answer_lost: false }
    }
}

/// The kinds of trouble an attempt can meet (the classes of WeChat's answers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Transient: try again after a backoff.
    Retry,
    /// The access token was refused: fetch another and repeat at once.
    Token,
    /// WeChat gives out the refused token again: it is asked for once more after this long.
    TokenUnchanged { wait: Duration },
    /// An answer nobody has documented: a few attempts, then give up.
    Unknown,
    /// The per-minute quota of this action is used up.
    Minute,
    /// The daily quota of this action is used up.
    Day,
    /// The Official Account is misconfigured, blocked or waiting for an administrator; `probe` is the least time between calls that WeChat's text asks for.
    Account { probe: Duration },
    /// The Official Account holds its 100 accounts.
    Capacity,
    /// This command can never succeed.
    Permanent,
    /// Our own request is wrong.
    Bug,
}

impl Class {
    /// The Official Account is in trouble, and WeChat asks for no patience of its own.
    pub const ACCOUNT: Self = Self::Account { probe: Duration::ZERO };
}

/// Defines a closed list of words: an enum, its spelling, and the way back from the spelling.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every word of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it stands in events, the ledger, metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The variant of a word, where it is one of the list.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What a command asks for.
    #[derive(JsonSchema)]
    Action {
        /// The account shall exist.
        Add = "add",
        /// The account shall not exist.
        Delete = "delete",
    }
}

words! {
    /// What a pause holds back at one Official Account.
    Scope {
        /// Everything.
        OfficialAccount = "official_account",
        /// Adds: quotas are counted by action.
        Adds = "adds",
        /// Deletes.
        Deletes = "deletes",
        /// Adds, until there is room among the 100 accounts.
        Room = "room",
    }
}

impl Scope {
    /// Calls of this action alone.
    pub fn of(action: Action) -> Self {
        match action {
            Action::Add => Self::Adds,
            Action::Delete => Self::Deletes,
        }
    }
}

words! {
    /// How a command ended, in a word.
    #[derive(JsonSchema)]
    Status {
        /// The wanted state holds.
        Succeeded = "succeeded",
        /// It was tried, or can't be tried with today's configuration, and will not be tried again.
        Failed = "failed",
        /// It was never tried: the command itself is wrong, or its sender may not order it.
        Rejected = "rejected",
        /// It was never finished: a newer command for the same account was accepted.
        Superseded = "superseded",
    }
}

words! {
    /// What a success changed.
    #[derive(JsonSchema)]
    Effect {
        /// This command made the account.
        Created = "created",
        /// This command removed the account.
        Deleted = "deleted",
        /// The wanted state held already.
        None = "none",
        /// The wanted state holds, and an earlier attempt of this command, whose answer was lost, may have made it so.
        Unknown = "unknown",
    }
}

words! {
    /// Why a command did not succeed, or why it waits.
    #[derive(JsonSchema)]
    Reason {
        // The message itself is wrong.
        /// The body is not a JSON object (broken, not UTF-8, or something else).
        NotAJsonObject = "not_a_json_object",
        /// The body is larger than 64 KiB.
        BodyTooLarge = "body_too_large",
        /// The properties or headers are larger than 64 KiB, not UTF-8, or nested too deep.
        UnreadableProperties = "unreadable_properties",
        /// Neither the body nor `message_id` carries a command id.
        MissingCommandId = "missing_command_id",
        /// The command id is not 1 to 128 printable ASCII characters.
        InvalidCommandId = "invalid_command_id",
        /// `command_id` in the body and the property `message_id` differ.
        IdMismatch = "id_mismatch",
        /// A key stands twice in one JSON object.
        DuplicateKey = "duplicate_key",
        /// A field the contract does not know.
        UnknownField = "unknown_field",
        /// A required field is missing.
        MissingField = "missing_field",
        /// A field has the wrong JSON type.
        WrongType = "wrong_type",
        /// `action` is neither `add` nor `delete` (CloudEvents: `type` neither `kf.add` nor `kf.delete`).
        InvalidAction = "invalid_action",
        /// `kf_account` is not of the form `<prefix>@<wechat_id>`.
        InvalidKfAccount = "invalid_kf_account",
        /// `nickname` is missing where required, given where refused, or breaks its rules.
        InvalidNickname = "invalid_nickname",
        /// `revision` is outside 0 to 2^63-1.
        InvalidRevision = "invalid_revision",
        /// `meta` is larger than 4 KiB.
        InvalidMeta = "invalid_meta",
        /// The account's commands carry revisions, and this `add` has none.
        RevisionRequired = "revision_required",
        /// The id was used before with other content.
        CommandIdReused = "command_id_reused",
        /// The sender may not order this.
        NotAuthorised = "not_authorised",
        /// A put-off copy that this ledger does not know.
        LedgerLost = "ledger_lost",

        // Another command went first.
        /// A newer command for the account was accepted while this one waited.
        NewerCommand = "newer_command",
        /// The revision is not above the account's latest.
        StaleRevision = "stale_revision",
        /// An `add` sent before the account's last delete.
        SentBeforeDelete = "sent_before_delete",

        // It was tried, or could not be.
        /// The Official Account is not in the configuration.
        UnknownOfficialAccount = "unknown_official_account",
        /// The command waited longer than `retry.max_age`.
        RetriesExhausted = "retries_exhausted",
        /// The Official Account still held 100 accounts after `retry.capacity_wait`.
        AccountLimitReached = "account_limit_reached",
        /// WeChat called a parameter invalid.
        InvalidParameter = "invalid_parameter",
        /// WeChat refused the nickname.
        NicknameRefused = "nickname_refused",
        /// WeChat refused the account name.
        AccountRefused = "account_refused",
        /// WeChat answered with an errcode that does not belong to this call.
        UnexpectedErrcode = "unexpected_errcode",
        /// WeChat answered with an errcode that nobody has documented.
        UnknownErrcode = "unknown_errcode",
        /// WeChat called our request malformed.
        WorkerBug = "worker_bug",
        /// The worker died each time that it carried out this command alone.
        Poison = "poison",

        // It waits (these end a command only together with `retries_exhausted`).
        /// WeChat said that it is busy.
        SystemBusy = "system_busy",
        /// WeChat could not be reached.
        Unreachable = "unreachable",
        /// The answer was lost: a timeout or a reset after the request was sent.
        AnswerLost = "answer_lost",
        /// A gateway answered in WeChat's place.
        GatewayError = "gateway_error",
        /// The answer was not WeChat's JSON.
        MalformedAnswer = "malformed_answer",
        /// The per-minute quota is used up.
        MinuteQuota = "minute_quota",
        /// The daily quota is used up.
        DayQuota = "day_quota",
        /// The access token was refused.
        TokenRefused = "token_refused",
        /// Another worker is fetching the access token.
        TokenAwaited = "token_awaited",
        /// AppID, AppSecret, IP whitelist or permissions are not right.
        Misconfigured = "misconfigured",
        /// WeChat blocked or froze the Official Account.
        AccountBlocked = "account_blocked",
        /// WeChat waits for an administrator's word.
        AwaitingAdministrator = "awaiting_administrator",
        /// Customer service is not enabled on the Official Account, or was enabled a moment ago.
        ServiceNotEnabled = "service_not_enabled",
        /// The Official Account behind the credentials is another one than `wechat_id` says.
        WechatIdMismatch = "wechat_id_mismatch",
        /// The calls of the Official Account are spread out by its `max_rate`.
        RateLimited = "rate_limited",
        /// WeChat says that the account does not exist, and its list still shows it.
        ListDisagrees = "list_disagrees",
        /// The Official Account is slow and holds its share of the window, so that others would wait for it.
        WindowShare = "window_share",
        /// An older add of the account may still land, so that "does not exist" can't be believed yet.
        AddMayLand = "add_may_land",
        /// The claim on the account had nearly run out before WeChat was called.
        ClaimRanOut = "claim_ran_out",
        /// An older command of the account comes first.
        OlderCommandFirst = "older_command_first",
        /// The worker was busy with older commands of this account for as long as a delivery may be held.
        HeldTooLong = "held_too_long",
    }
}

impl Reason {
    /// Reasons of `failed`.
    pub const FAILED: &[Self] = &[
        Self::UnknownOfficialAccount,
        Self::RetriesExhausted,
        Self::AccountLimitReached,
        Self::InvalidParameter,
        Self::NicknameRefused,
        Self::AccountRefused,
        Self::UnexpectedErrcode,
        Self::UnknownErrcode,
        Self::WorkerBug,
        Self::Poison,
    ];
    /// Reasons of `superseded`.
    pub const SUPERSEDED: &[Self] = &[Self::NewerCommand, Self::StaleRevision, Self::SentBeforeDelete];
    /// Reasons of `rejected`.
    pub const REJECTED: &[Self] = &[
        Self::NotAJsonObject,
        Self::BodyTooLarge,
        Self::UnreadableProperties,
        Self::DuplicateKey,
        Self::UnknownField,
        Self::MissingField,
        Self::WrongType,
        Self::InvalidAction,
        Self::InvalidKfAccount,
        Self::InvalidNickname,
        Self::InvalidRevision,
        Self::InvalidMeta,
        Self::RevisionRequired,
        Self::CommandIdReused,
    ];
    /// Reasons of dead letters besides those of `failed`.
    pub const DEAD: &[Self] = &[
        Self::NotAJsonObject,
        Self::BodyTooLarge,
        Self::UnreadableProperties,
        Self::MissingCommandId,
        Self::InvalidCommandId,
        Self::IdMismatch,
        Self::DuplicateKey,
        Self::NotAuthorised,
        Self::LedgerLost,
    ];
    /// Reasons to pause an Official Account.
    pub const PAUSING: &[Self] = &[
        Self::SystemBusy,
        Self::Unreachable,
        Self::AnswerLost,
        Self::GatewayError,
        Self::MalformedAnswer,
        Self::MinuteQuota,
        Self::DayQuota,
        Self::TokenRefused,
        Self::TokenAwaited,
        Self::Misconfigured,
        Self::AccountBlocked,
        Self::AwaitingAdministrator,
        Self::ServiceNotEnabled,
        Self::AccountLimitReached,
        Self::UnknownErrcode,
        Self::WorkerBug,
        Self::WechatIdMismatch,
    ];
    /// Reasons that make one command wait, besides those that pause its Official Account.
    pub const WAITING: &[Self] = &[
        Self::RateLimited,
        Self::ListDisagrees,
        Self::WindowShare,
        Self::AddMayLand,
        Self::ClaimRanOut,
        Self::OlderCommandFirst,
        Self::HeldTooLong,
    ];

    /// Whether it is a failure that passes by itself, mostly soon.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::SystemBusy | Self::Unreachable | Self::AnswerLost | Self::GatewayError | Self::MalformedAnswer)
    }

    /// Whether it takes the place of a former reason to wait. An add's time to wait for room goes on while the worker
    /// itself makes it wait for something else.
    pub fn replaces(self, former: Self) -> bool {
        let ours = matches!(self, Self::RateLimited | Self::WindowShare | Self::HeldTooLong | Self::OlderCommandFirst);
        self != former && !(former == Self::AccountLimitReached && ours)
    }

    /// Whether it lasts for long, whatever anybody calls meanwhile and however the worker is configured: such a pause is
    /// remembered over restarts, and a delete does not come round sooner for it. Forgetting any other costs one call.
    pub fn lasts_long(self) -> bool {
        matches!(self, Self::DayQuota | Self::AwaitingAdministrator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_finds_its_way_back_and_is_snake_case() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(*reason));
            assert!(reason.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{reason}");
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
        assert_eq!(Reason::from_word("no_such_word"), None);
    }

    #[test]
    fn only_a_success_has_no_failure_and_only_wechat_gives_numbers() {
        let failure = Failure::new(Reason::SystemBusy, "busy");
        for outcome in [Outcome::Failed(failure.clone()), Outcome::Rejected(failure.clone()), Outcome::Superseded(failure.clone())] {
            assert_eq!(outcome.failure(), Some(&failure), "{outcome:?}");
        }
        assert_eq!(Outcome::Succeeded(Effect::Created.into()).failure(), None);
        assert_eq!(failure.answered(), (None, None));
        let answer = Some(Answer { errcode: -1, errmsg: "system error rid: 1".to_owned() });
        assert_eq!(Failure { answer, ..failure }.answered(), (Some(-1), Some("system error rid: 1")));
    }

    #[test]
    fn what_passes_by_itself_and_what_lasts_for_long_are_few_and_apart() {
        let of = |kind: fn(Reason) -> bool| Reason::ALL.iter().copied().filter(|reason| kind(*reason)).collect::<Vec<_>>();
        let passing = [Reason::SystemBusy, Reason::Unreachable, Reason::AnswerLost, Reason::GatewayError, Reason::MalformedAnswer];
        assert_eq!(of(Reason::is_passing), passing);
        assert_eq!(of(Reason::lasts_long), [Reason::DayQuota, Reason::AwaitingAdministrator]);
    }

    #[test]
    fn an_add_that_awaits_room_goes_on_awaiting_it_while_the_worker_itself_holds_it_back() {
        for ours in [Reason::RateLimited, Reason::WindowShare, Reason::HeldTooLong, Reason::OlderCommandFirst] {
            assert!(!ours.replaces(Reason::AccountLimitReached), "{ours}");
            assert!(ours.replaces(Reason::SystemBusy), "{ours}");
        }
        assert!(Reason::SystemBusy.replaces(Reason::AccountLimitReached));
        assert!(Reason::AccountLimitReached.replaces(Reason::RateLimited));
        assert!(!Reason::SystemBusy.replaces(Reason::SystemBusy), "a trouble that goes on is no other one");
    }

    #[test]
    fn every_reason_is_explained_in_its_reference_and_no_other() {
        let page = include_str!("../docs/reasons.md");
        let mut explained: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let mut words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        explained.sort_unstable();
        words.sort_unstable();
        assert_eq!(explained, words);
    }
}
