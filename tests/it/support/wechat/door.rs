//! Another address of the scripted WeChat, as WeChat's API has several hosts.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Shared, wire};

/// An address at which the same WeChat answers, until this is dropped.
pub struct Door {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Door {
    pub(super) async fn open(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        Self { address, server: tokio::spawn(wire::serve(listener, shared)) }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.server.abort();
    }
}
