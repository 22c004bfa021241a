//! The part of the status page about Official Accounts: those in trouble first, with what to do.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use maud::{Markup, html};
use tokio::time::Instant;

use super::words::{self, moment, number};
use crate::accounts::{OfficialAccount, Pause};
use crate::outcome::Reason;

/// So many are shown at most.
const MOST: usize = 200;
/// What one of them holds, by WeChat's rule.
const ROOM: u64 = 100;

/// The Official Accounts and what holds them back.
pub struct Accounts {
    /// Those in trouble first.
    rows: Vec<(Arc<OfficialAccount>, Vec<Pause>)>,
    pub paused: usize,
}

impl Accounts {
    pub fn of(accounts: Vec<Arc<OfficialAccount>>) -> Self {
        let mut rows: Vec<_> = accounts.into_iter().map(|account| (Arc::clone(&account), account.all_pauses())).collect();
        for (_, pauses) in &mut rows {
            pauses.sort_by_key(urgency);
        }
        // By WeChat ID where nothing else tells them apart: so they came, and the order stays.
        rows.sort_by_key(|(_, pauses)| pauses.first().map_or((1, None), |pause| (0, Some(urgency(pause)))));
        let paused = rows.iter().filter(|(_, pauses)| !pauses.is_empty()).count();
        Self { rows, paused }
    }

    pub fn in_all(&self) -> usize {
        self.rows.len()
    }

    /// How many are paused for each reason, the most frequent first.
    fn by_reason(&self) -> Vec<(Reason, usize)> {
        let mut counts = BTreeMap::new();
        for (_, pauses) in &self.rows {
            let words: BTreeMap<&str, Reason> = pauses.iter().map(|pause| (pause.failure.reason.as_str(), pause.failure.reason)).collect();
            for (word, reason) in words {
                counts.entry(word).or_insert((reason, 0)).1 += 1;
            }
        }
        let mut counts: Vec<(Reason, usize)> = counts.into_values().collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        counts
    }

    /// The section of the page.
    pub fn section(&self, now: Timestamp) -> Markup {
        let beyond = self.rows.len().saturating_sub(MOST);
        html! {
            section aria-labelledby="official-accounts" {
                h2 #official-accounts { "Official Accounts" }
                p { (self.summary()) }
                table {
                    caption { "Each Official Account, those in trouble first" }
                    thead {
                        tr {
                            th scope="col" { "WeChat ID" }
                            th scope="col" { "State" }
                            th scope="col" { "kf accounts" }
                            th scope="col" { "Commands held" }
                            th scope="col" { "Token ends" }
                        }
                    }
                    tbody { @for (account, pauses) in self.rows.iter().take(MOST) { (row(account, pauses, now)) } }
                }
                @if beyond > 0 {
                    p { "And " (number(beyond as u64)) " more, " (self.rest()) "." }
                }
            }
        }
    }

    fn summary(&self) -> Markup {
        let in_all = number(self.rows.len() as u64);
        html! {
            @if self.paused == 0 {
                "None of " (in_all) " is paused."
            } @else {
                b { (number(self.paused as u64)) " of " (in_all) " paused" } ": "
                @for (index, (reason, count)) in self.by_reason().into_iter().enumerate() {
                    @if index > 0 { ", " }
                    code { (reason) } " (" (number(count as u64)) ")"
                }
                "."
            }
        }
    }

    /// How those are that are not shown.
    fn rest(&self) -> String {
        match self.paused.saturating_sub(MOST) {
            0 => "all well".to_owned(),
            paused => format!("{} of them paused", number(paused as u64)),
        }
    }
}

/// What needs a person goes before what passes by itself, and what has lasted longer before what has begun just now.
fn urgency(pause: &Pause) -> (u8, Timestamp) {
    let kind = match pause.failure.reason {
        reason if reason.is_passing() => 2,
        Reason::MinuteQuota | Reason::DayQuota | Reason::TokenAwaited => 1,
        _ => 0,
    };
    (kind, pause.since)
}

fn row(account: &OfficialAccount, pauses: &[Pause], now: Timestamp) -> Markup {
    let wechat_id = account.wechat_id();
    html! {
        tr.paused[!pauses.is_empty()] {
            th scope="row" { (wechat_id) }
            td.state data-label="State" {
                @if pauses.is_empty() { span.mark aria-hidden="true" { "✓" } " Well" }
                @for pause in pauses { (trouble(pause, now)) }
            }
            td.few data-label="kf accounts" {
                @match account.listed() {
                    Some(used) => { (used) " of " (ROOM) }
                    None => { span.age { "not listed yet" } }
                }
            }
            td.few data-label="Commands held" { (number(account.in_hand.commands() as u64)) }
            td data-label="Token ends" {
                @match account.tokens.ends_at() {
                    Some(Some(ends)) => { (moment(ends, now)) }
                    Some(None) => { span.age { "none held" } }
                    None => { span.age { "being fetched" } }
                }
            }
        }
    }
}

