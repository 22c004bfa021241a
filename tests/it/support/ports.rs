//! Ports for the servers of tests.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port on which nobody listens, below the range from which outgoing connections take theirs, so that it stays free while its
/// server is down; and above those that `deploy/private-rabbitmq.sh` takes. A process is given each of them once.
pub fn free_port() -> u16 {
    static DRAWN: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    loop {
        let port = 20_000 + DRAWN.fetch_add(1, Ordering::Relaxed) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
