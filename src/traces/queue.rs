//! Ended spans on their way to the collector: a bounded queue that never keeps anybody waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spans that wait at most: some hundred commands' worth, in about two megabytes.
const MOST: usize = 2_048;
/// Spans sent at once at most.
const BATCH: usize = 512;
/// How long a span waits for others to be sent with.
const GATHERING: Duration = Duration::from_secs(1);

/// The queue's entrance.
#[derive(Debug, Clone)]
pub struct Queue {
    spans: Sender<SpanData>,
    /// Found no room, or did not reach the collector, and not told of yet.
    lost: Arc<AtomicU64>,
    /// Cancelled when nothing comes any more.
    ending: CancellationToken,
    /// The one task that sends.
    sending: TaskTracker,
}

impl Queue {
    /// Begins to send.
    pub fn start(exporter: impl SpanExporter + 'static) -> Self {
        let (spans, waiting) = mpsc::channel(MOST);
        let (lost, ending, sending) = (Arc::<AtomicU64>::default(), CancellationToken::new(), TaskTracker::new());
        sending.spawn(send_all(exporter, waiting, Arc::clone(&lost), ending.clone()));
        sending.close();
        Self { spans, lost, ending, sending }
    }

    /// Sends what is left within this time.
    pub async fn finish(&self, limit: Duration) {
        self.ending.cancel();
        if tokio::time::timeout(limit, self.sending.wait()).await.is_err() {
            tracing::warn!("the last spans could not be sent in time");
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _limit: Duration) -> OTelSdkResult {
        self.ending.cancel();
        Ok(())
    }
}

/// Sends batch by batch until nothing comes any more.
async fn send_all(exporter: impl SpanExporter, mut waiting: Receiver<SpanData>, lost: Arc<AtomicU64>, ending: CancellationToken) {
    let mut failing = false;
    while let Some(batch) = next_batch(&mut waiting, &ending).await {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = exporter.export(batch).await;
        match sent {
            Ok(()) => {
                let spans = lost.swap(0, Ordering::Relaxed);
                if failing || spans > 0 {
                    tracing::warn!(spans, "spans were lost; the collector takes them again");
                }
            }
            Err(ref error) => {
                lost.fetch_add(count, Ordering::Relaxed);
                // Told once for as long as it lasts.
                if !failing {
                    tracing::warn!(%error, "the collector takes no spans; commands go on, and spans are lost");
                }
            }
        }
        failing = sent.is_err();
    }
}

/// The spans that are to be sent together; nothing once the queue is empty for good.
async fn next_batch(waiting: &mut Receiver<SpanData>, ending: &CancellationToken) -> Option<Vec<SpanData>> {
    let mut batch = Vec::new();
    tokio::select! {
        _ = waiting.recv_many(&mut batch, BATCH) => {}
        () = ending.cancelled() => {
            waiting.close();
            waiting.recv_many(&mut batch, BATCH).await;
        }
    }
    let gathered = async {
        while let room @ 1.. = BATCH - batch.len()
            && waiting.recv_many(&mut batch, room).await > 0
        {}
    };
    tokio::select! {
        () = gathered => {}
        () = tokio::time::sleep(GATHERING) => {}
        () = ending.cancelled() => {}
    }
    (!batch.is_empty()).then_some(batch)
}
