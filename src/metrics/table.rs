//! Makes metrics from a table in which each stands once: its documentation is its help text, and all of it is the reference.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// What a table says of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it is about, as a heading.
    pub section: &'static str,
    pub name: &'static str,
    /// Prometheus' word: counter, gauge or histogram.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram, in its unit.
    pub buckets: &'static [f64],
    pub help: &'static str,
}

/// A kind of metric that a table can hold.
pub trait Kind: Collector + Clone + 'static {
    /// Prometheus' word for it.
    const NAME: &'static str;

    /// Makes one.
    ///
    /// # Errors
    /// Where its name or labels are none.
    fn make(entry: &Entry) -> Result<Self, prometheus::Error>;
}

/// Makes a metric and registers it.
///
/// # Errors
/// Where its name or labels are none, or another one has its name.
pub fn register<K: Kind>(registry: &Registry, entry: &Entry) -> Result<K, prometheus::Error> {
    let metric = K::make(entry)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Defines a struct of metrics, a function that makes and registers them, and the list of all of them. What stands under
/// `besides` is no metric, and begins with its default.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $Name:ident besides { $($(#[$note:meta])* $own:ident: $Own:ty,)+ } {
            $($section:literal {
                $(
                    $(#[doc = $help:literal])+
                    $vis:vis $field:ident: $Kind:ty = $name:literal $(by [$($label:literal),+])? $(in $buckets:ident)?,
                )+
            })+
        }
    ) => {
        $(#[$meta])*
        pub struct $Name {
            registry: prometheus::Registry,
            $($(#[$note])* $own: $Own,)+
            $($( $(#[doc = $help])+ $vis $field: $Kind, )+)+
        }

        impl $Name {
            /// Every metric, in the order of its definition.
            pub const ALL: &'static [Entry] = &[$($(Entry {
                section: $section,
                name: $name,
                kind: <$Kind as Kind>::NAME,
                labels: &[$($($label),+)?],
                buckets: { const NONE: &[f64] = &[]; let buckets = NONE; $(let _ = buckets; let buckets: &[f64] = &$buckets;)? buckets },
                help: concat!($($help),+),
            },)+)+];

            fn registered(registry: prometheus::Registry) -> Result<Self, prometheus::Error> {
                let mut entries = Self::ALL.iter();
                // The list and this are made from the same table, in the same order.
                let mut next = || entries.next().ok_or_else(|| prometheus::Error::Msg("the table of metrics has ended".to_owned()));
                Ok(Self { $($($field: table::register(&registry, next()?)?,)+)+ $($own: <$Own>::default(),)+ registry })
            }
        }
    };
}
pub(super) use table;

fn opts(entry: &Entry) -> Opts {
    Opts::new(entry.name, entry.help.trim())
}

fn histogram_opts(entry: &Entry) -> HistogramOpts {
    HistogramOpts::from(opts(entry)).buckets(entry.buckets.to_vec())
}

impl Kind for IntCounter {
    const NAME: &'static str = "counter";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::with_opts(opts(entry))
    }
}

impl Kind for IntCounterVec {
    const NAME: &'static str = "counter";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::new(opts(entry), entry.labels)
    }
}

impl Kind for IntGauge {
    const NAME: &'static str = "gauge";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::with_opts(opts(entry))
    }
}

impl Kind for IntGaugeVec {
    const NAME: &'static str = "gauge";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::new(opts(entry), entry.labels)
    }
}

impl Kind for Gauge {
    const NAME: &'static str = "gauge";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::with_opts(opts(entry))
    }
}

impl Kind for GaugeVec {
    const NAME: &'static str = "gauge";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::new(opts(entry), entry.labels)
    }
}

impl Kind for Histogram {
    const NAME: &'static str = "histogram";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::with_opts(histogram_opts(entry))
    }
}

impl Kind for HistogramVec {
    const NAME: &'static str = "histogram";
    fn make(entry: &Entry) -> Result<Self, prometheus::Error> {
        Self::new(histogram_opts(entry), entry.labels)
    }
}
