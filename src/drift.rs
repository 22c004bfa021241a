//! What WeChat lists, compared with what the commands asked for: nothing is changed, only told.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::accounts::Snapshot;
use crate::ledger::Wanted;
use crate::outcome::Action;

/// How the kf accounts of one Official Account differ from what was asked for.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// How many accounts WeChat lists, of the 100 that there is room for.
    pub listed: usize,
    /// Asked for and not listed.
    pub missing: Vec<String>,
    /// Listed and not asked for.
    pub unexpected: Vec<Unexpected>,
    /// Listed under another nickname.
    pub renamed: Vec<Renamed>,
    /// Commands of theirs are unfinished, so that they are not compared.
    pub unfinished: Vec<String>,
}

/// An account that should not be there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unexpected {
    pub kf_account: String,
    /// Its last command was a delete; otherwise there never was a command for it.
    pub deleted: bool,
}

/// An account with another nickname.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Renamed {
    pub kf_account: String,
    pub asked_for: String,
    pub listed: String,
}

impl Drift {
    /// Whether nothing differs.
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.renamed.is_empty()
    }
}

/// Compares a list with what was asked for before and after it was made. An account whose commands went on meanwhile is
/// not judged.
pub fn compare(before: &[Wanted], after: &[Wanted], snapshot: &Snapshot) -> Drift {
    let before: BTreeMap<&str, &Wanted> = before.iter().map(|wanted| (wanted.kf_account.as_str(), wanted)).collect();
    let after: BTreeMap<&str, &Wanted> = after.iter().map(|wanted| (wanted.kf_account.as_str(), wanted)).collect();
    let mut drift = Drift { listed: snapshot.used, ..Drift::default() };
    for (kf_account, wanted) in &after {
        if wanted.unfinished || before.get(kf_account) != Some(wanted) {
            drift.unfinished.push((*kf_account).to_owned());
        } else if wanted.action == Action::Add {
            match (snapshot.nickname(kf_account), wanted.nickname.as_deref()) {
                (Some(listed), Some(asked_for)) if listed != asked_for => drift.renamed.push(Renamed {
                    kf_account: (*kf_account).to_owned(),
                    asked_for: asked_for.to_owned(),
                    listed: listed.to_owned(),
                }),
                (None, _) if snapshot.has(kf_account) == Some(false) => drift.missing.push((*kf_account).to_owned()),
                _ => {}
            }
        }
    }
    for kf_account in snapshot.accounts().keys() {
        if drift.unfinished.contains(kf_account) {
            continue;
        }
        let wanted = after.get(kf_account.as_str());
        if wanted.is_none_or(|wanted| wanted.action == Action::Delete) {
            drift.unexpected.push(Unexpected { kf_account: kf_account.clone(), deleted: wanted.is_some() });
        }
    }
    drift
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::accounts::Roster;
    use crate::ledger::Position;
    use crate::wechat::Listed;

    fn wanted(kf_account: &str, action: Action, nickname: Option<&str>) -> Wanted {
        Wanted {
            kf_account: kf_account.to_owned(),
            action,
            position: Position(1),
            nickname: nickname.map(str::to_owned),
            unfinished: false,
        }
    }

    async fn listed(accounts: &[(&str, &str)]) -> Arc<Snapshot> {
        let listed =
            |(kf_account, nickname): &(&str, &str)| Listed { kf_account: (*kf_account).to_owned(), nickname: (*nickname).to_owned() };
        let listed: Vec<Listed> = accounts.iter().map(listed).collect();
        Roster::default().asked_since(Instant::now(), async { Ok(listed) }).await.unwrap()
    }

    #[tokio::test]
    async fn what_differs_is_told_and_what_is_under_way_is_not() {
        let before = [
            wanted("gone@test", Action::Add, Some("a")),
            wanted("same@test", Action::Add, Some("b")),
            wanted("other@test", Action::Add, Some("c")),
            wanted("pruned@test", Action::Add, None),
            wanted("left@test", Action::Delete, None),
            wanted("away@test", Action::Delete, None),
            wanted("busy@test", Action::Add, Some("d")),
        ];
        let mut after = before.clone();
        after[6].position = Position(2);
        let snapshot =
            listed(&[("same@test", "b"), ("other@test", "C"), ("pruned@test", "x"), ("left@test", "y"), ("hand@test", "z")]).await;
        let drift = compare(&before, &after, &snapshot);
        assert_eq!((drift.listed, drift.missing.as_slice()), (5, ["gone@test".to_owned()].as_slice()));
        let unexpected: Vec<(&str, bool)> = drift.unexpected.iter().map(|other| (other.kf_account.as_str(), other.deleted)).collect();
        assert_eq!(unexpected, [("hand@test", false), ("left@test", true)]);
        assert_eq!(drift.renamed, [Renamed { kf_account: "other@test".to_owned(), asked_for: "c".to_owned(), listed: "C".to_owned() }]);
        assert_eq!(drift.unfinished, ["busy@test"]);
        assert!(!drift.is_none());
    }

    #[tokio::test]
    async fn a_list_with_nameless_entries_misses_nobody() {
        let asked = [wanted("gone@test", Action::Add, None)];
        assert!(compare(&asked, &asked, listed(&[("", "?")]).await.as_ref()).is_none());
    }
}
