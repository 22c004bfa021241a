//! Spans of what is done for each command, exported over OTLP where that is asked for: the only user of OpenTelemetry.
//!
//! Where nothing is exported no span is made, and a producer's own context is passed on as it came.

mod collector;
mod queue;
mod span;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanExporter as _};

use crate::command::TraceContext;
use crate::secret::Secret;
use collector::Collector;
use queue::Queue;

pub use span::{Received, Sent, Span};

/// How spans are exported.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where an OTLP collector takes spans over HTTP, the path included.
    pub otlp_url: String,
    /// What it wants to see in the `Authorization` header.
    pub authorization: Option<Secret>,
    /// Of the traces that no producer has decided on, the share that is recorded.
    pub sample_ratio: f64,
}

/// The exporter could not be made.
#[derive(Debug, thiserror::Error)]
#[error("spans can't be exported: `traces.otlp_url` is no address, or the system's certificates can't be used")]
pub struct StartError;

/// Makes spans, or nothing where none are exported.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Exporting>>);

struct Exporting {
    tracer: SdkTracer,
    queue: Queue,
}

/// How long the last spans may take on their way when the worker ends.
const ENDING: Duration = Duration::from_secs(2);
tokio::task_local! {
    /// What the task at hand works on. It passes through rooms that know nothing of traces, such as those that fetch tokens.
    static CURRENT: TraceContext;
}

/// Does work as a part of this trace: the requests that it makes carry its context.
pub async fn within<F: Future>(context: Option<TraceContext>, work: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, work).await,
        None => work.await,
    }
}

impl Traces {
    /// Begins to export, where that is asked for. It must be called where tasks can be started.
    ///
    /// # Errors
    /// Where the address or the system's certificates can't be used.
    pub fn start(settings: Option<&Settings>) -> Result<Self, StartError> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        // The errors themselves may hold the address, and a secret in it.
        let collector = Collector::new(&settings.otlp_url, settings.authorization.clone()).map_err(|_| StartError)?;
        let exporter = SpanExporter::builder().with_http().with_http_client(collector).with_endpoint(&settings.otlp_url);
        // The client tries again itself: the exporter would sleep on a thread that others need.
        let mut exporter = exporter.with_retry_policy(RetryPolicy::disabled()).build().map_err(|_| StartError)?;
        let resource = Resource::builder().with_service_name(env!("CARGO_PKG_NAME"));
        let resource = resource.with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        exporter.set_resource(&resource);
        let queue = Queue::start(exporter);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio))))
            .with_span_processor(queue.clone())
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self(Some(Arc::new(Exporting { tracer: provider.tracer_with_scope(scope), queue }))))
    }

    /// Sends what is left; what can't be sent soon is lost.
    pub async fn finish(&self) {
        if let Some(exporting) = &self.0 {
            exporting.queue.finish(ENDING).await;
        }
    }
}
