//! The metrics of a real worker: what happens is counted where an operator looks, few series, and nothing that Prometheus' own checker minds.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lapin::types::FieldTable;

use crate::support::broker::Message;
use crate::support::eventually;
use crate::support::prometheus::promtool;
use crate::support::proxy::Proxy;
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::Worker;

/// Every series of one scrape, by its name with its labels.
struct Scrape {
    text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    async fn of(worker: &Worker) -> Self {
        let (status, text) = worker.get("/metrics").await.expect("the worker answers");
        assert_eq!(status, 200);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a name and a value");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self { series: series.collect(), text }
    }

    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("there is no {series}:\n{}", self.text))
    }

    fn assert(&self, series: &str, expected: u32) {
        assert!((self.value(series) - f64::from(expected)).abs() < f64::EPSILON, "{series} is {}, not {expected}", self.value(series));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_where_an_operator_looks() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let begun = Timestamp::now().as_second();
    let before = Scrape::of(&worker).await;
    before.assert("kf_last_finished_timestamp_seconds", 0);
    before.assert("kf_token_expiry_timestamp_seconds{official_account=\"test\"}", 0);
    before.assert("kf_official_accounts", 2);
    assert!(before.value("kf_official_account_kf_accounts{official_account=\"test\"}").is_nan(), "WeChat was not asked yet");

    let anna = add("anna", "anna@test", "安娜");
    let sent_at = u64::try_from(begun - 100).expect("a time after 1970");
    stage.broker.publish(Message::json(&anna).timestamp(sent_at)).await;
    stage.events.of("anna").await.assert_succeeded("created");
    stage.outcome(&anna).await.assert_succeeded("created");
    stage.wechat.next(Endpoint::Add, Some("ben@test"), Answer::Errcode(-1));
    stage.outcome(&add("ben", "ben@test", "本")).await.assert_succeeded("created");
    stage.wechat.next(Endpoint::Add, Some("carl@test"), Answer::Lose);
    stage.outcome(&add("carl", "carl@test", "卡尔")).await.assert_succeeded("unknown");
    stage.wechat.next(Endpoint::Add, Some("dora@test"), Answer::Errcode(65403));
    assert_eq!(stage.outcome(&add("dora", "dora@test", "朵拉")).await.reason(), "nickname_refused");
    stage.wechat.always(Endpoint::Add, Some("eve@test"), Answer::Errcode(77_777));
    assert_eq!(stage.outcome(&add("eve", "eve@test", "伊芙")).await.reason(), "unknown_errcode");
    let rejected = stage.outcome(&add("frank", "no account", "弗兰克")).await;
    assert_eq!(rejected.reason(), "invalid_kf_account");
    stage.broker.publish(Message::raw("{")).await;
    stage.wechat.put("gina@other");
    stage.wechat.always(Endpoint::Delete, None, Answer::Errcode(45009));
    let gina = delete("gina", "gina@other");
    stage.send(&gina).await;
    eventually("the delete is put off", async || {
        worker.metric("kf_put_off_total{reason=\"day_quota\"}").await.filter(|count| *count > 0.0)
    })
    .await;
    eventually("the broken message is in the dead letters", async || {
        worker.metric("kf_dead_letters_total{reason=\"not_a_json_object\"}").await.filter(|count| *count > 0.0)
    })
    .await;

    let after = Scrape::of(&worker).await;
    for (series, expected) in [
        ("kf_repeats_total", 1),
        ("kf_queue_wait_seconds_count", 1),
        ("kf_queue_wait_seconds_bucket{le=\"60\"}", 0),
        ("kf_queue_wait_seconds_bucket{le=\"300\"}", 1),
        ("kf_results_total{action=\"add\",reason=\"none\",status=\"succeeded\"}", 3),
        ("kf_results_total{action=\"add\",reason=\"nickname_refused\",status=\"failed\"}", 1),
        ("kf_results_total{action=\"add\",reason=\"unknown_errcode\",status=\"failed\"}", 1),
        ("kf_results_total{action=\"add\",reason=\"invalid_kf_account\",status=\"rejected\"}", 1),
        ("kf_official_account_results_total{official_account=\"test\",status=\"succeeded\"}", 3),
        ("kf_official_account_results_total{official_account=\"test\",status=\"failed\"}", 2),
        ("kf_official_account_results_total{official_account=\"other\",status=\"succeeded\"}", 0),
        ("kf_attempts_total{action=\"delete\"}", 1),
        ("kf_retries_total{reason=\"system_busy\"}", 1),
        ("kf_retries_total{reason=\"answer_lost\"}", 1),
        ("kf_retries_total{reason=\"unknown_errcode\"}", 4),
        ("kf_wechat_calls_total{class=\"ok\",endpoint=\"add\"}", 3),
        ("kf_wechat_calls_total{class=\"transient\",endpoint=\"add\"}", 1),
        ("kf_wechat_calls_total{class=\"unanswered\",endpoint=\"add\"}", 1),
        ("kf_wechat_calls_total{class=\"permanent\",endpoint=\"add\"}", 1),
        ("kf_wechat_calls_total{class=\"unknown\",endpoint=\"add\"}", 5),
        ("kf_wechat_calls_total{class=\"day_quota\",endpoint=\"delete\"}", 1),
        ("kf_wechat_calls_total{class=\"ok\",endpoint=\"token\"}", 2),
        ("kf_wechat_errcodes_total{endpoint=\"add\",errcode=\"65403\"}", 1),
        ("kf_wechat_errcodes_total{endpoint=\"add\",errcode=\"65406\"}", 1),
        ("kf_wechat_errcodes_total{endpoint=\"add\",errcode=\"other\"}", 5),
        ("kf_wechat_call_seconds_count{endpoint=\"delete\"}", 1),
        ("kf_dead_letters_total{reason=\"nickname_refused\"}", 1),
        ("kf_token_fetches_total{official_account=\"test\",result=\"ok\"}", 1),
        ("kf_official_accounts_paused{reason=\"day_quota\"}", 1),
        ("kf_official_account_paused{official_account=\"other\",reason=\"day_quota\"}", 1),
        ("kf_pauses_total{reason=\"day_quota\"}", 1),
        ("kf_events_total{result=\"confirmed\"}", 7),
        ("kf_events_total{result=\"returned\"}", 0),
        ("kf_ledger_failures_total{operation=\"accept\"}", 0),
        ("kf_calls_in_flight", 0),
        ("kf_calls_in_flight_limit", 64),
        ("kf_commands_held_limit", 256),
        ("kf_ready", 1),
        ("kf_broker_connected", 1),
    ] {
        after.assert(series, expected);
    }
    for operation in ["accept", "begin", "wait", "finish", "other"] {
        assert!(after.value(&format!("kf_ledger_seconds_count{{operation=\"{operation}\"}}")) > 0.0, "{operation}");
    }
    let host = stage.wechat.base_url().replace("http://", "");
    after.assert(&format!("kf_wechat_host_calls_total{{answered=\"false\",host=\"{host}\"}}"), 1);
    assert!(after.value("kf_processing_seconds_count") >= 9.0);
    #[expect(clippy::cast_precision_loss, reason = "a time of this century is exact as a float")]
    let begun = begun as f64;
    assert!(after.value("kf_last_finished_timestamp_seconds") >= begun);
    let life = after.value("kf_token_expiry_timestamp_seconds{official_account=\"test\"}") - begun;
    assert!((7_000.0..7_400.0).contains(&life), "the token is good for {life} s");

    // What an operator's graphs begin with was there before anything happened.
    let names = |scrape: &Scrape| scrape.series.keys().cloned().collect::<BTreeSet<String>>();
    let first_seen: Vec<String> = names(&after).difference(&names(&before)).cloned().collect();
    let may_appear =
        |series: &String| ["kf_wechat_errcodes_total", "kf_official_account_paused"].iter().any(|name| series.starts_with(name));
    assert!(first_seen.iter().all(may_appear), "{first_seen:?}");
    assert!(names(&before).is_subset(&names(&after)), "no series goes away");
    assert_eq!(promtool(&["check", "metrics"], &after.text), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_official_account_makes_fewer_than_500_series_whatever_wechat_answers() {
    let mut stage = Stage::with_official_accounts(&["test"]).await;
    let mut settings = stage.settings();
    settings.set("retry.probe_interval", "100ms");
    let worker = stage.worker_with(&settings).await;
    // Codes that nobody has documented share a label, from whatever endpoint, and those of every class are few.
    let app_id = stage.wechat.official_accounts()[0].app_id.clone();
    for errcode in [70_100, 70_101, 70_102] {
        stage.wechat.next(Endpoint::StableToken, Some(&app_id), Answer::Errcode(errcode));
    }
    let undocumented = 70_000..70_060;
    let documented = [-1, 61450, 65403, 65406, 40066, 40164, 48001, 50002, 65400, 65405];
    for (number, errcode) in undocumented.chain(documented).enumerate() {
        let kf_account = format!("a{number}@test");
        stage.wechat.next(Endpoint::Add, Some(&kf_account), Answer::Errcode(errcode));
        stage.outcome(&add(&kf_account, &kf_account, "安娜")).await;
    }
    let scrape = Scrape::of(&worker).await;
    scrape.assert("kf_wechat_errcodes_total{endpoint=\"add\",errcode=\"other\"}", 60);
    scrape.assert("kf_wechat_errcodes_total{endpoint=\"token\",errcode=\"other\"}", 3);
    assert!(scrape.series.len() < 500, "{} series:\n{}", scrape.series.len(), scrape.text);
    assert_eq!(promtool(&["check", "metrics"], &scrape.text), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_says_so_in_its_metrics() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("anna", "anna@test", "安娜")).await;
    held.arrived().await;
    Scrape::of(&worker).await.assert("kf_calls_in_flight", 1);
    worker.signal("TERM").await;
    eventually("the worker drains", async || worker.metric("kf_not_ready{reason=\"draining\"}").await.filter(|draining| *draining > 0.0))
        .await;
    Scrape::of(&worker).await.assert("kf_ready", 0);
    held.release();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_queue_takes_is_counted_as_returned() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let queue = stage.events.queue.clone();
    let unbound = stage.broker.channel().await;
    unbound.queue_unbind(queue, stage.broker.name("events"), "#".into(), FieldTable::default()).await.expect("the queue is unbound");
    stage.send(&add("anna", "anna@test", "安娜")).await;
    eventually("the event was returned", async || {
        worker.metric("kf_events_total{result=\"returned\"}").await.filter(|returned| *returned > 0.0)
    })
    .await;
    let scrape = Scrape::of(&worker).await;
    scrape.assert("kf_events_total{result=\"returned\"}", 1);
    scrape.assert("kf_events_total{result=\"confirmed\"}", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_has_still_to_do_is_shown_from_the_start() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker().await;
    let mut held = stage.wechat.hold(Endpoint::Add, "anna@test");
    stage.send(&add("anna", "anna@test", "安娜")).await;
    held.arrived().await;
    worker.kill().await;
    let mut again = stage.wechat.hold(Endpoint::Add, "anna@test");
    worker.restart().await;
    eventually("the ledger was looked over", async || worker.metric("kf_ledger_size_bytes").await.filter(|bytes| *bytes > 0.0)).await;
    let scrape = Scrape::of(&worker).await;
    scrape.assert("kf_ledger_unfinished_commands", 1);
    assert!(scrape.value("kf_ledger_oldest_unfinished_timestamp_seconds") > 1e9);
    again.arrived().await;
    again.release();
    stage.events.of("anna").await.assert_succeeded("created");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_counted_once_however_it_came_about() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start().await;
    let mut settings = stage.settings();
    settings.set("amqp.url", proxy.url()).set("retry.initial", "30s").set("retry.max_interval", "30s");
    let mut worker = stage.worker_with(&settings).await;
    // Superseded while it waits in hand.
    stage.wechat.next(Endpoint::Add, Some("anna@test"), Answer::Errcode(-1));
    stage.send(&add("a1", "anna@test", "安娜")).await;
    stage.ledger().until("a1", "waiting").await;
    stage.outcome(&delete("a2", "anna@test")).await.assert_succeeded("none");
    assert_eq!(stage.events.of("a1").await.reason(), "newer_command");
    // Its id stands for another command.
    assert_eq!(stage.outcome(&delete("a1", "anna@test")).await.reason(), "command_id_reused");
    // The session is lost during the call: it fails for good, and its message finds that when it comes again.
    let mut held = stage.wechat.hold(Endpoint::Add, "ben@test");
    stage.send(&add("b1", "ben@test", "本")).await;
    held.arrived().await;
    proxy.cut();
    eventually("the worker is connected again", async || {
        worker.metric("kf_broker_reconnects_total").await.filter(|reconnects| *reconnects > 0.0)
    })
    .await;
    worker.ready().await;
    held.answer(Answer::Errcode(65403));
    assert_eq!(stage.events.of("b1").await.reason(), "nickname_refused");

    let scrape = Scrape::of(&worker).await;
    scrape.assert("kf_results_total{action=\"add\",reason=\"newer_command\",status=\"superseded\"}", 1);
    scrape.assert("kf_results_total{action=\"delete\",reason=\"none\",status=\"succeeded\"}", 1);
    scrape.assert("kf_results_total{action=\"delete\",reason=\"command_id_reused\",status=\"rejected\"}", 1);
    scrape.assert("kf_results_total{action=\"add\",reason=\"nickname_refused\",status=\"failed\"}", 1);
    scrape.assert("kf_official_account_results_total{official_account=\"test\",status=\"superseded\"}", 1);
    scrape.assert("kf_official_account_results_total{official_account=\"test\",status=\"failed\"}", 1);
    let all: f64 = scrape.series.iter().filter(|(series, _)| series.starts_with("kf_results_total{")).map(|(_, count)| count).sum();
    assert!((all - 4.0).abs() < f64::EPSILON, "{all} outcomes");
}
