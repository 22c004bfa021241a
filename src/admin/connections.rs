//! Takes the port's connections: so many at once, and none of them for long, so that nobody can use up the worker's files.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// So many connections are answered at once; further ones wait in the system's own queue.
const MOST: usize = 64;
/// Who asks sends its request at once. Whoever doesn't holds a place that others wait for.
const REQUEST: Duration = Duration::from_secs(5);
/// A large answer over a slow line may take so long.
const LONGEST: Duration = Duration::from_secs(30);
/// Where the system has no connections to give, asking again at once would only use up the processor.
const REST: Duration = Duration::from_millis(100);

/// Answers until the token is cancelled. What is being answered then is answered to its end.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let next = async {
            // It is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let taken = tokio::select! {
            () = stop.cancelled() => return,
            taken = next => taken,
        };
        match taken {
            Some((place, Ok((stream, _)))) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Who breaks off or takes too long gets no answer, and is nobody's concern.
                    let _ = timeout(LONGEST, answer(stream, router)).await;
                });
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "the admin port could not take a connection");
                sleep(REST).await;
            }
            None => return,
        }
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router) -> hyper::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST).keep_alive(false);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await
}
