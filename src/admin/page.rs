//! The status page: whether the worker can do its work, what is wrong with which Official Account since when, and what to do.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

use super::official_accounts::Accounts;
use super::words::{moment, number, relative, size, span};
use super::{Port, look_up, outcomes};
use crate::ledger;
use crate::metrics::Metrics;
use crate::readiness::{NotReady, WhyNot};

const STYLE: &str = include_str!("page.css");
/// How many outcomes are shown.
const OUTCOMES: usize = 20;
/// After so many seconds the page is asked for again.
const REFRESH: u32 = 10;

/// How the page is asked for.
#[derive(Deserialize)]
pub struct Asked {
    /// Where it is given, the page stays as it is.
    still: Option<String>,
}

/// What the page begins with.
struct Headline {
    title: &'static str,
    /// Why the worker can't do its work, since when where that is known, and what to do.
    trouble: Option<(String, Option<Timestamp>, &'static str)>,
}

/// `GET /`
pub async fn overview(State(port): State<Port>, Query(asked): Query<Asked>) -> Response {
    let read = port.shown.recall.overview(OUTCOMES).await;
    let now = Timestamp::now();
    let accounts = Accounts::of(port.shown.accounts.all());
    let headline = Headline::of(port.shown.readiness.is_stuck(), port.shown.readiness.why_not());
    let still = asked.still.is_some();
    let body = html! {
        (headline.show(&accounts, port.shown.metrics.wechat_failing.get() == 1, now))
        (tiles(&port.shown.metrics, read.as_ref().ok().map(|(census, _)| census), now))
        (accounts.section(now))
        (outcomes::section(read.as_ref().map(|(_, latest)| latest.as_slice()).map_err(String::as_str), now))
        section aria-labelledby="look-up" {
            h2 #look-up { "Look up a command" }
            (look_up::form(""))
        }
        footer {
            p {
                "As of " time { (format!("{now:.0}")) } ". "
                @if still { a href="/" { "Refresh by itself again" } }
                @else { "Refreshes every " (REFRESH) " seconds; " a href="/?still=yes" { "hold it still" } "." }
            }
            p {
                "kf-worker " (env!("CARGO_PKG_VERSION")) " on " (rustix::system::uname().nodename().to_string_lossy()) ", running for "
                (span(now.duration_since(port.opened_at).as_secs().unsigned_abs())) "."
            }
        }
    };
    let title = match accounts.paused {
        paused if paused > 0 && headline.trouble.is_none() => format!("{}, {} paused", headline.title, number(paused as u64)),
        _ => headline.title.to_owned(),
    };
    respond(&title, (!still).then_some(REFRESH), &body)
}

impl Headline {
    fn of(stuck: bool, why_not: Option<WhyNot>) -> Self {
        if stuck {
            let trouble = "No commands are being taken although the broker is connected.".to_owned();
            return Self { title: "Stuck", trouble: Some((trouble, None, "Restart the worker, and report it with the log.")) };
        }
        match why_not {
            None => Self { title: "Ready", trouble: None },
            Some(why_not) => {
                let trouble = Some((why_not.to_string(), Some(why_not.since), advice(why_not.reason)));
                Self { title: "Not ready", trouble }
            }
        }
    }

    fn show(&self, accounts: &Accounts, wechat_failing: bool, now: Timestamp) -> Markup {
        html! {
            header.headline.alert[self.trouble.is_some()] {
                p.name { "kf-worker" }
                h1 { span.mark aria-hidden="true" { @if self.trouble.is_some() { "▲" } @else { "✓" } } " " (self.title) }
                @if let Some((reason, since, advice)) = &self.trouble {
                    p { (reason) }
                    @if let Some(since) = since { p { "Since " (moment(*since, now)) } }
                    p { b { "What to do: " } (advice) }
                } @else {
                    p { "The worker takes commands and carries them out." }
                }
            }
            @if wechat_failing {
                p.trouble {
                    span.mark aria-hidden="true" { "▲" } " Nearly every call to WeChat fails, so that one at a time is made until one is answered. "
                    b { "What to do: " } "Look at the reasons below; check network, DNS and " code { "wechat.base_url" } "."
                }
            }
            @if accounts.paused > 0 {
                p.trouble {
                    span.mark aria-hidden="true" { "▲" } " "
                    a href="#official-accounts" { (number(accounts.paused as u64)) " of " (number(accounts.in_all() as u64)) " Official Accounts paused" }
                }
            }
        }
    }
}

/// What to do about a worker that is not ready.
fn advice(reason: NotReady) -> &'static str {
    match reason {
        NotReady::Draining => "Nothing: it ends what is in flight and hands the rest back. See that another worker takes its place.",
        NotReady::Ledger => {
            "Mend the ledger: the disk it is on, or its database. The worker tries again by itself; nothing is lost meanwhile."
        }
        NotReady::Disconnected => "See that RabbitMQ runs and can be reached, and that amqp.url is right. The worker goes on by itself.",
        NotReady::Blocked => "Look for RabbitMQ's memory or disk alarm and clear it. The worker goes on by itself.",
        NotReady::Starting => "Wait a moment. Where it lasts, the worker's log says why.",
    }
}

