//! An OTLP collector that keeps what it is sent, hangs, or refuses, as a test wants it.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;

/// What the collector does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes it.
    Usual,
    /// Reads it and never answers.
    Hangs,
}

/// One request: its head as text, its body as bytes.
#[derive(Debug, Clone)]
pub struct Export {
    pub head: String,
    pub body: Vec<u8>,
}

/// The collector; it ends with this value.
pub struct Collector {
    url: String,
    exports: Arc<Mutex<Vec<Export>>>,
    server: JoinHandle<()>,
}

impl Collector {
    /// Starts a collector on a port of its own.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let exports: Arc<Mutex<Vec<Export>>> = Arc::default();
        let server = tokio::spawn(serve(listener, manner, exports.clone()));
        Self { url, exports, server }
    }

    /// Its address, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Everything that it was sent so far.
    pub fn exports(&self) -> Vec<Export> {
        self.exports.lock().expect("nobody panics while holding it").clone()
    }

    /// Every span that it was sent so far.
    pub fn spans(&self) -> Vec<Span> {
        let read = |export: &Export| ExportTraceServiceRequest::decode(export.body.as_slice()).expect("OTLP in protobuf");
        let of_resources = self.exports().iter().map(read).flat_map(|request| request.resource_spans).collect::<Vec<_>>();
        of_resources.into_iter().flat_map(|of_resource| of_resource.scope_spans).flat_map(|of_scope| of_scope.spans).collect()
    }

    /// Waits until so many spans of a name and an account have come, and gives them in the order in which they began.
    pub async fn spans_of(&self, trace: &str, count: usize) -> Vec<Span> {
        let enough = async || {
            let of_trace: Vec<Span> = self.spans().into_iter().filter(|span| hex(&span.trace_id) == trace).collect();
            (of_trace.len() >= count).then_some(of_trace)
        };
        let mut spans = eventually("the spans of the trace are exported", enough).await;
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An attribute as text; nothing where the span has none of this name.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found {
        KeyValue { value: Some(AnyValue { value: Some(value) }), .. } => match value {
            Value::StringValue(text) => Some(text.clone()),
            Value::IntValue(number) => Some(number.to_string()),
            other => panic!("{name} is {other:?}"),
        },
        _ => None,
    }
}

/// An id as it is written in headers.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn serve(listener: TcpListener, manner: Manner, exports: Arc<Mutex<Vec<Export>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, manner, exports.clone()));
    }
}

/// One kept-alive connection.
async fn connection(mut stream: TcpStream, manner: Manner, exports: Arc<Mutex<Vec<Export>>>) {
    while let Some(export) = read(&mut stream).await {
        exports.lock().expect("nobody panics while holding it").push(export);
        match manner {
            Manner::Usual if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_ok() => {}
            Manner::Usual => return,
            Manner::Hangs => std::future::pending().await,
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Export> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(head_end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())?;
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Export { head, body })
}
