//! A whole run of faults, with a secret planted wherever one can be: none of them is found in anything that people or machines are shown.

use serde_json::{Value, json};

use super::{exporting, traced};
use crate::support::broker::{Message, Received};
use crate::support::collector::{Collector, Manner};
use crate::support::eventually;
use crate::support::postgres::OwnServer;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, add, delete, with};
use crate::support::wechat::{Answer, Endpoint};
use crate::support::worker::{Settings, Worker, kf_worker};

/// What every planted text begins with. Nicknames are short.
const PLANTED: &str = "PLANTED";
const NICKNAME: &str = "PLANTED客服";
const META: &str = "PLANTED-meta-value";
const AMQP_PASSWORD: &str = "PLANTED-amqp-password";
const LEDGER_PASSWORD: &str = "PLANTED-ledger-password";
const AUTHORIZATION: &str = "Bearer PLANTED-authorization";

/// A broker, a database, a WeChat and a collector of the test's own.
struct World {
    stage: Stage,
    collector: Collector,
    node: OwnNode,
    server: OwnServer,
}

/// Everything that was shown, by where.
type Shown = Vec<(&'static str, String)>;

impl World {
    async fn new() -> Self {
        let node = OwnNode::start();
        let server = tokio::task::block_in_place(OwnServer::start);
        node.control(&["add_user", "planted", AMQP_PASSWORD]);
        node.control(&["set_permissions", "planted", ".*", ".*", ".*"]);
        let stage = Stage::at(node.url()).await;
        stage.broker.keep_events().await;
        let collector = Collector::start(Manner::Usual).await;
        Self { stage, collector, node, server }
    }

    /// Settings with a secret in each place that takes one.
    fn settings(&self) -> Settings {
        let mut settings = exporting(&self.stage, &self.collector);
        let ticket = self.stage.path("ticket");
        std::fs::write(&ticket, self.stage.wechat.platform().ticket).expect("the ticket can be written");
        let platform = self.stage.wechat.platform();
        let other = self.stage.wechat.official_account("other");
        let authorizer = format!(
            "[[official_account]]\nwechat_id = \"other\"\ntoken = \"authorizer\"\napp_id = \"{}\"\nrefresh_token = \"{}\"\n\n",
            other.app_id,
            other.refresh_tokens()[0]
        );
        let own_server = format!(
            "[[official_account]]\nwechat_id = \"own\"\ntoken = \"url\"\ntoken_url = \"{}?key=PLANTED-in-url\"\ntoken_headers = [\"x-api-key: PLANTED-key\"]\n\n",
            self.stage.wechat.token_server_url("own")
        );
        let platform = format!(
            "[[platform]]\napp_id = \"{}\"\napp_secret = \"{}\"\nverify_ticket_file = \"{}\"\n",
            platform.app_id,
            platform.app_secret,
            ticket.display()
        );
        let stable = settings.official_accounts.split_inclusive("\n\n").next().expect("the first Official Account").to_owned();
        settings.official_accounts = [stable, authorizer, own_server, platform].concat();
        settings
            .set("amqp.url", self.node.url().replace("guest:guest@", &format!("planted:{AMQP_PASSWORD}@")))
            .set("ledger.url", self.server.url().replacen('@', &format!(":{LEDGER_PASSWORD}@"), 1))
            .set("traces.authorization", AUTHORIZATION)
            .set("wechat.request_timeout", "2s")
            .set("retry.probe_interval", "1s");
        settings
    }

    /// The texts that must not be found: what was planted, and what WeChat gave out or was given.
    fn secrets(&self) -> Vec<String> {
        let wechat = &self.stage.wechat;
        let mut secrets = vec![PLANTED.to_owned(), wechat.platform().app_secret, wechat.platform().ticket, wechat.api_key()];
        secrets.extend(["TOKEN-wx", "REFRESH-wx", "COMPONENT-"].map(str::to_owned));
        secrets.extend(wechat.official_accounts().into_iter().map(|official| official.app_secret));
        secrets
    }
}

/// An add with a nickname and a `meta` that nobody may see.
fn planted(command_id: &str, account: &str) -> Value {
    with(add(command_id, account, NICKNAME), "meta", json!({"employee": META}))
}

/// What commands meet on a bad day, each in its own way.
async fn bad_commands(world: &mut World, shown: &mut Shown, worker: &Worker) {
    let stage = &mut world.stage;
    let wechat = &stage.wechat;
    wechat.next(Endpoint::Add, Some("refused@test"), Answer::Errcode(65403));
    wechat.next(Endpoint::Add, Some("silent@test"), Answer::Silence);
    wechat.next(Endpoint::Add, Some("lost@test"), Answer::Lose);
    wechat.next(Endpoint::Add, Some("gateway@test"), Answer::Http(503));
    wechat.next(Endpoint::Add, Some("html@test"), Answer::Body(format!("<html>{PLANTED}-page</html>")));
    wechat.next(Endpoint::Add, Some("token@test"), Answer::EndToken(40001));
    wechat.next(Endpoint::StableToken, None, Answer::Http(502));
    wechat.next(Endpoint::AuthorizerToken, None, Answer::Errcode(42006));
    wechat.next(Endpoint::AuthorizerToken, None, Answer::Body(format!("{{\"authorizer_refresh_token\":\"{PLANTED}-half\"}}")));
    for name in ["anna", "refused", "silent", "lost", "gateway", "html", "token"] {
        let account = format!("{name}@test");
        stage.broker.publish(traced(&planted(name, &account))).await;
    }
    stage.broker.publish(traced(&planted("authorizer", "anna@other"))).await;
    for name in ["anna", "refused", "silent", "lost", "gateway", "html", "token", "authorizer"] {
        keep_event(shown, &stage.events.of(name).await);
    }
    // The organisation's own server does not know the key; that Official Account stays paused, and then WeChat's own does.
    stage.broker.publish(traced(&planted("own", "anna@own"))).await;
    stage.wechat.always(Endpoint::StableToken, None, Answer::Errcode(40125));
    stage.wechat.end_token("test");
    stage.broker.publish(traced(&planted("paused", "ben@test"))).await;
    eventually("both are paused", async || (worker.pauses().await.len() == 2).then_some(())).await;
    keep_port(shown, worker).await;
    stage.wechat.recover();
    keep_event(shown, &stage.events.of("paused").await);
    stage.broker.publish(traced(&with(delete("gone", "anna@test"), "meta", json!({"employee": META})))).await;
    keep_event(shown, &stage.events.of("gone").await);
}

/// What is refused, unreadable, reused or repeated.
async fn refused_messages(world: &mut World, shown: &mut Shown) {
    let stage = &mut world.stage;
    let wrong = [
        with(planted("long", "anna@test"), "nickname", "PLANTED-nickname-that-is-too-long"),
        with(planted("meta", "anna@test"), "meta", "PLANTED-text"),
        with(planted("field", "anna@test"), "secret", "PLANTED-field"),
        with(planted("nobody", "anna@nobody"), "revision", 1),
        with(planted("anna", "anna@test"), "nickname", "PLANTED2"),
        planted("anna", "anna@test"),
    ];
    let refused = ["long", "meta", "field", "nobody", "anna", "anna"];
    for (command, command_id) in wrong.iter().zip(refused) {
        stage.broker.publish(traced(command)).await;
        keep_event(shown, &stage.events.of(command_id).await);
    }
    stage.broker.publish(Message::raw(format!("{{\"nickname\": \"{PLANTED}\", broken"))).await;
    stage.broker.publish(Message::raw(PLANTED).message_id("broken")).await;
    keep_event(shown, &stage.events.of("broken").await);
}

/// Broker and ledger go away and come back.
async fn outages(world: &mut World, shown: &mut Shown, worker: &mut Worker) {
    let names = ["commands", "dead", "deferred.1s", "deferred.2s"];
    let queues: Vec<String> = names.iter().map(|name| world.stage.broker.name(name).to_string()).collect();
    world.node.saved(&queues).await;
    world.node.kill();
    worker.not_ready().await;
    keep_port(shown, worker).await;
    world.node.start_again();
    world.stage.reconnect().await;
    worker.ready().await;
    world.server.kill();
    let command = planted("ledger", "dora@test");
    world.stage.broker.publish(traced(&command)).await;
    worker.without_ledger().await;
    keep_port(shown, worker).await;
    world.server.start_again();
    keep_event(shown, &world.stage.events.of("ledger").await);
    worker.ready().await;
}

/// A configuration with a fault beside each secret.
async fn wrong_configuration(world: &World, shown: &mut Shown) {
    let path = world.stage.path("wrong.toml");
    let mut settings = world.settings();
    settings
        .set("amqp.url", format!("http://planted:{AMQP_PASSWORD}@127.0.0.1:x"))
        .set("ledger.url", format!("postgres://kf:{LEDGER_PASSWORD}@127.0.0.1:notaport/kf"))
        .set("traces.authorization", format!("{AUTHORIZATION}\u{e9}"))
        .set("traces.otlp_url", format!("http://planted:{PLANTED}@collector:4318"))
        .set("wechat.base_url", format!("ftp://{PLANTED}@api"));
    settings.official_accounts = settings.official_accounts.replace("token_headers = [\"x-api-key: ", "token_headers = [\"");
    std::fs::write(&path, settings.text()).expect("the file can be written");
    for arguments in [&["check"][..], &["run"], &["--log-format", "json", "run"]] {
        let output = kf_worker().args(arguments).arg("--config").arg(&path).output().await.expect("the program runs");
        assert_eq!(output.status.code(), Some(78));
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(told.contains("amqp.url") && told.contains("traces.authorization") && told.contains("token_headers"), "{told}");
        shown.push(("a wrong configuration", told));
    }
}

/// Everything of an event but the two fields that give back what the producer gave.
fn keep_event(shown: &mut Shown, event: &Received) {
    let mut body = event.json.clone();
    for name in ["nickname", "meta"] {
        body["data"].as_object_mut().expect("an event has data").remove(name);
    }
    shown.push(("an event", format!("{body} {} {}", event.routing_key, beside(event))));
}

/// What stands beside a message's body. Headers are shown as bytes among the properties, so they are read by themselves.
fn beside(message: &Received) -> String {
    format!("{:?} {:?}", message.headers(), message.properties)
}

async fn keep_port(shown: &mut Shown, worker: &Worker) {
    for path in ["/metrics", "/readyz", "/livez", "/"] {
        let (_, text) = worker.get(path).await.expect("the worker answers");
        shown.push(("the admin port", text));
    }
}

/// The whole run. Gives the worker's log.
async fn run_of_faults(environment: &[(&str, &str)]) -> String {
    let mut world = World::new().await;
    let mut settings = world.settings();
    for (name, value) in environment {
        settings.env(name, value);
    }
    let mut shown = Shown::new();
    let mut worker = world.stage.worker_with(&settings).await;
    bad_commands(&mut world, &mut shown, &worker).await;
    refused_messages(&mut world, &mut shown).await;
    outages(&mut world, &mut shown, &mut worker).await;
    wrong_configuration(&world, &mut shown).await;
    keep_port(&mut shown, &worker).await;
    let mut dead = world.stage.broker.dead().await;
    let letters = dead.rest().await;
    assert!(letters.len() >= 4, "a failed one, an unknown one and two broken ones: {letters:?}");
    shown.extend(letters.iter().map(|letter| ("a dead letter", beside(letter))));
    worker.signal("TERM").await;
    assert_eq!(worker.exit_code().await, Some(0));
    let log = worker.log();
    shown.push(("the log", log.clone()));
    let exported = world.collector.exports().into_iter().map(|export| String::from_utf8_lossy(&export.body).into_owned());
    shown.extend(exported.map(|body| ("exported spans", body)));

    assert_was_planted(&world, &shown);
    for secret in world.secrets().into_iter().flat_map(forms) {
        for (place, text) in &shown {
            let found = text.find(&secret).map(|at| text[..at + secret.len()].chars().rev().take(300).collect::<String>());
            let found = found.map(|reversed| reversed.chars().rev().collect::<String>());
            assert_eq!(found, None, "`{secret}` is shown by {place}");
        }
    }
    log
}

/// A text as it is, and as whoever shows bytes shows them.
fn forms(secret: String) -> [String; 2] {
    let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    [secret, bytes.join(", ")]
}

/// What was to be hidden went where it belongs, and what is looked through is what it should be.
fn assert_was_planted(world: &World, shown: &Shown) {
    let wechat = &world.stage.wechat;
    assert!(wechat.calls(Endpoint::Add).iter().any(|call| call.body.contains(NICKNAME) && call.token.starts_with("TOKEN-wx")));
    assert!(wechat.calls(Endpoint::TokenServer).iter().any(|call| call.headers["x-api-key"].starts_with(PLANTED)));
    assert!(wechat.calls(Endpoint::AuthorizerToken).iter().any(|call| call.body.contains("REFRESH-wx")));
    assert!(world.collector.exports().iter().any(|export| export.head.contains(AUTHORIZATION)));
    for (place, words) in [
        ("the log", "refused"),
        ("an event", "nickname_refused"),
        ("the admin port", "paused: "),
        ("a dead letter", "nickname_refused"),
        ("exported spans", "anna@test"),
    ] {
        assert!(shown.iter().any(|(where_, text)| *where_ == place && text.contains(words)), "{place} tells of {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_faults_shows_no_secret_in_text() {
    let log = run_of_faults(&[("RUST_LOG", "trace")]).await;
    assert!(log.contains(" DEBUG ") && log.contains("an attempt has failed"), "everything that can be logged was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_faults_shows_no_secret_in_json() {
    let log = run_of_faults(&[("RUST_LOG", "trace"), ("KF_LOG_FORMAT", "json")]).await;
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}
