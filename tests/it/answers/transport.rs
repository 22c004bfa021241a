//! What breaks between the worker and WeChat: hosts that can't be reached, and answers that never come.

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::stage::{Stage, add, delete};
use crate::support::wechat::{Answer, Endpoint};

/// A way to WeChat that a test can close: then nothing listens there any more.
struct Gate {
    url: String,
    close: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Gate {
    /// A gate before this `http://` host.
    async fn open(to: &str) -> Self {
        let to = to.strip_prefix("http://").expect("an http:// address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (close, closed) = oneshot::channel();
        Self { url, close, server: tokio::spawn(pass(listener, to, closed)) }
    }

    /// Cuts every connection and takes no other; it is so when this ends.
    async fn close(self) {
        self.close.send(()).expect("the gate is open");
        self.server.await.expect("the gate doesn't break");
    }
}

async fn pass(listener: TcpListener, to: String, mut closed: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            client = listener.accept() => {
                let (mut client, _) = client.expect("the listener lives");
                let mut server = TcpStream::connect(&to).await.expect("WeChat listens");
                // However it ends, both sides are closed.
                connections.spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await.ok() });
            }
            _ = &mut closed => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_reached_has_done_nothing_and_the_next_one_is_asked() {
    let mut stage = Stage::new().await;
    let wechat = stage.wechat.base_url();
    let (gate, second_gate) = (Gate::open(&wechat).await, Gate::open(&wechat).await);
    // A name that nobody has, a host that speaks no TLS, and a port on which nobody listens.
    let no_tls = wechat.replace("http:", "https:");
    let others = [&no_tls, "http://127.0.0.1:9", &gate.url, &second_gate.url, &wechat];
    let mut settings = stage.settings();
    settings.set("wechat.base_url", "https://wechat.invalid").set("wechat.fallback_urls", json!(others));
    let worker = stage.worker_with(&settings).await;
    let event = stage.outcome(&add("c1", "anna@test", "安娜")).await;
    event.assert_succeeded("created");
    assert_eq!(event.attempts(), 1, "only tokens were asked for in vain");
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 1);

    // The wanted state holds, and it is known that an attempt which reached nobody has not made it so.
    gate.close().await;
    stage.wechat.put("ben@test");
    let event = stage.outcome(&add("c2", "ben@test", "本")).await;
    event.assert_succeeded("none");
    assert_eq!(event.attempts(), 2, "a failed connect counts");

    second_gate.close().await;
    let event = stage.outcome(&delete("c3", "carl@test")).await;
    event.assert_succeeded("none");
    assert_eq!(event.attempts(), 2);
    assert_eq!(stage.wechat.journal().len(), 3);
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_in_time_is_asked_for_again() {
    let mut stage = Stage::with_official_accounts(&["add", "delete", "token"]).await;
    let mut settings = stage.settings();
    settings.set("wechat.request_timeout", "2s");
    let app_id = &stage.wechat.official_accounts()[2].app_id;
    stage.wechat.next(Endpoint::Add, Some("anna@add"), Answer::Silence);
    stage.wechat.next(Endpoint::Delete, Some("ben@delete"), Answer::Silence);
    stage.wechat.next(Endpoint::StableToken, Some(app_id), Answer::Silence);
    stage.wechat.put("ben@delete");
    let worker = stage.worker_with(&settings).await;
    let commands = [add("c1", "anna@add", "安娜"), delete("c2", "ben@delete"), add("c3", "carl@token", "卡尔")];
    for command in &commands {
        stage.send(command).await;
    }
    for (command_id, effect, attempts) in [("c1", "unknown", 2), ("c2", "unknown", 2), ("c3", "created", 1)] {
        let event = stage.events.of(command_id).await;
        event.assert_succeeded(effect);
        assert_eq!(event.attempts(), attempts, "{command_id}");
    }
    assert_eq!(stage.wechat.calls(Endpoint::StableToken).len(), 4, "one in vain");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
