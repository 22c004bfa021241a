//! One session with the broker after the other, for as long as the worker is wanted, and the orderly end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::{ConnectError, Deliveries, Session, Settings, Share};
use crate::ledger::{Attendance, LedgerError};
use crate::retry;
use crate::worker::Worker;

/// After so many failures in a row to connect the worker ends, so that its supervisor can start it afresh: some four
/// minutes, and more where connecting itself takes long.
pub const MOST_FAILURES: u32 = 50;
/// How often a worker says that it takes commands; the others count it out after ten seconds of silence.
const ATTENDANCE: Duration = Duration::from_secs(2);
/// How long the ledger may take to note that this worker takes no more, and to end.
const LEAVING_LEDGER: Duration = Duration::from_secs(1);
/// A session that ends sooner counts as a failure to connect.
const SHORT_SESSION: Duration = Duration::from_secs(10);

/// Why the worker does not go on.
#[derive(Debug, thiserror::Error)]
pub enum GaveUp {
    /// The broker refuses what only an operator can change.
    #[error(transparent)]
    Refused(ConnectError),
    /// The broker could not be used for long.
    #[error("the broker could not be used in {MOST_FAILURES} tries, the last time because {0}")]
    Unreachable(String),
}

/// Why there is no session.
enum NoSession {
    /// Nothing is taken that can't be recorded.
    Ledger(LedgerError),
    Broker(ConnectError),
}

/// Serves until the worker is told to shut down, or gives up; then ends what is in flight. Each session is opened with the
/// settings as they are then.
///
/// # Errors
/// Why it gave up.
pub async fn supervise(worker: &Arc<Worker>, broker: &watch::Receiver<Settings>) -> Result<(), GaveUp> {
    let url = broker.borrow().url.clone();
    if url.is_exposed() {
        tracing::warn!(broker = %url, "the connection to the broker is not encrypted: its password and nicknames are readable on the way; amqps:// in `amqp.url` makes it so");
    }
    let served = serve(worker, broker).await;
    worker.readiness.draining();
    tracing::info!("shutting down: no commands are taken, what is in flight is finished");
    let session = match &served {
        Ok(session) => session.clone(),
        Err(_) => None,
    };
    worker.drain().await;
    if let Some(session) = session {
        session.close().await;
    }
    // What is not done here the next worker does.
    let _ = tokio::time::timeout(LEAVING_LEDGER, worker.ledger.close()).await;
    tracing::info!("shut down");
    served.map(drop)
}

/// One session after the other. Answers the one in which the worker was told to shut down, if there was one.
async fn serve(worker: &Arc<Worker>, broker: &watch::Receiver<Settings>) -> Result<Option<Session>, GaveUp> {
    let mut failures = 0;
    let mut connected_before = false;
    loop {
        let settings = broker.borrow().clone();
        let opened = tokio::select! {
            () = worker.draining.cancelled() => return Ok(None),
            opened = open(worker, &settings) => opened,
        };
        let opened_at = Instant::now();
        let trouble = match opened {
            Ok((session, deliveries)) => {
                worker.metrics.broker_reconnects.inc_by(connected_before.into());
                connected_before = true;
                serve_session(worker, &session, deliveries).await;
                if worker.draining.is_cancelled() {
                    return Ok(Some(session));
                }
                end(worker, &session).await
            }
            Err(NoSession::Ledger(error)) => {
                // Not the broker's failure: however long it lasts, the worker waits for its ledger.
                failures = 0;
                error.to_string()
            }
            Err(NoSession::Broker(error)) if error.needs_an_operator() && !connected_before => return Err(GaveUp::Refused(error)),
            Err(NoSession::Broker(error)) => {
                let trouble = error.to_string();
                worker.readiness.broker_trouble(trouble.clone());
                trouble
            }
        };
        failures = if opened_at.elapsed() < SHORT_SESSION { failures + 1 } else { 1 };
        if failures >= MOST_FAILURES {
            return Err(GaveUp::Unreachable(trouble));
        }
        let wait = retry::before_reconnecting(failures);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(trouble, failures, wait_ms, "no commands can be taken; trying again");
        tokio::select! {
            () = worker.draining.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Connects, but only while the ledger works.
async fn open(worker: &Worker, broker: &Settings) -> Result<(Session, Deliveries), NoSession> {
    let proof = worker.ledger.probe().await;
    worker.readiness.ledger_trouble(proof.as_ref().err().map(ToString::to_string));
    proof.map_err(NoSession::Ledger)?;
    Session::open(broker, &worker.metrics, &worker.readiness).await.map_err(NoSession::Broker)
}

async fn serve_session(worker: &Arc<Worker>, session: &Session, deliveries: Deliveries) {
    worker.readiness.consuming(true);
    worker.metrics.broker_connected.set(1);
    tracing::info!("commands are being taken");
    tokio::select! {
        () = worker.serve(session, deliveries) => {}
        never = attend(worker, session) => match never {},
    }
    worker.metrics.broker_connected.set(0);
    worker.metrics.broker_blocked.set(0);
    worker.metrics.partitions.set(0);
    // Where that can't be said, the others find out after a while.
    let _ = tokio::time::timeout(LEAVING_LEDGER, worker.ledger.leave()).await;
}

/// Says again and again that this worker takes commands, and tells the session its place among those who do.
async fn attend(worker: &Worker, session: &Session) -> Infallible {
    loop {
        match worker.ledger.attend().await {
            Ok(Attendance { index, of }) => session.take_share(Share { index, of }),
            // Whoever needs the ledger for more than this gives the session up.
            Err(error) => tracing::debug!(%error, "the other workers can't be counted"),
        }
        tokio::time::sleep(ATTENDANCE).await;
    }
}

/// Gives up what is left of a lost session, and answers why it was lost.
async fn end(worker: &Worker, session: &Session) -> String {
    let trouble = session.why_lost();
    // Said before closing, which a silent broker draws out.
    worker.readiness.broker_trouble(trouble.clone());
    worker.readiness.consuming(false);
    session.close().await;
    trouble
}
