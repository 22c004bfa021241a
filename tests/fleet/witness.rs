//! A witness between the workers and WeChat: each worker has a door of its own, and every call for a kf account is noted with
//! its worker, its begin and its end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::eventually;

/// Calls that are many to be in flight at one worker.
const MANY: usize = 3;
/// None of those that began earlier than so many others is in flight still.
const RECENT: usize = 1_000;

/// One call for a kf account.
#[derive(Debug, Clone)]
pub struct Call {
    /// The number of the worker whose door it came through.
    pub worker: usize,
    pub kf_account: String,
    pub is_add: bool,
    /// Nothing for a delete.
    pub nickname: String,
    /// When it had come whole, since 1970.
    pub begun: Duration,
    /// When WeChat had answered.
    pub ended: Option<Duration>,
}

/// Notes what passes.
pub struct Witness {
    wechat: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// The time since 1970, as the worker and the ledger tell it too.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970")
}

impl Witness {
    /// Before WeChat at this address.
    pub fn new(wechat: SocketAddr) -> Self {
        Self { wechat, calls: Arc::default() }
    }

    /// Opens a door for a worker and gives its address.
    pub async fn door(&self, worker: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (wechat, calls) = (self.wechat, Arc::clone(&self.calls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let passage = Passage { worker, wechat, calls: Arc::clone(&calls) };
                // A worker that dies breaks its connections off.
                tokio::spawn(async move { passage.serve(stream).await.ok() });
            }
        });
        address
    }

    /// Waits until a worker has some calls in flight.
    pub async fn many_in_flight(&self, worker: usize) {
        let some = async || {
            let calls = self.calls.lock().expect("nobody panics here");
            let in_flight = calls.iter().rev().take(RECENT).filter(|call| call.worker == worker && call.ended.is_none()).count();
            (in_flight >= MANY).then_some(())
        };
        eventually("a worker has many calls in flight", some).await;
    }

    /// All calls so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("nobody panics here").clone()
    }
}

/// One connection of a worker's, and the one behind it.
struct Passage {
    worker: usize,
    wechat: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Passage {
    async fn serve(self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let wechat = TcpStream::connect(self.wechat).await?;
        wechat.set_nodelay(true)?;
        let (mut caller, mut wechat) = (BufReader::new(stream), BufReader::new(wechat));
        while let Some((request, body)) = message(&mut caller).await? {
            let noted = self.note(&request, body);
            wechat.write_all(&request).await?;
            // Whether the caller is still there or not: what was sent to WeChat happens.
            let answer = message(&mut wechat).await?;
            if let Some(noted) = noted {
                self.calls.lock().expect("nobody panics here")[noted].ended = Some(now());
            }
            let Some((answer, _)) = answer else { return Ok(()) };
            caller.write_all(&answer).await?;
        }
        Ok(())
    }

    /// Notes a call for a kf account; gives its place.
    fn note(&self, request: &[u8], body: usize) -> Option<usize> {
        let is_add = match request.split(|byte| *byte == b'?').next()? {
            b"POST /customservice/kfaccount/add" => true,
            b"POST /customservice/kfaccount/del" => false,
            _ => return None,
        };
        let body: Value = serde_json::from_slice(&request[body..]).ok()?;
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let mut calls = self.calls.lock().expect("nobody panics here");
        let (kf_account, nickname) = (text("kf_account"), text("nickname"));
        calls.push(Call { worker: self.worker, kf_account, is_add, nickname, begun: now(), ended: None });
        Some(calls.len() - 1)
    }
}

/// Reads one message of HTTP/1.1 whole, and tells where its body begins; nothing at the end of the stream.
async fn message(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<(Vec<u8>, usize)>> {
    let mut message = Vec::new();
    let mut length = 0;
    loop {
        let line_at = message.len();
        if stream.read_until(b'\n', &mut message).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&message[line_at..]).to_ascii_lowercase();
        if let Some(told) = line.strip_prefix("content-length:") {
            length = told.trim().parse().unwrap_or_default();
        }
        if line == "\r\n" {
            break;
        }
    }
    let body = message.len();
    message.resize(body + length, 0);
    stream.read_exact(&mut message[body..]).await?;
    Ok(Some((message, body)))
}
