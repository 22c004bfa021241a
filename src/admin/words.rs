//! How the status page says things: times with their age, numbers, reasons with what to do.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::outcome::{Answer, Reason, Scope};

/// What every reason means and what to do, a table row for each.
const REASONS: &str = include_str!("../../docs/reasons.md");
/// WeChat's words, and a producer's, may be of any length.
const LONGEST: usize = 400;

/// A time in UTC and how long ago it was, or how soon it comes.
pub fn moment(at: Timestamp, now: Timestamp) -> Markup {
    let text = format!("{at:.0}");
    html! { time datetime=(text) { (text) } " " span.age { "(" (relative(at, now)) ")" } }
}

/// `3 minutes ago`, or `in 42 seconds`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        0 => "just now".to_owned(),
        1.. => format!("{} ago", span(seconds.unsigned_abs())),
        _ => format!("in {}", span(seconds.unsigned_abs())),
    }
}

/// A time span in its largest unit.
pub fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} {unit}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A number with its thousands parted.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    // In tenths of a unit, so that there is something behind the point.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1_024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A text, cut short where it is too long for a page.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A reason's meaning, and what to do.
pub fn explained(reason: Reason) -> Option<(&'static str, &'static str)> {
    let begin = format!("| `{reason}` | ");
    let row = REASONS.lines().find_map(|line| line.strip_prefix(&begin)?.strip_suffix(" |"))?;
    row.split_once(" | ")
}

/// A sentence in which backticks mark what is typed.
pub fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A reason's word, with its meaning and what to do.
pub fn reason_and_advice(reason: Reason) -> Markup {
    html! {
        code { (reason) }
        @if let Some((meaning, advice)) = explained(reason) {
            p { (prose(meaning)) }
            p { b { "What to do: " } (prose(advice)) }
        }
    }
}

/// WeChat's number and text.
pub fn answer(answer: &Answer) -> Markup {
    html! { "errcode " (answer.errcode) ": " q { (clip(&answer.errmsg)) } }
}

/// What a pause holds back.
pub fn held_back(scope: Scope) -> &'static str {
    match scope {
        Scope::OfficialAccount => "All calls are paused",
        Scope::Adds => "Adds are paused",
        Scope::Deletes => "Deletes are paused",
        Scope::Room => "Adds wait for room",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_with_their_age() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |seconds: i64| relative(Timestamp::from_second(1_000_000 + seconds).unwrap(), now);
        assert_eq!([at(0), at(-1), at(-59), at(-60)], ["just now", "1 second ago", "59 seconds ago", "1 minute ago"]);
        assert_eq!([at(42), at(-3 * 3_600), at(-2 * 86_400)], ["in 42 seconds", "3 hours ago", "2 days ago"]);
        let markup = moment(Timestamp::from_second(999_000).unwrap(), now).into_string();
        assert!(markup.contains(">1970-01-12T13:30:00Z</time>") && markup.contains("(16 minutes ago)"), "{markup}");
    }

    #[test]
    fn numbers_and_sizes_are_legible() {
        assert_eq!([number(0), number(999), number(1_000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([size(0), size(1_536), size(5 * 1_024 * 1_024), size(3 << 30)], ["0.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn every_reason_is_explained_with_what_to_do() {
        for reason in Reason::ALL {
            let (meaning, advice) = explained(*reason).unwrap_or_else(|| panic!("{reason}"));
            assert!(meaning.ends_with('.') && advice.ends_with('.'), "{reason}");
        }
        assert_eq!(prose("Set `a` and <b>.").into_string(), "Set <code>a</code> and &lt;b&gt;.");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(clip("short"), "short");
        assert_eq!(clip(&"客".repeat(LONGEST + 5)), format!("{}…", "客".repeat(LONGEST)));
    }
}
