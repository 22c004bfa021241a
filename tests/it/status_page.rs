//! The status page: what operators see, who may see it, and what nobody sees there.

mod browser;
mod looks;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::stage::{Stage, add, delete, with};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, Worker};

/// An id that means something wherever it is put without care.
const HOSTILE_ID: &str = r#"a/b?c&d=<b>"%20'+#;"#;
const NICKNAME: &str = "王小明的昵称";
const META: &str = "employee-4711";

/// A worker that has seen a few things. Its fields are dropped in this order.
struct Day {
    worker: Worker,
    address: String,
    stage: Stage,
}

/// What the port answered.
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Day {
    /// A worker about which nothing has happened yet.
    async fn begin(mut stage: Stage, settings: &Settings) -> Self {
        let worker = stage.worker_with(settings).await;
        let address = settings.get("admin.listen").and_then(|listen| listen.as_str()).expect("an address").to_owned();
        Self { worker, address, stage }
    }

    async fn get(&self, path: &str) -> String {
        let answered = self.ask("GET", path, &format!("Host: {}\r\n", self.address)).await;
        assert_eq!(answered.status, 200, "{path}: {}", answered.body);
        answered.body
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answered {
        let mut stream = TcpStream::connect(&self.address).await.expect("the admin port is open");
        let request = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answered { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

/// Some commands have ended in several ways, one waits since its Official Account is paused, and whoever could said something hostile.
async fn busy_day() -> Day {
    busy_day_at(Stage::new().await).await
}

async fn busy_day_at(stage: Stage) -> Day {
    let settings = stage.settings();
    let mut day = Day::begin(stage, &settings).await;
    let stage = &mut day.stage;
    let errmsg = |errcode: i64| json!({"errcode": errcode, "errmsg": "<script>alert(1)</script> rid: 6172-61"}).to_string();
    let hired = with(add(HOSTILE_ID, "anna@test", NICKNAME), "meta", json!({"employee": META}));
    stage.outcome(&hired).await.assert_succeeded("created");
    stage.wechat.next(Endpoint::Add, Some("ben@test"), Answer::Body(errmsg(65403)));
    let refused = with(add("refused", "ben@test", NICKNAME), "meta", json!({"employee": META}));
    assert_eq!(stage.outcome(&refused).await.status(), "failed");
    stage.send(&json!({"command_id": "wrong", "action": "add", "kf_account": "<i>nobody</i>", "nickname": NICKNAME})).await;
    assert_eq!(stage.events.of("wrong").await.status(), "rejected");
    stage.outcome(&delete("gone", "carl@test")).await.assert_succeeded("none");
    let app_id = stage.wechat.official_account("other").app_id;
    stage.wechat.always(Endpoint::StableToken, Some(&app_id), Answer::Body(errmsg(40164)));
    stage.send(&with(add("waits", "dora@other", NICKNAME), "meta", json!({"employee": META}))).await;
    stage.ledger().until("waits", "waiting").await;
    eventually("the Official Account is paused", async || (!day.worker.pauses().await.is_empty()).then_some(())).await;
    day
}

#[track_caller]
fn assert_all(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "`{word}` is not there: {page}");
    }
}

/// Nothing that belongs to somebody is on a page, and nothing that would be carried out.
fn assert_discreet(day: &Day, page: &str) {
    let official = day.stage.wechat.official_accounts();
    let secrets = official.iter().map(|official| official.app_secret.as_str());
    for secret in secrets.chain([NICKNAME, META, "TOKEN-", "guest:guest"]) {
        assert!(!page.contains(secret), "{secret}: {page}");
    }
    for tag in ["<script", "<i>", "<b>\"", "onerror"] {
        assert!(!page.contains(tag), "{tag}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_state_trouble_backlog_and_the_latest_outcomes() {
    let day = busy_day().await;
    let page = day.get("/").await;
    assert_all(&page, &["<title>Ready, 1 paused · kf-worker</title>", "✓</span> Ready", "1 of 2 Official Accounts paused"]);
    assert_all(&page, &["All calls are paused", "<code>misconfigured</code>", "errcode 40164", "What to do: ", "Next call: "]);
    assert_all(
        &page,
        &["Calls in flight", "0 of 64", "Commands held", " of 256", "Unfinished commands</dt><dd><b>1</b>", "the oldest received"],
    );
    assert!(page.find(">other<") < page.find(">test<"), "the one in trouble comes first: {page}");
    let outcomes = page.split_once("Latest outcomes").expect("a part about outcomes").1;
    let places = [">gone<", ">wrong<", ">refused<", "anna@test"].map(|word| outcomes.find(word));
    assert!(places.is_sorted() && places[0].is_some(), "newest first: {places:?} {outcomes}");
    assert_all(
        outcomes,
        &["<code>nickname_refused</code>", "<code>invalid_kf_account</code>", "/command?id=a%2Fb%3Fc%26d%3D%3Cb%3E%22%2520%27%2B%23%3B"],
    );
    assert!(page.contains(r#"http-equiv="refresh" content="10""#));
    assert!(!day.get("/?still=yes").await.contains("http-equiv=\"refresh\""));
    assert_discreet(&day, &page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_looked_up_whether_it_has_ended_waits_or_is_unknown() {
    let day = busy_day().await;
    let hired = day.get("/command?id=a%2Fb%3Fc%26d%3D%3Cb%3E%22%2520%27%2B%23%3B").await;
    assert_all(&hired, &["✓</span> succeeded", "anna@test", "<code>created</code>", "Calls begun</dt><dd>1<", "Received", "Ended"]);
    let refused = day.get("/command?id=refused").await;
    assert_all(&refused, &["▲</span> failed", "ben@test", "<code>nickname_refused</code>", "errcode 65403", "&lt;script&gt;", "6172-61"]);
    let wrong = day.get("/command?id=wrong").await;
    assert_all(&wrong, &["✕</span> rejected", "not an account", "<code>invalid_kf_account</code>"]);
    assert!(!wrong.contains("nobody"), "what is no account may be a person: {wrong}");
    // Pasted with a blank.
    let waits = day.get("/command?id=+waits+").await;
    assert_all(&waits, &["Unfinished", "It waits, and will be tried again.", "dora@other", "<code>misconfigured</code>", "Since"]);
    let unknown = day.get("/command?id=%3Cscript%3E").await;
    assert_all(&unknown, &["Unknown", "does not know <code>&lt;script&gt;</code>", "kf-worker dead list"]);
    let no_id = day.get("/command?id=%E5%AE%A2").await;
    assert_all(&no_id, &["This is no command id"]);
    assert_all(&day.get("/command").await, &["Give the id of a command."]);
    for page in [hired, refused, wrong, waits, unknown, no_id] {
        assert!(!page.contains("http-equiv=\"refresh\""), "an answer stays: {page}");
        assert_discreet(&day, &page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_sees_no_page_and_is_told_why() {
    let stage = Stage::new().await;
    let mut settings = stage.settings();
    settings.set("admin.hosts", json!(["kf-worker.example.com"]));
    let day = Day::begin(stage, &settings).await;
    for path in ["/", "/command?id=c1"] {
        for host in
            ["Host: evil.example\r\n", "Host: 127.0.0.1.evil.example:80\r\n", "Host: localhost\r\nHost: evil.example\r\n", "Host:\r\n"]
        {
            let answered = day.ask("GET", path, host).await;
            assert_eq!(answered.status, 421, "{path} {host}: {}", answered.body);
            assert!(answered.body.contains("admin.hosts") && !answered.body.contains('<'), "{}", answered.body);
        }
        for host in ["localhost:9464", "127.0.0.1", "[::1]:9464", "KF-worker.example.com:8443"] {
            assert_eq!(day.ask("GET", path, &format!("Host: {host}\r\n")).await.status, 200, "{path} {host}");
        }
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(day.ask("GET", path, "Host: kf-worker.prod.svc:9464\r\n").await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed_and_no_answer_may_be_framed_or_kept() {
    let stage = Stage::new().await;
    let settings = stage.settings();
    let day = Day::begin(stage, &settings).await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ["/", "/command?id=c1"] {
            assert_eq!(day.ask(method, path, "Host: localhost\r\nContent-Length: 0\r\n").await.status, 405, "{method} {path}");
        }
    }
    let nowhere = day.ask("GET", "/no/such/page", "Host: localhost\r\n").await;
    assert_eq!(nowhere.status, 404);
    let head = day.ask("HEAD", "/", "Host: localhost\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let metrics = day.ask("GET", "/metrics", "Host: localhost\r\n").await;
    for answered in [head, nowhere, metrics] {
        assert_all(
            &answered.head,
            &[
                "cache-control: no-store",
                "x-content-type-options: nosniff",
                "referrer-policy: no-referrer",
                "x-frame-options: deny",
                "content-security-policy: default-src 'none';",
            ],
        );
        assert!(!answered.head.contains("unsafe-inline"), "{}", answered.head);
    }
    assert_all(&day.get("/").await, &["No command has ended yet.", "nothing waits", "None of 2 is paused."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_ledger_the_page_still_tells_what_it_can() {
    let mut stage = Stage::new().await;
    let settings = stage.settings();
    let worker = stage.worker_with(&settings).await;
    stage.outcome(&add("c1", "anna@test", NICKNAME)).await.assert_succeeded("created");
    let address = settings.get("admin.listen").and_then(|listen| listen.as_str()).expect("an address").to_owned();
    let day = Day { worker, address, stage };
    assert_all(&day.get("/").await, &["anna@test"]);
    day.stage.ledger().take_away();
    let page = day.get("/").await;
    assert_all(&page, &["Official Accounts", "ledger.db can't be used", "the ledger can't be read"]);
    assert!(!page.contains("anna@test"));
    assert_all(&day.get("/command?id=c1").await, &["The ledger can't be read"]);
    day.stage.send(&add("c2", "ben@test", NICKNAME)).await;
    day.worker.without_ledger().await;
    assert_all(&day.get("/").await, &["Not ready", "ledger: ", "Mend the ledger"]);
    day.stage.ledger().bring_back();
    let back = async || Some(day.get("/").await).filter(|page| page.contains("✓</span> Ready") && page.contains("ben@test"));
    eventually("the page tells of the ledger again", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_ledger_in_a_database_the_page_tells_the_same() {
    let day = busy_day_at(Stage::on_postgres().await).await;
    let page = day.get("/").await;
    assert_all(&page, &["anna@test", "<code>nickname_refused</code>", "Unfinished commands</dt><dd><b>1</b>"]);
    assert_discreet(&day, &page);
    assert_all(&day.get("/command?id=waits").await, &["It waits, and will be tried again.", "<code>misconfigured</code>"]);
    // Its connection is lost, and the next page has another one.
    day.stage
        .database()
        .rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
    eventually("the page tells the same", async || Some(day.get("/").await).filter(|page| page.contains("anna@test"))).await;
}
