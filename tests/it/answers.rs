//! Every documented answer of WeChat, to an add, to a delete and to the fetch of a token, ends as its row of the table says.

mod scripted;
mod table;
mod transport;
mod trial;

use jiff::{Timestamp, tz};
use serde_json::json;

use crate::support::eventually;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Call, Endpoint};
use table::{Fate, Pair, pairs};
use trial::{Expected, Trial};

/// Pairs without a longer probe of their own, of each kind of reason to pause an Official Account.
const PROBED: [&str; 12] = [
    "add-40164",
    "add-48001",
    "add-50002",
    "add-61007",
    "add-http-302",
    "delete-40013",
    "delete-65400",
    "delete-http-404",
    "token-40001",
    "token-40125",
    "token-99999",
    "token-http-403",
];

/// Whether an answer pauses the whole Official Account.
fn pauses_all(pair: &Pair) -> bool {
    matches!(pair.fate, Fate::Account(_) | Fate::Administrator(_))
}

fn is_administrators(pair: &Pair) -> bool {
    matches!(pair.fate, Fate::Administrator(_))
}

fn is_quota(pair: &Pair) -> bool {
    matches!(pair.fate, Fate::Minute | Fate::Day)
}

/// Fails where a call was made again in the very minute or day whose quota was used up.
fn assert_quota_kept(pair: &Pair, mut calls: Vec<Call>) {
    calls.sort_by_key(|call| call.at);
    let china = i64::from(tz::offset(8).seconds());
    let period = |at: Timestamp| match pair.fate {
        Fate::Minute => at.as_second().div_euclid(60),
        _ => (at.as_second() + china).div_euclid(86_400),
    };
    let (first, later) = calls.split_first().unwrap_or_else(|| panic!("{pair:?} was never called"));
    assert!(later.iter().all(|call| period(call.at) > period(first.at)), "{pair:?}: {calls:?}");
}

/// Quotas are counted by action, so that the other one goes through meanwhile.
async fn assert_the_other_action_goes_on(trial: &mut Trial, pairs: &[Pair]) {
    let pairs: Vec<&Pair> = pairs.iter().filter(|pair| is_quota(pair) && pair.column != Endpoint::StableToken).collect();
    trial.send(pairs.iter().map(|pair| pair.other_command("third"))).await;
    for pair in pairs {
        let event = trial.stage.events.of(&pair.account("third")).await;
        assert_eq!((event.status(), event.attempts()), ("succeeded", 1), "{pair:?}");
    }
}

/// An add that waits for room goes on when a delete has made some.
async fn assert_a_delete_makes_room(trial: &mut Trial, pairs: &[Pair]) {
    let pairs: Vec<&Pair> = pairs.iter().filter(|pair| pair.fate == Fate::Capacity).collect();
    for pair in &pairs {
        trial.stage.wechat.put(&pair.account("second"));
    }
    trial.send(pairs.iter().map(|pair| pair.delete("second"))).await;
    for pair in pairs {
        trial.stage.events.of(&pair.account("second")).await.assert_succeeded("deleted");
        let event = trial.stage.events.of(&pair.account("first")).await;
        assert_eq!((event.status(), event.effect(), event.attempts()), ("succeeded", "created", 2), "{pair:?}");
    }
}

