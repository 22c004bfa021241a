//! A TLS front before a plain server: it shows the certificate that a test gives it, and passes bytes on once its client has believed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::Certificate;

/// The front; it ends with this value.
pub struct Front {
    port: u16,
    shown: watch::Sender<Arc<ServerConfig>>,
    /// How many clients have believed the certificate: only they can have sent anything.
    believed: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Front {
    /// A front before this host and port.
    pub async fn before(target: &str, certificate: &Certificate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shown = watch::Sender::new(config(certificate));
        let believed = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(serve(listener, target.to_owned(), shown.clone(), Arc::clone(&believed)));
        Self { port, shown, believed, server }
    }

    /// The host that its good certificate is for, and its port.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Cuts every connection, and shows this certificate from now on.
    pub fn show(&self, certificate: &Certificate) {
        self.shown.send_replace(config(certificate));
    }

    /// How many connections have begun whose client believed the certificate.
    pub fn believed(&self) -> usize {
        self.believed.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn config(certificate: &Certificate) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate.pem.as_bytes()).collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("ring knows TLS");
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("they belong together"))
}

async fn serve(listener: TcpListener, target: String, shown: watch::Sender<Arc<ServerConfig>>, believed: Arc<AtomicUsize>) {
    // Connections end with the front: dropping the set aborts them.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (target, believed, mut shown) = (target.clone(), Arc::clone(&believed), shown.subscribe());
        connections.spawn(async move {
            let config = Arc::clone(&shown.borrow_and_update());
            tokio::select! {
                () = connection(client, &target, config, &believed) => {}
                // The sender lives as long as the front does.
                _ = shown.changed() => {}
            }
        });
    }
}

async fn connection(client: TcpStream, target: &str, config: Arc<ServerConfig>, believed: &AtomicUsize) {
    // A client that doesn't believe the certificate ends the handshake here.
    let Ok(mut client) = TlsAcceptor::from(config).accept(client).await else { return };
    believed.fetch_add(1, Ordering::SeqCst);
    if let Ok(mut server) = TcpStream::connect(target).await {
        // However it ends, both sides are closed then.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
