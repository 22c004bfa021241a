//! The scripted WeChat's HTTP, by hand: a test must be able to drop a connection instead of answering, and to see that a caller hung up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::state::{Then, error_body};
use super::{Answer, Endpoint, Piece, Shared};

/// The first byte of a caller that speaks TLS, which nobody does here.
const TLS_HANDSHAKE: u8 = 0x16;

/// Far within any limit of time for one byte, and far beyond it for all of them.
const DRIP: std::time::Duration = std::time::Duration::from_millis(200);

/// Ends a call in the journal however its connection ends.
struct InFlight {
    shared: Arc<Shared>,
    call: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.state().end(self.call);
        self.shared.changed.send_replace(());
    }
}

/// Takes connections until it is aborted.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the server: dropping the set aborts them.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, shared.clone()));
    }
}

/// One kept-alive connection: requests one after the other until one side closes it.
async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = Request::read(&mut stream).await {
        let Some(endpoint) = request.endpoint() else {
            shared.state().strays.push(format!("{} {}", request.method, request.path));
            let _ = stream.write_all(&request.response(404, "")).await;
            return;
        };
        let call = shared.state().begin(endpoint, &request);
        let in_flight = InFlight { shared: shared.clone(), call };
        shared.changed.send_replace(());
        let mut one_byte = [0];
        let answer = tokio::select! {
            answer = answer(endpoint, &request, &shared) => answer,
            // Nothing more is sent before the answer, so that a readable stream means a caller who hung up.
            _ = stream.peek(&mut one_byte) => return,
        };
        drop(in_flight);
        let written = match answer {
            Some(Said::Answer(answer)) => stream.write_all(&answer).await,
            Some(Said::Pieces(pieces)) => return write_pieces(&mut stream, &pieces).await,
            None => return,
        };
        if written.is_err() {
            return;
        }
    }
}

/// What is said to a caller.
enum Said {
    Answer(Vec<u8>),
    /// After these the connection is closed.
    Pieces(Vec<Piece>),
}

/// Writes until the end, or until the caller has heard enough.
async fn write_pieces(stream: &mut TcpStream, pieces: &[Piece]) {
    for piece in pieces {
        match piece {
            Piece::Once(bytes) => {
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Piece::Endless(bytes) => while stream.write_all(bytes).await.is_ok() {},
            Piece::Drip => {
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(DRIP).await;
                }
            }
        }
    }
    // Nobody ends the connection while there is something unread in it, which would take back what was written.
    let _ = stream.shutdown().await;
}

/// What to say; nothing where the connection is to be closed instead.
async fn answer(endpoint: Endpoint, request: &Request, shared: &Shared) -> Option<Said> {
    let (account, scripted) = {
        let mut state = shared.state();
        let account = state.account(endpoint, request);
        let scripted = state.scripted(endpoint, &account);
        (account, scripted)
    };
    let answer = match scripted {
        None => Answer::Usual,
        Some(Then::Once(answer) | Then::Always(answer)) => answer,
        Some(Then::Hold { arrived, release }) => {
            // Nobody listens where the test no longer cares.
            let _ = arrived.send(account);
            release.await.ok()?
        }
    };
    let bytes = match answer {
        Answer::Wire(pieces) => return Some(Said::Pieces(pieces)),
        Answer::Usual => {
            let (status, body) = shared.state().usual(endpoint, request);
            request.response(status, &body.to_string())
        }
        Answer::Errcode(errcode) => request.response(200, &error_body(errcode).to_string()),
        Answer::EndToken(errcode) => {
            shared.state().end_token_of(endpoint, request);
            request.response(200, &error_body(errcode).to_string())
        }
        Answer::Http(status) => request.response(status, ""),
        Answer::Body(body) => request.response(200, &body),
        Answer::Lose => {
            shared.state().usual(endpoint, request);
            return None;
        }
        Answer::Silence => {
            shared.state().usual(endpoint, request);
            std::future::pending().await
        }
    };
    Some(Said::Answer(bytes))
}

/// What the worker asked.
pub struct Request {
    method: String,
    /// Path and query as they were sent.
    target: String,
    pub path: String,
    pub query: HashMap<String, String>,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
    pub text: String,
    /// The text as JSON; null where it is none.
    pub body: Value,
}

impl Request {
    /// The next request; `None` at the end of the connection.
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 || bytes[0] == TLS_HANDSHAKE {
                return None;
            }
        };
        let mut body = bytes.split_off(head_end + 4);
        let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let headers: BTreeMap<String, String> = headers.collect();
        let length: usize = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), read_query(query));
        let text = String::from_utf8_lossy(&body).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Some(Self { method, target, path, query, headers, text, body })
    }

    fn endpoint(&self) -> Option<Endpoint> {
        match (self.method.as_str(), self.path.as_str()) {
            ("POST", "/cgi-bin/stable_token") => Some(Endpoint::StableToken),
            ("GET", "/cgi-bin/token") => Some(Endpoint::Token),
            ("POST", "/cgi-bin/component/api_component_token") => Some(Endpoint::ComponentToken),
            ("POST", "/cgi-bin/component/api_authorizer_token") => Some(Endpoint::AuthorizerToken),
            ("GET", path) if path.starts_with("/token-server/") => Some(Endpoint::TokenServer),
            ("POST", "/customservice/kfaccount/add") => Some(Endpoint::Add),
            ("POST", "/customservice/kfaccount/del") => Some(Endpoint::Delete),
            ("GET", "/cgi-bin/customservice/getkflist") => Some(Endpoint::List),
            _ => None,
        }
    }

    /// The token that the call carries, or nothing.
    pub fn access_token(&self) -> &str {
        self.query.get("access_token").map_or("", String::as_str)
    }

    /// WeChat says `text/plain` of its JSON more often than not. A redirection leads back here, so that a caller who
    /// follows it is seen.
    fn response(&self, status: u16, body: &str) -> Vec<u8> {
        let length = body.len();
        let location = if (300..400).contains(&status) { format!("Location: {}\r\n", self.target) } else { String::new() };
        let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Type: text/plain\r\n{location}Content-Length: {length}\r\n\r\n");
        (head + body).into_bytes()
    }
}

fn read_query(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = pairs.map(|(name, value)| {
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        (name.to_owned(), value)
    });
    decoded.collect()
}
