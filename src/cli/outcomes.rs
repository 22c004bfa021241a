//! What the subcommands about outcomes share: which of them are meant, and how one looks on a line.

use anstyle::{AnsiColor, Style};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::command::AccountPattern;
use crate::event::Told;
use crate::outcome::{Action, Status};

/// Which outcomes are meant.
#[derive(Args, Clone)]
pub struct Filter {
    /// Only those of this kf account, or of those that fit a pattern: * stands for any run of characters ('*@test').
    #[arg(long, value_name = "PATTERN")]
    pub account: Option<AccountPattern>,
    /// Only those of this action.
    #[arg(long, value_parser = actions())]
    pub action: Option<Action>,
    /// Only those with this status.
    #[arg(long, value_parser = statuses())]
    pub status: Option<Status>,
}

fn actions() -> impl TypedValueParser<Value = Action> {
    let words = PossibleValuesParser::new(Action::ALL.iter().map(|action| action.as_str()));
    words.try_map(|word| Action::from_word(&word).ok_or("no such action"))
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    let words = PossibleValuesParser::new(Status::ALL.iter().map(|status| status.as_str()));
    words.try_map(|word| Status::from_word(&word).ok_or("no such status"))
}

/// Outcomes as lines of a table. Its columns are as wide as what was seen so far.
pub struct Lines {
    account: usize,
    effect: usize,
    coloured: bool,
}

impl Lines {
    /// For stdout, with colours where a person looks who has not declined them (`NO_COLOR`).
    pub fn on_stdout() -> Self {
        let coloured = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        Self { account: 16, effect: 16, coloured }
    }

    /// What stands above them.
    pub fn head(&self) -> String {
        let Self { account, effect, .. } = *self;
        format!(
            "{:24}  {:7}  {:account$}  {:10}  {:effect$}  attempts  command id",
            "finished at", "action", "account", "status", "effect or reason"
        )
    }

    /// Makes room for one that is about to come.
    pub fn fit(&mut self, told: &Told) {
        self.account = self.account.max(account(told).chars().count());
        self.effect = self.effect.max(effect(told).chars().count());
    }

    /// One of them.
    pub fn line(&mut self, told: &Told) -> String {
        self.fit(told);
        let Self { account: account_width, effect: effect_width, coloured } = *self;
        let style = if coloured { style(&told.status) } else { Style::new() };
        format!(
            "{:24.3}  {:7}  {:account_width$}  {style}{:10}{style:#}  {:effect_width$}  {:>8}  {}",
            told.finished_at,
            shown(told.action.as_deref().unwrap_or("unknown")),
            account(told),
            shown(&told.status),
            effect(told),
            told.attempts,
            shown(&told.command_id),
        )
    }
}

fn account(told: &Told) -> String {
    told.kf_account.as_deref().map_or_else(|| "-".to_owned(), shown)
}

/// What a success changed, or why it was none.
fn effect(told: &Told) -> String {
    let reason = told.error.as_ref().map(|error| error.reason.as_str());
    shown(told.effect.as_deref().or(reason).unwrap_or("-"))
}

fn style(status: &str) -> Style {
    let colour = match Status::from_word(status) {
        Some(Status::Succeeded) => AnsiColor::Green,
        Some(Status::Failed) => AnsiColor::Red,
        Some(Status::Rejected) => AnsiColor::Yellow,
        Some(Status::Superseded) => AnsiColor::Cyan,
        None => return Style::new(),
    };
    colour.on_default()
}

/// A text of somebody else's as a terminal may show it: what would move the cursor, turn the direction of writing or hide among
/// the letters is written out.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// A text that no spreadsheet takes for a formula: an apostrophe before it says that it is a text.
pub fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(coloured: bool) -> Lines {
        Lines { account: 16, effect: 16, coloured }
    }

    fn told(account: &str, status: &str) -> Told {
        let data = serde_json::json!({
            "command_id": "c1", "action": "add", "kf_account": account, "status": status, "effect": "created", "attempts": 2,
            "received_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:04:06.5Z",
        });
        Told::read(&data.to_string()).unwrap()
    }

    #[test]
    fn columns_stand_below_one_another_and_grow_with_what_comes() {
        let mut lines = lines(false);
        let long = told("somebody_1@an-official-account-123456", "superseded");
        lines.fit(&long);
        let (head, first, second) = (lines.head(), lines.line(&told("anna@test", "succeeded")), lines.line(&long));
        assert!(first.starts_with("2026-01-02T03:04:06.500Z  add      anna@test "), "{first}");
        assert!(first.ends_with("  created                  2  c1"), "{first}");
        for line in [first, second] {
            assert_eq!(line.find("created"), head.find("effect or reason"), "{head}\n{line}");
            assert_eq!(line.find("c1"), head.find("command id"), "{head}\n{line}");
        }
    }

    #[test]
    fn a_terminal_gets_a_coloured_status_and_nobody_else() {
        assert!(lines(true).line(&told("anna@test", "failed")).contains("\u{1b}[31mfailed    \u{1b}[0m"));
        assert!(!lines(false).line(&told("anna@test", "failed")).contains('\u{1b}'));
    }

    #[test]
    fn nothing_that_a_terminal_would_obey_is_shown_as_it_is() {
        let hostile = "a\u{1b}[2J\n\u{202e}tset@b\u{200b}\u{9b}c\u{7f}\u{2066}\u{feff}";
        let line = lines(false).line(&told(hostile, "rejected"));
        assert!(line.contains(r"a\u{1b}[2J\n\u{202e}tset@b\u{200b}\u{9b}c\u{7f}\u{2066}\u{feff}"), "{line}");
        assert_eq!(shown("客服1 \"a'b\" é"), "客服1 \"a'b\" é");
    }

    #[test]
    fn a_spreadsheet_takes_no_text_for_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        assert_eq!(harmless("a=1"), "a=1");
    }
}
