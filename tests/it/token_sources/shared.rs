//! Several workers on one ledger: a dear token is fetched by one of them, and used by all.
//!
//! Most of this is about who is first, so that the tests hold the parts of two workers themselves; the last one starts one after the other.

use std::sync::Arc;
use std::time::Duration;

use kf_worker::accounts::{NoToken, PlatformSettings, Sources, Ticket, TokenKind, TokenSource};
use kf_worker::ledger::{self, Fetcher, Ledger, Place, TokenTurn};
use kf_worker::metrics::Metrics;
use kf_worker::secret::Secret;
use kf_worker::tls::Tls;
use kf_worker::traces::Traces;
use kf_worker::wechat::{self, AppCredentials, Token};
use tokio::time::{Instant, timeout};

use super::{only, settle};
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::postgres::{self, Database};
use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint, WeChat};
use crate::support::worker::{Settings, Worker};

/// Longer than whoever need not wait takes, and less than a turn lasts.
const A_WHILE: Duration = Duration::from_secs(1);
/// For so long a worker without a token waits for the one that another worker fetches.
const PATIENCE: Duration = Duration::from_secs(10);
/// A claim, a quarter of a turn, that doesn't run out in a test.
const LONG: Duration = Duration::from_secs(60);
/// One that runs out while the test waits for it.
const SHORT: Duration = Duration::from_millis(50);

/// What a worker fetches tokens with.
struct Peer {
    wechat: wechat::WeChat,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    tokens: TokenSource,
}

impl Peer {
    async fn start(scripted: &WeChat, database: &Database, claim: Duration, tokens: TokenSource) -> Self {
        // Fails when another test was first, which is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let day = Duration::from_secs(86_400);
        let place = Place::parse(database.url()).expect("a database's URL");
        let settings = ledger::Settings { place, retention: day, patience: day, lease: claim };
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let ledger = Ledger::open(&settings, Arc::clone(&metrics)).await;
        let settings =
            wechat::Settings { base_urls: vec![scripted.base_url()], tls: Tls::default(), request_timeout: Duration::from_secs(10) };
        let wechat = wechat::WeChat::new(settings, metrics.clone(), Traces::default()).expect("a client");
        Self { wechat, ledger: ledger.expect("the ledger opens"), metrics, tokens }
    }

    async fn try_get(&self) -> Result<String, NoToken> {
        let sources = Sources { wechat: &self.wechat, ledger: &self.ledger, metrics: &self.metrics };
        self.tokens.get(sources).await.map(|token| token.expose().to_owned())
    }

    async fn get(&self) -> String {
        self.try_get().await.unwrap_or_else(|error| panic!("no token: {error:?}"))
    }

    /// Tells it that WeChat has refused a token.
    async fn refuse(&self, token: &str) {
        self.tokens.refuse(&Token::new(token.to_owned())).await;
    }

    /// Ends the authorizer's token, and goes on until this worker has asked for another one.
    async fn fetches_another(&self, scripted: &WeChat) {
        scripted.end_token("test");
        let fetched = || scripted.calls(Endpoint::AuthorizerToken).len();
        let before = fetched();
        while fetched() == before {
            self.refuse(&self.get().await).await;
            self.get().await;
        }
    }
}

fn credentials(app_id: &str, app_secret: &str) -> AppCredentials {
    AppCredentials { app_id: app_id.to_owned(), app_secret: Secret::from(app_secret.to_owned()) }
}

fn legacy(scripted: &WeChat) -> TokenSource {
    let official = scripted.official_account("test");
    let kind = TokenKind::Legacy(credentials(&official.app_id, &official.app_secret));
    TokenSource::new("test", kind, None).expect("it needs no platform")
}

fn authorizer(scripted: &WeChat, ticket: &std::path::Path) -> TokenSource {
    let (platform, official) = (scripted.platform(), scripted.official_account("test"));
    std::fs::write(ticket, &platform.ticket).expect("the ticket can be written");
    let app = credentials(&platform.app_id, &platform.app_secret);
    let source = TokenSource::platform(PlatformSettings { app, ticket: Ticket::File(ticket.to_owned()) });
    let refresh_token = Secret::from(official.refresh_tokens().swap_remove(0));
    let kind = TokenKind::Authorizer { platform: platform.app_id, app_id: official.app_id, refresh_token };
    TokenSource::new("test", kind, Some(Arc::new(source))).expect("its platform is there")
}

/// Two workers that use the legacy token of `test`, the first with claims of this length.
async fn two(claim: Duration) -> (WeChat, Database, Peer, Peer) {
    let (scripted, database) = (WeChat::start(&["test"]).await, postgres::database());
    let one = Peer::start(&scripted, &database, claim, legacy(&scripted)).await;
    let two = Peer::start(&scripted, &database, LONG, legacy(&scripted)).await;
    (scripted, database, one, two)
}

