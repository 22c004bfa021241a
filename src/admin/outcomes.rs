//! The part of the status page about the latest outcomes.

use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::words::moment;
use crate::command::KfAccount;
use crate::event::Conclusion;
use crate::ledger::Finished;
use crate::outcome::Status;

/// The section of the page.
pub fn section(latest: Result<&[Finished], &str>, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="latest-outcomes" {
            h2 #latest-outcomes { "Latest outcomes" }
            @match latest {
                Err(trouble) => { p.trouble { span.mark aria-hidden="true" { "▲" } " " (trouble) } }
                Ok([]) => { p { "No command has ended yet." } }
                Ok(latest) => {
                    table {
                        caption { "The commands that ended last, newest first" }
                        thead {
                            tr {
                                th scope="col" { "Command" }
                                th scope="col" { "Ended" }
                                th scope="col" { "Action" }
                                th scope="col" { "kf account" }
                                th scope="col" { "Outcome" }
                            }
                        }
                        tbody { @for finished in latest { (row(&finished.conclusion, now)) } }
                    }
                }
            }
        }
    }
}

fn row(conclusion: &Conclusion, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(link(&conclusion.command_id)) { (conclusion.command_id) } }
            td.when data-label="Ended" { (moment(conclusion.finished_at, now)) }
            td.few data-label="Action" { (action(conclusion)) }
            td data-label="kf account" { (account(conclusion.kf_account.as_deref())) }
            td data-label="Outcome" {
                (status(conclusion.status))
                @if let Some(reason) = conclusion.reason { ": " code { (reason) } }
            }
        }
    }
}

/// Where a command is looked up. An id may hold any printable ASCII.
fn link(command_id: &str) -> String {
    format!("/command?id={}", utf8_percent_encode(command_id, NON_ALPHANUMERIC))
}

/// A status with a sign that needs no colour.
pub fn status(status: Status) -> Markup {
    let sign = match status {
        Status::Succeeded => "✓",
        Status::Failed => "▲",
        Status::Rejected => "✕",
        Status::Superseded => "→",
    };
    html! { span.failed[status == Status::Failed] { span.mark aria-hidden="true" { (sign) } " " (status) } }
}

pub fn action(conclusion: &Conclusion) -> &'static str {
    conclusion.action.map_or("unknown", crate::outcome::Action::as_str)
}

/// The account, where it is one: anything else may be any text, a person's name for one.
pub fn account(given: Option<&str>) -> &str {
    given.filter(|text| KfAccount::is_one(text)).unwrap_or("not an account")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_printable_ascii_has_its_link() {
        assert_eq!(link("a/b?c&d=e#f%20 +\"<"), "/command?id=a%2Fb%3Fc%26d%3De%23f%2520%20%2B%22%3C");
    }

    #[test]
    fn nothing_and_trouble_are_said_in_words() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(section(Ok(&[]), now).into_string().contains("No command has ended yet."));
        assert!(section(Err("no <ledger>"), now).into_string().contains("no &lt;ledger&gt;"));
    }
}