fn trouble(pause: &Pause, now: Timestamp) -> Markup {
    let failure = &pause.failure;
    html! {
        div.trouble {
            p { b { span.mark aria-hidden="true" { "▲" } " " (words::held_back(pause.scope)) } ", since " (moment(pause.since, now)) }
            (words::reason_and_advice(failure.reason))
            @if !failure.detail.is_empty() { p { b { "Detail: " } (words::clip(&failure.detail)) } }
            @if let Some(answer) = &failure.answer { p { b { "WeChat: " } (words::answer(answer)) } }
            p { b { "Next call: " } (next_call(pause, now)) }
        }
    }
}

fn next_call(pause: &Pause, now: Timestamp) -> Markup {
    html! {
        @if pause.is_probed() {
            "under way, to find out whether it is over"
        } @else if pause.until <= Instant::now() {
            "with the next command"
        } @else {
            (moment(pause.next_call_at(), now))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::accounts::{OfficialAccountSettings, OfficialAccounts, Settings, TokenKind};
    use crate::metrics::Metrics;
    use crate::outcome::{Answer, Failure, Scope};
    use crate::secret::Secret;
    use crate::wechat::AppCredentials;

    fn accounts(wechat_ids: impl Iterator<Item = String>) -> OfficialAccounts {
        let app = AppCredentials { app_id: "wx1".to_owned(), app_secret: Secret::from("s3cret".to_owned()) };
        let one = |wechat_id| OfficialAccountSettings {
            wechat_id,
            token: TokenKind::Stable { app: app.clone(), forced_refreshes: 0 },
            max_rate: None,
        };
        let settings = Settings { official_accounts: wechat_ids.map(one).collect(), platforms: Vec::new() };
        OfficialAccounts::new(&settings, 20, Arc::new(Metrics::new().unwrap()))
    }

    fn pause(accounts: &OfficialAccounts, wechat_id: &str, reason: Reason) {
        let failure = Failure::new(reason, "It is so.");
        accounts.get(wechat_id).unwrap().pause(Scope::OfficialAccount, Duration::from_secs(60), &failure);
    }

    fn shown(accounts: &OfficialAccounts) -> String {
        Accounts::of(accounts.all()).section(Timestamp::now()).into_string()
    }

    #[test]
    fn of_a_thousand_those_in_trouble_are_shown_first_and_the_page_stays_small() {
        let accounts = accounts((0..1_000).map(|number| format!("oa{number:03}")));
        pause(&accounts, "oa998", Reason::SystemBusy);
        pause(&accounts, "oa999", Reason::Misconfigured);
        let page = shown(&accounts);
        let place = |wechat_id: &str| page.find(&format!(">{wechat_id}<"));
        assert!(place("oa999") < place("oa998") && place("oa998") < place("oa000") && place("oa197").is_some());
        assert!(place("oa999").is_some() && place("oa198").is_none());
        assert!(page.contains("And 800 more, all well."), "{page}");
        assert!(page.contains("2 of 1,000 paused"));
        assert!(page.len() < 100_000, "{}", page.len());
    }

    #[test]
    fn where_more_are_paused_than_are_shown_the_rest_is_told() {
        let accounts = accounts((0..250).map(|number| format!("oa{number:03}")));
        for number in 0..210 {
            pause(&accounts, &format!("oa{number:03}"), Reason::Unreachable);
        }
        let page = shown(&accounts);
        assert!(page.contains("<code>unreachable</code> (210)") && page.contains("And 50 more, 10 of them paused."));
        assert!(!page.contains("Well"), "nobody who is well takes the place of one in trouble");
    }

    #[test]
    fn a_pause_tells_scope_reason_detail_answer_and_what_to_do() {
        let accounts = accounts(["test".to_owned()].into_iter());
        let answer = Some(Answer { errcode: 40164, errmsg: "<script>alert(1)</script> rid: 1-2".to_owned() });
        let failure = Failure { reason: Reason::Misconfigured, answer, detail: "The IP is not listed.".to_owned() };
        accounts.get("test").unwrap().pause(Scope::Adds, Duration::from_secs(90), &failure);
        let page = shown(&accounts);
        for words in ["Adds are paused", "misconfigured", "The IP is not listed.", "errcode 40164", "What to do: ", "(in 1 minute)"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    }

    #[test]
    fn all_well_is_said_in_words() {
        assert!(shown(&accounts(["test".to_owned()].into_iter())).contains("None of 1 is paused."));
    }
}