/// Fails where an Official Account saw other calls than the fate of its pair explains.
fn assert_calls(trial: &Trial, pairs: &[Pair]) {
    let journal = trial.journal();
    let calls = |subject: &str| journal.get(subject).map_or(&[][..], Vec::as_slice);
    for pair in pairs {
        let Expected { attempts, fetches, .. } = pair.expected();
        let (first, second, token) = (calls(&pair.account("first")), calls(&pair.account("second")), calls(&pair.wechat_id));
        match pair.fate {
            Fate::Minute | Fate::Day if pair.column == Endpoint::StableToken => {
                assert_quota_kept(pair, token.to_vec());
                continue;
            }
            Fate::Minute | Fate::Day => assert_quota_kept(pair, [first, second].concat()),
            // The delete has made room for one more.
            Fate::Capacity => assert_eq!((first.len(), second.len()), (2, 1), "{pair:?}"),
            _ => assert_eq!(first.len() as u64, attempts, "{pair:?}"),
        }
        assert_eq!(token.len(), fetches, "{pair:?}");
        if pauses_all(pair) {
            assert!(second.is_empty(), "{pair:?}: {second:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_consequence_that_is_documented_for_it() {
    let pairs: Vec<Pair> = pairs().into_iter().filter(|pair| !is_administrators(pair)).collect();
    // No probe comes, and nothing that was put off comes back.
    let settings = [("retry.probe_interval", json!("1h")), ("retry.capacity_wait", json!("1m")), ("retry.defer", json!(["10m"]))];
    let mut trial = Trial::start(&pairs, &settings).await;
    trial.send(pairs.iter().map(|pair| pair.command("first"))).await;
    for pair in &pairs {
        trial.check_first(pair).await;
    }

    // A second command of a paused Official Account waits: of any action, or of that action whose quota is used up.
    let held: Vec<&Pair> = pairs.iter().filter(|pair| pauses_all(pair) || is_quota(pair)).collect();
    let second = |pair: &&Pair| if is_quota(pair) { pair.command("second") } else { pair.other_command("second") };
    trial.send(held.iter().map(second)).await;
    for pair in held {
        trial.stage.ledger().until(&pair.account("second"), "waiting").await;
    }
    assert_the_other_action_goes_on(&mut trial, &pairs).await;
    assert_a_delete_makes_room(&mut trial, &pairs).await;
    assert_calls(&trial, &pairs);
    assert_eq!(trial.end(&pairs).await.len(), 0, "nothing is told twice, and nothing of what waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_official_account_is_probed_but_no_sooner_than_its_administrator_may_be_asked() {
    let chosen = |pair: &Pair| is_administrators(pair) || PROBED.contains(&pair.wechat_id.as_str());
    let pairs: Vec<Pair> = pairs().into_iter().filter(chosen).collect();
    let settings = [("retry.probe_interval", json!("300ms")), ("retry.defer", json!(["1s", "10m"]))];
    let mut trial = Trial::start(&pairs, &settings).await;
    let (administrators, probed): (Vec<&Pair>, Vec<&Pair>) = pairs.iter().partition(|pair| is_administrators(pair));
    assert_eq!(probed.len(), PROBED.len(), "each of them is in the table");
    trial.send(administrators.iter().chain(&probed).map(|pair| pair.command("first"))).await;
    for pair in administrators.iter().chain(&probed) {
        trial.stage.wechat.until_answered(pair.column, &trial.subject(pair), 1).await;
    }
    trial.send(administrators.iter().chain(&probed).map(|pair| pair.other_command("second"))).await;

    for pair in &probed {
        let first = trial.stage.events.of(&pair.account("first")).await;
        assert_eq!((first.status(), first.attempts()), ("succeeded", pair.expected().attempts + 1), "{pair:?}");
        let second = trial.stage.events.of(&pair.account("second")).await;
        assert_eq!((second.status(), second.attempts()), ("succeeded", 1), "{pair:?}");
    }
    for pair in &administrators {
        trial.check_first(pair).await;
        trial.stage.ledger().until(&pair.account("second"), "waiting").await;
    }
    // The probes of the others have come and gone by now.
    let journal = trial.journal();
    let calls = |subject: String| journal.get(&subject).map_or(0, Vec::len);
    for pair in &administrators {
        let Fate::Administrator(seconds) = pair.fate else { panic!("{pair:?}") };
        let logged = trial.logged_pause(&pair.wechat_id);
        assert!(logged >= seconds, "{pair:?}: paused for {logged} s");
        assert_eq!(calls(pair.account("first")) as u64, pair.expected().attempts, "{pair:?}");
        assert_eq!((calls(pair.account("second")), calls(pair.wechat_id.clone())), (0, 1), "{pair:?}");
    }
    for pair in &probed {
        let refused = usize::from(pair.column == Endpoint::StableToken);
        assert_eq!(calls(pair.wechat_id.clone()), 1 + refused, "{pair:?}");
    }
    assert_eq!(trial.end(&pairs).await.len(), 0, "nothing is told twice, and nothing of what waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_again_pauses_its_official_account() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1h").set("retry.defer", json!(["10m"]));
    let mut worker = stage.worker_with(&settings).await;
    let refused = [
        (Endpoint::Add, "anna@test", add("c1", "anna@test", "安娜"), "carl@test"),
        (Endpoint::Delete, "ben@other", delete("c2", "ben@other"), "carl@other"),
    ];
    for (endpoint, account, command, other) in refused {
        stage.wechat.always(endpoint, Some(account), Answer::EndToken(42001));
        stage.send(&command).await;
        stage.wechat.until_answered(endpoint, account, 2).await;
        let command_id = command["command_id"].as_str().expect("a command with an id");
        let entry = stage.ledger().until(command_id, "waiting").await;
        assert_eq!((entry.trouble.as_deref(), entry.errcode, entry.attempts), (Some("token_refused"), Some(42001), 2));
        stage.send(&add(other, other, "卡尔")).await;
        stage.ledger().until(other, "waiting").await;
        assert_eq!((stage.wechat.changes(account).len(), stage.wechat.changes(other).len()), (2, 0));
    }
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 4, "one refresh for each Official Account");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_called_wrong_twice_in_a_row_pause_the_official_account() {
    let mut stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "1h").set("retry.defer", json!(["10m"]));
    let mut worker = stage.worker_with(&settings).await;
    stage.wechat.always(Endpoint::Add, None, Answer::Errcode(47001));
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_ended("failed", "worker_bug");
    stage.send(&add("c2", "ben@test", "本")).await;
    let dealt_with = async || stage.ledger().entry("c2").filter(|entry| ["finished", "waiting"].contains(&entry.state.as_str()));
    eventually("the second command is dealt with", dealt_with).await;
    stage.send(&delete("c3", "carl@test")).await;
    assert_eq!(stage.ledger().until("c3", "waiting").await.trouble.as_deref(), Some("worker_bug"));
    assert_eq!(stage.wechat.journal().len(), 2, "a backlog must not fail at the speed of the wire");
    assert_eq!(worker.terminate().await, Some(0));
}