/// How often a legacy token was fetched.
fn fetches(scripted: &WeChat) -> usize {
    scripted.calls(Endpoint::Token).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_need_a_legacy_token_at_the_same_time_fetch_it_once() {
    let (scripted, _database, one, two) = two(LONG).await;
    let mut fetch = scripted.hold(Endpoint::Token, &scripted.official_account("test").app_id);
    let (first, second) = tokio::join!(one.get(), async {
        fetch.arrived().await;
        let mut second = Box::pin(two.get());
        assert!(timeout(A_WHILE, &mut second).await.is_err(), "it waits for the one that the other fetches");
        fetch.release();
        second.await
    });
    assert_eq!((first == second, fetches(&scripted)), (true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_once() {
    let (scripted, _database, one, two) = two(LONG).await;
    let old = one.get().await;
    assert_eq!(two.get().await, old);
    for (round, together) in [(2, true), (3, false)] {
        let old = one.get().await;
        scripted.end_token("test");
        one.refuse(&old).await;
        two.refuse(&old).await;
        let (first, second) = if together { tokio::join!(one.get(), two.get()) } else { (one.get().await, two.get().await) };
        assert_eq!((first == second, first == old, fetches(&scripted)), (true, false, round));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_asked_with_once_by_all_workers() {
    let (scripted, database, folder) = (WeChat::start(&["test"]).await, postgres::database(), tempfile::tempdir().expect("a folder"));
    let ticket = folder.path().join("ticket");
    let one = Peer::start(&scripted, &database, LONG, authorizer(&scripted, &ticket)).await;
    let two = Peer::start(&scripted, &database, LONG, authorizer(&scripted, &ticket)).await;
    for round in 1..=5 {
        let (first, second) = tokio::join!(one.get(), two.get());
        assert_eq!((first == second, scripted.calls(Endpoint::AuthorizerToken).len()), (true, round));
        let newest = scripted.official_account("test").refresh_tokens().pop().expect("there is one");
        assert_eq!(
            database.rows("SELECT access_token, refresh_token FROM kf_worker.token WHERE owner = 'test'"),
            [[first.clone(), newest]]
        );
        scripted.end_token("test");
        one.refuse(&first).await;
        two.refuse(&first).await;
    }
    assert_eq!(scripted.calls(Endpoint::ComponentToken).len(), 1, "the platform's token is shared as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_token_that_has_ended_is_replaced_once() {
    let (scripted, database, folder) = (WeChat::start(&["test"]).await, postgres::database(), tempfile::tempdir().expect("a folder"));
    let ticket = folder.path().join("ticket");
    let one = Peer::start(&scripted, &database, LONG, authorizer(&scripted, &ticket)).await;
    let two = Peer::start(&scripted, &database, LONG, authorizer(&scripted, &ticket)).await;
    // Both have it now.
    one.get().await;
    two.fetches_another(&scripted).await;
    scripted.end_component_tokens();
    one.fetches_another(&scripted).await;
    two.fetches_another(&scripted).await;
    assert_eq!(scripted.calls(Endpoint::ComponentToken).len(), 2, "the second worker finds what the first one has fetched");
    assert_eq!(scripted.calls(Endpoint::AuthorizerToken).len(), 6, "each of them was refused once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_fetches_delays_the_others_for_the_rest_of_its_turn() {
    let (scripted, database, one, two) = two(SHORT).await;
    let mut fetch = scripted.hold(Endpoint::Token, &scripted.official_account("test").app_id);
    tokio::select! {
        token = one.try_get() => panic!("nobody has answered: {token:?}"),
        () = fetch.arrived() => {}
    }
    assert_eq!(database.rows("SELECT owner FROM kf_worker.token_turn"), [["test"]]);
    drop(fetch);
    two.get().await;
    assert_eq!(fetches(&scripted), 2);
    assert_eq!(database.rows("SELECT count(*) FROM kf_worker.token_turn"), [["0"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_after_the_turn_has_run_out_does_not_displace_a_newer_one() {
    let (scripted, database, one, two) = two(SHORT).await;
    let mut fetch = scripted.hold(Endpoint::Token, &scripted.official_account("test").app_id);
    let (late, newer) = tokio::join!(one.get(), async {
        fetch.arrived().await;
        let newer = two.get().await;
        fetch.answer(Answer::Body(r#"{"access_token":"FETCHED-LONG-AGO","expires_in":7200}"#.to_owned()));
        newer
    });
    assert_eq!(late, newer, "the newer one is used");
    assert_eq!(database.rows("SELECT access_token FROM kf_worker.token"), [[newer]]);
    assert_eq!(fetches(&scripted), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_failed_gives_the_turn_to_the_next_worker_at_once() {
    let (scripted, _database, one, two) = two(LONG).await;
    scripted.next(Endpoint::Token, None, Answer::Errcode(-1));
    assert!(matches!(one.try_get().await, Err(NoToken::Failed { asked_wechat: true, .. })));
    // It would fail where it had to wait for the turn, which lasts longer than anybody waits.
    let token = two.get().await;
    let taken_up = eventually("the first takes it up once it asks again", async || one.try_get().await.ok()).await;
    assert_eq!((taken_up, fetches(&scripted)), (token, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_another_ones_turn_for_a_limited_time_and_then_rests() {
    let (scripted, _database, one, two) = two(LONG).await;
    assert_eq!(one.ledger.token_turn(Fetcher::of("test".to_owned())).await.expect("the ledger works"), TokenTurn::Yours);
    let failed = async || matches!(two.try_get().await, Err(NoToken::Failed { asked_wechat: false, .. }));
    let begun = Instant::now();
    let all = tokio::join!(failed(), failed(), failed(), failed());
    assert_eq!(all, (true, true, true, true));
    assert!(begun.elapsed() < 3 * PATIENCE, "who comes next need not wait as well: {:?}", begun.elapsed());
    assert_eq!(fetches(&scripted), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_could_not_be_kept_is_kept_as_soon_as_the_ledger_can_be_written_although_nobody_asks_again() {
    let (scripted, database, folder) = (WeChat::start(&["test"]).await, postgres::database(), tempfile::tempdir().expect("a folder"));
    let one = Peer::start(&scripted, &database, LONG, authorizer(&scripted, &folder.path().join("ticket"))).await;
    let mut fetch = scripted.hold(Endpoint::AuthorizerToken, &scripted.official_account("test").app_id);
    let (answer, ()) = tokio::join!(one.try_get(), async {
        fetch.arrived().await;
        database.execute("ALTER TABLE kf_worker.token RENAME TO away");
        fetch.release();
    });
    assert!(matches!(answer, Err(NoToken::Ledger(_))), "it must not be used: {answer:?}");
    database.execute("ALTER TABLE kf_worker.away RENAME TO token");
    let kept = "SELECT refresh_token FROM kf_worker.token WHERE owner = 'test'";
    let kept = eventually("the token is kept", async || database.rows(kept).pop()).await;
    assert_eq!(Some(&kept[0]), scripted.official_account("test").refresh_tokens().last());
    one.get().await;
    assert_eq!(scripted.calls(Endpoint::AuthorizerToken).len(), 1, "and used from then on");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_worker_was_killed_the_next_one_uses_the_kept_token() {
    let database = postgres::database();
    let mut stage = Stage::new().await;
    let official = stage.wechat.official_account("test");
    let lines = format!("token = \"legacy\"\napp_id = \"{}\"\napp_secret = \"{}\"", official.app_id, official.app_secret);
    let mut settings = only(&stage, "test", &lines);
    settings.set("ledger.url", database.url());
    let mut first = stage.worker_with(&settings).await;
    let added = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    added.assert_succeeded("created");
    first.kill().await;
    drop(first);
    let mut second = stage.spawn_second(settings.set("admin.listen", format!("127.0.0.1:{}", free_port())));
    second.ready().await;
    let deleted = stage.outcome(&delete("c2", "anna@test")).await;
    deleted.assert_succeeded("deleted");
    assert_eq!((deleted.attempts(), fetches(&stage.wechat)), (1, 1), "another fetch would end the token for others");
    settle(stage, second, &[added, deleted]).await;
}

/// Settings of a worker that looks at WeChat's list once a second, with a token of its own kind.
fn watching(stage: &Stage, database: &Database) -> Settings {
    let official = stage.wechat.official_account("test");
    let lines = format!("token = \"legacy\"\napp_id = \"{}\"\napp_secret = \"{}\"", official.app_id, official.app_secret);
    let mut settings = only(stage, "test", &lines);
    settings.set("wechat.request_timeout", "40s");
    settings.set("ledger.url", database.url()).set("verify.enabled", true).set("verify.drift_interval", "1s");
    settings
}

/// Waits until a worker has seen so many accounts in WeChat's list.
async fn has_listed(worker: &Worker, accounts: f64) {
    let gauge = "kf_official_account_kf_accounts{official_account=\"test\"}";
    eventually("the worker has listed the accounts", async || worker.metric(gauge).await.filter(|listed| *listed == accounts)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_running_workers_share_a_legacy_token_from_its_first_fetch_to_its_replacement() {
    let database = postgres::database();
    let mut stage = Stage::new().await;
    stage.wechat.put("first@test");
    let settings = watching(&stage, &database);
    let mut fetch = stage.wechat.hold(Endpoint::Token, &stage.wechat.official_account("test").app_id);
    let mut first = stage.spawn(&settings);
    fetch.arrived().await;
    let mut second = stage.spawn_second(settings.clone().set("admin.listen", format!("127.0.0.1:{}", free_port())));
    second.ready().await;
    fetch.release();
    first.ready().await;
    has_listed(&first, 1.0).await;
    has_listed(&second, 1.0).await;
    assert_eq!(stage.wechat.calls(Endpoint::Token).len(), 1, "fetched once");

    stage.wechat.end_token("test");
    stage.wechat.put("second@test");
    has_listed(&first, 2.0).await;
    has_listed(&second, 2.0).await;
    assert_eq!(stage.wechat.calls(Endpoint::Token).len(), 2, "and replaced once");

    // Whoever is left goes on with what is kept.
    first.kill().await;
    drop(first);
    stage.wechat.put("third@test");
    has_listed(&second, 3.0).await;
    assert_eq!(stage.wechat.calls(Endpoint::Token).len(), 2);
    assert_eq!(stage.settle(second).await.len(), 0);
}
