//! A producer that writes AMQP by hand: it sends what no client library lets anybody send.

use std::collections::BTreeMap;

use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{DEADLINE, rabbitmq};

/// The broker's own limit of a frame, unless it is configured otherwise.
const FRAME_MAX: u32 = 131_072;
/// So many bytes of properties fit into a frame, at most.
pub const MOST_PROPERTIES: usize = FRAME_MAX as usize - FRAME_OVERHEAD - 12;
/// What a frame needs besides its payload.
const FRAME_OVERHEAD: usize = 8;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
/// Basic, the class of messages.
const BASIC: u16 = 60;

/// One connection with one channel, which confirms.
pub struct RawProducer {
    stream: TcpStream,
}

impl RawProducer {
    /// Connects to the broker of the test run.
    pub async fn connect() -> Self {
        let uri: AMQPUri = rabbitmq::url().parse().expect("the broker's URL");
        let stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP connection");
        let mut producer = Self { stream };
        producer.write(b"AMQP\0\0\x09\x01").await;
        producer.expect((10, 10)).await;
        let login = format!("\0{}\0{}", uri.authority.userinfo.username, uri.authority.userinfo.password);
        producer.method(0, (10, 11), &[&long(b"")[..], &short(b"PLAIN"), &long(login.as_bytes()), &short(b"en_US")].concat()).await;
        producer.expect((10, 30)).await;
        let tuned = [&1_u16.to_be_bytes()[..], &FRAME_MAX.to_be_bytes(), &0_u16.to_be_bytes()].concat();
        producer.method(0, (10, 31), &tuned).await;
        producer.method(0, (10, 40), &[&short(uri.vhost.as_bytes())[..], &[0, 0]].concat()).await;
        producer.expect((10, 41)).await;
        producer.method(1, (20, 10), &[0]).await;
        producer.expect((20, 11)).await;
        producer.method(1, (85, 10), &[0]).await;
        producer.expect((85, 11)).await;
        producer
    }

    /// Publishes a message and waits until the broker has confirmed it.
    pub async fn publish(&mut self, exchange: &str, routing_key: &str, properties: &Properties, body: &[u8]) {
        let publish = [&[0, 60, 0, 40, 0, 0][..], &short(exchange.as_bytes()), &short(routing_key.as_bytes()), &[0]].concat();
        let size = (body.len() as u64).to_be_bytes();
        let mut frames = frame(METHOD, 1, &publish);
        frames.extend(frame(HEADER, 1, &[&[0, 60, 0, 0][..], &size, &properties.bytes()].concat()));
        frames.extend(body.chunks(FRAME_MAX as usize - FRAME_OVERHEAD).flat_map(|piece| frame(BODY, 1, piece)));
        self.write(&frames).await;
        self.expect((BASIC, 80)).await;
    }

    async fn method(&mut self, channel: u16, (class, method): (u16, u16), arguments: &[u8]) {
        self.write(&frame(METHOD, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker reads");
    }

    /// Waits for a method of the broker's, which must be this one.
    async fn expect(&mut self, wanted: (u16, u16)) {
        let next = async {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).await.expect("the connection lives");
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
            let mut payload = vec![0; length as usize + 1];
            self.stream.read_exact(&mut payload).await.expect("the connection lives");
            payload
        };
        let payload = timeout(DEADLINE, next).await.expect("the broker answers in time");
        let found = (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
        assert_eq!(found, wanted, "{}", String::from_utf8_lossy(&payload));
    }
}

/// A message's properties, any bytes in them.
#[derive(Clone, Default)]
pub struct Properties {
    /// By their place in the list that AMQP gives.
    fields: BTreeMap<u8, Vec<u8>>,
    /// The entries of the table of headers.
    headers: Vec<u8>,
}

impl Properties {
    pub fn correlation_id(self, text: &[u8]) -> Self {
        self.text(5, text)
    }

    pub fn reply_to(self, text: &[u8]) -> Self {
        self.text(6, text)
    }

    pub fn message_id(self, text: &[u8]) -> Self {
        self.text(8, text)
    }

    pub fn timestamp(mut self, second: u64) -> Self {
        self.fields.insert(9, second.to_be_bytes().to_vec());
        self
    }

    /// One of the properties that are texts, by its place.
    pub fn text(mut self, place: u8, text: &[u8]) -> Self {
        self.fields.insert(place, short(text));
        self
    }

    /// A header that is a text.
    pub fn header(self, name: &[u8], text: &[u8]) -> Self {
        self.typed_header(name, b'S', &long(text))
    }

    /// A header of any type: its letter and its bytes.
    pub fn typed_header(mut self, name: &[u8], kind: u8, value: &[u8]) -> Self {
        self.headers.extend([&short(name)[..], &[kind], value].concat());
        self
    }

    /// With one more header, so that all of them together have so many bytes.
    pub fn filled(self, size: usize) -> Self {
        let with_nothing = self.clone().header(b"filler", b"").bytes().len();
        self.header(b"filler", &vec![b'x'; size - with_nothing])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        // Persistent.
        fields.insert(3, vec![2]);
        if !self.headers.is_empty() {
            fields.insert(2, long(&self.headers));
        }
        let flags = fields.keys().fold(0_u16, |flags, place| flags | 1 << (15 - place));
        flags.to_be_bytes().into_iter().chain(fields.into_values().flatten()).collect()
    }
}

/// The value of a header: tables (`F`) or arrays (`A`) in one another, so many.
pub fn nested(kind: u8, levels: usize) -> Vec<u8> {
    // An entry of a table has a name, here one of no letters. Each length counts all that is within.
    let before: &[u8] = if kind == b'F' { &[0, b'F'] } else { b"A" };
    let entry = before.len() + 4;
    let lengths = (0..levels).rev().map(|within| u32::try_from(within * entry).expect("not that many").to_be_bytes());
    let mut bytes = lengths.flat_map(|length| [&length[..], before].concat()).collect::<Vec<_>>();
    bytes.truncate(bytes.len() - before.len());
    bytes
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    [&[kind][..], &channel.to_be_bytes(), &length.to_be_bytes(), payload, &[FRAME_END]].concat()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short text")][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("not that long").to_be_bytes()[..], bytes].concat()
}
