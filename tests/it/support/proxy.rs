//! A TCP proxy before the broker that can withhold what the worker sends on its connections of one kind, or cut them all.

use std::collections::HashSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::rabbitmq;

/// The worker's connections, told apart by the name that they give the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Consume,
    Publish,
}

/// What the proxy does with what passes through it.
#[derive(Debug, Clone, Default)]
struct Rules {
    /// Connections whose bytes to the broker are kept back.
    withheld: HashSet<Role>,
    /// Nothing passes in either direction, and nobody is told.
    silent: bool,
    /// Grows with every cut; a connection lives within one generation.
    generation: u64,
}

/// The proxy; it ends with this value.
pub struct Proxy {
    /// The broker's URL with the proxy's address in it.
    url: String,
    rules: watch::Sender<Rules>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the broker of the test run.
    pub async fn start() -> Self {
        Self::before(rabbitmq::url()).await
    }

    /// A proxy before the broker with this URL.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (before, broker, after) = split_url(url);
        let url = format!("{before}{address}{after}");
        let rules = watch::Sender::new(Rules::default());
        let server = tokio::spawn(serve(listener, broker, rules.clone()));
        Self { url, rules, server }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on the broker gets nothing that this connection sends; what the broker sends still arrives.
    pub fn withhold(&self, role: Role) {
        self.rules.send_modify(|rules| {
            rules.withheld.insert(role);
        });
    }

    /// From now on nothing passes in either direction, while connections stay open and new ones are taken.
    pub fn fall_silent(&self) {
        self.rules.send_modify(|rules| rules.silent = true);
    }

    /// Cuts every connection, throws away what was kept back, and lets new connections pass freely.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| *rules = Rules { generation: rules.generation + 1, ..Rules::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What stands before the host, `host:port`, and what stands after it. Only `amqp://` can be proxied: TLS hides the names.
fn split_url(url: &str) -> (String, String, String) {
    let rest = url.strip_prefix("amqp://").expect("these tests need a broker without TLS");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host_at = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, host) = authority.split_at(host_at);
    let broker = if host.contains(':') { host.to_owned() } else { format!("{host}:5672") };
    (format!("amqp://{user}"), broker, path.to_owned())
}

async fn serve(listener: TcpListener, broker: String, rules: watch::Sender<Rules>) {
    // Connections end with the proxy: dropping the set aborts them.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let rules = rules.subscribe();
        if let Ok(server) = TcpStream::connect(&broker).await {
            connections.spawn(connection(client, server, rules));
        }
    }
}

async fn connection(client: TcpStream, server: TcpStream, rules: watch::Receiver<Rules>) {
    let mut cut = rules.clone();
    let generation = cut.borrow().generation;
    // What was kept back must not slip through as the cut lifts the rules.
    let lives = move |rules: &Rules| !rules.silent && rules.generation == generation;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = upstream(from_client, to_server, rules.clone(), lives) => {}
        () = downstream(from_server, to_client, rules, lives) => {}
        // The sender lives as long as the proxy does.
        _ = cut.wait_for(|rules| rules.generation != generation) => {}
    }
}

/// Passes on what the worker sends, except while the rules keep it back.
async fn upstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rules: watch::Receiver<Rules>, lives: impl Fn(&Rules) -> bool) {
    let mut greeting = Vec::new();
    let mut role = None;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
        if role.is_none() && greeting.len() < 16 * 1024 {
            greeting.extend_from_slice(&chunk[..length]);
            role = role_in(&greeting);
        }
        let passes = |rules: &Rules| lives(rules) && role.is_none_or(|role| !rules.withheld.contains(&role));
        if rules.wait_for(passes).await.is_err() || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

/// Passes on what the broker sends, except in silence.
async fn downstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rules: watch::Receiver<Rules>, lives: impl Fn(&Rules) -> bool) {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
        if rules.wait_for(&lives).await.is_err() || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

/// The client property `connection_name`, as Connection.StartOk carries it: `S`, four bytes of length, the text.
fn role_in(greeting: &[u8]) -> Option<Role> {
    const KEY: &[u8] = b"connection_nameS";
    let at = greeting.windows(KEY.len()).position(|bytes| bytes == KEY)? + KEY.len();
    let length = u32::from_be_bytes(greeting.get(at..at + 4)?.try_into().ok()?);
    let name = greeting.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    let name = String::from_utf8_lossy(name);
    let roles = [("consume", Role::Consume), ("publish", Role::Publish)];
    roles.into_iter().find(|(word, _)| name.contains(word)).map(|(_, role)| role)
}
