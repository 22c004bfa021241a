//! Stands between the broker and the client, which gives up a connection over one message whose properties it can't read.
//!
//! The message would come again and end the next connection likewise, for ever. So such properties never reach the client: what
//! can be read of them does, with a header that says why the rest does not.

mod content_header;
mod frames;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream, TryFutureExt as _};
use lapin::tcp::AsyncTcpStream;

pub use content_header::{UNREADABLE, is_brokers_own};
use frames::Frames;

/// The client's runtime, whose connections are guarded.
pub type GuardedRuntime = Runtime<RuntimeParts<Tokio, Guard>>;
/// A connection, encrypted or not, before it is guarded.
pub type Unguarded = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// So much is read at once.
const CHUNK: usize = 64 * 1024;

/// The client's runtime, here.
pub fn runtime() -> GuardedRuntime {
    Runtime::new(RuntimeParts::new(Tokio::current(), Guard(Tokio::current())))
}

/// Makes connections that are guarded.
#[derive(Debug, Clone)]
pub struct Guard(Tokio);

impl Reactor for Guard {
    type TcpStream = Guarded;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        self.0.tcp_connect_addr(address).map_ok(|stream| Guarded::new(AsyncTcpStream::Plain(stream), None))
    }
}

/// A connection whose messages the client can read.
pub struct Guarded {
    stream: Unguarded,
    frames: Frames,
    chunk: Box<[u8]>,
}

impl Guarded {
    /// Guards a connection for which a frame may have at most so many bytes, where that is asked for.
    pub fn new(stream: Unguarded, frame_max: Option<u32>) -> Self {
        Self { stream, frames: Frames::new(frame_max), chunk: vec![0; CHUNK].into() }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { stream, frames, chunk } = &mut *self;
        loop {
            match frames.give(buffer) {
                0 => {}
                given => return Poll::Ready(Ok(given)),
            }
            match ready!(Pin::new(&mut *stream).poll_read(context, chunk))? {
                0 => return Poll::Ready(Ok(0)),
                read => frames.take(&chunk[..read])?,
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