/// The figures that matter most. Nothing is known of a ledger that can't be read.
fn tiles(metrics: &Metrics, census: Option<&ledger::Census>, now: Timestamp) -> Markup {
    let of = |count: i64, limit: i64| Some(format!("{} of {}", whole(count), whole(limit)));
    let unknown = || "not known".to_owned();
    let tile = |name: &str, value: Option<String>, more: String| {
        html! { div { dt { (name) } dd { b { (value.unwrap_or_else(unknown)) } @if !more.is_empty() { " " span.age { (more) } } } } }
    };
    let oldest = match census.map(|census| census.oldest_since) {
        None => "the ledger can't be read".to_owned(),
        Some(None) => "nothing waits".to_owned(),
        Some(Some(oldest)) => format!("the oldest received {}", relative(oldest, now)),
    };
    html! {
        dl.tiles {
            (tile("Calls in flight", of(metrics.in_flight(), metrics.calls_in_flight_limit.get()), String::new()))
            (tile("Commands held", of(metrics.held(), metrics.commands_held_limit.get()), String::new()))
            (tile("Unfinished commands", census.map(|census| number(census.unfinished)), oldest))
            (tile("Partitions", Some(whole(metrics.partitions.get())), String::new()))
            (tile("Ledger", census.map(|census| size(census.size_bytes)), String::new()))
        }
    }
}

/// A gauge, none of which is ever negative.
fn whole(gauge: i64) -> String {
    number(gauge.try_into().unwrap_or_default())
}

/// A whole page. Its style is let in by a word that nobody can know beforehand, and nothing else is.
pub fn respond(title: &str, refresh: Option<u32>, body: &Markup) -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = refresh { meta http-equiv="refresh" content=(seconds); }
                title { (title) " · kf-worker" }
                // Otherwise browsers ask for one that is not there.
                link rel="icon" href="data:,";
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page.into_string())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{OfficialAccounts, Settings};
    use crate::metrics::Metrics;

    #[test]
    fn every_reason_not_to_be_ready_comes_with_what_to_do() {
        let none = OfficialAccounts::new(&Settings::default(), 1, Metrics::new().unwrap().into());
        let since = Timestamp::UNIX_EPOCH;
        let shown = |stuck, why_not: Option<(NotReady, &str)>| {
            let why_not = why_not.map(|(reason, sentence)| WhyNot { reason, sentence: sentence.to_owned(), since });
            Headline::of(stuck, why_not).show(&Accounts::of(none.all()), false, Timestamp::now()).into_string()
        };
        let well = shown(false, None);
        assert!(well.contains("✓</span> Ready") && !well.contains("▲"), "{well}");
        for (reason, advice) in [
            (NotReady::Starting, "Wait a moment"),
            (NotReady::Disconnected, "RabbitMQ runs"),
            (NotReady::Blocked, "clear it"),
            (NotReady::Ledger, "Mend the ledger"),
            (NotReady::Draining, "another worker"),
        ] {
            let page = shown(false, Some((reason, "because")));
            assert!(
                page.contains("Not ready") && page.contains(&format!("{}: because", reason.as_str())) && page.contains(advice),
                "{page}"
            );
            assert!(page.contains("Since <time datetime=\"1970-01-01T00:00:00Z\">"), "{page}");
        }
        assert!(shown(false, Some((NotReady::Ledger, "<full>"))).contains("ledger: &lt;full&gt;"));
        assert!(shown(true, None).contains("▲</span> Stuck"));
    }

    #[test]
    fn a_page_lets_in_its_own_style_and_nothing_else() {
        let response = respond("Ready", Some(REFRESH), &html! {});
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        let other = respond("Ready", None, &html! {});
        assert!(policy.starts_with("default-src 'none'; style-src 'nonce-") && !policy.contains("unsafe"), "{policy}");
        assert_ne!(policy, other.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap());
    }
}
