//! Connections that can be cut in the middle of a call, so that the caller sees an end or a reset and no answer.
//!
//! axum has no handler that answers nothing. So each connection has a switch that its handlers can reach; once
//! it is thrown, the first write of the answer fails and the server drops the connection.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

const WHOLE: u8 = 0;
const CLOSE: u8 = 1;
const RESET: u8 = 2;

/// The switch of one connection.
#[derive(Clone)]
pub(super) struct Connection(Arc<AtomicU8>);

/// How the caller sees a connection end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// An orderly end of the stream.
    Close,
    /// "Connection reset by peer".
    Reset,
}

impl Connection {
    /// Ends the connection as soon as something is to be written to it.
    pub fn cut(&self, cut: Cut) {
        let switch = match cut {
            Cut::Close => CLOSE,
            Cut::Reset => RESET,
        };
        self.0.store(switch, Ordering::Release);
    }
}

/// Accepts connections that have a switch.
pub(super) struct Listener(pub TcpListener);

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (tcp, address) = axum::serve::Listener::accept(&mut self.0).await;
        // Without it an answer may wait for the caller's acknowledgement; if it can't be set, it is only slower.
        let _ = tcp.set_nodelay(true);
        let connection = Connection(Arc::new(AtomicU8::new(WHOLE)));
        (Stream { tcp, connection }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().connection.clone()
    }
}

/// A TCP stream with its switch.
pub(super) struct Stream {
    tcp: TcpStream,
    connection: Connection,
}

impl Stream {
    /// Fails once the switch is thrown.
    fn still_whole(&self) -> io::Result<()> {
        match self.connection.0.load(Ordering::Acquire) {
            WHOLE => return Ok(()),
            // The reset is sent when the stream is dropped; where it can't be asked for, the caller sees an end.
            RESET => drop(self.tcp.set_zero_linger()),
            _ => {}
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.still_whole()?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.still_whole()?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
