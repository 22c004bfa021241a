//! What the worker's metrics say, as Prometheus would read them.

/// The text of `/metrics`.
pub struct Exposition<'a>(pub &'a str);

impl Exposition<'_> {
    /// All series of a metric whose labels hold these words, added up.
    pub fn total(&self, metric: &str, labels: &str) -> f64 {
        self.series(metric).filter(|(found, _)| found.contains(labels)).map(|(_, value)| value).sum()
    }

    /// The buckets of a histogram that has no labels of its own.
    pub fn histogram(&self, metric: &str) -> Histogram {
        let metric = format!("{metric}_bucket");
        let buckets = self.series(&metric).filter_map(|(labels, count)| {
            let limit = labels.strip_prefix("{le=\"")?.strip_suffix("\"}")?;
            Some((limit.parse().ok()?, count))
        });
        Histogram(buckets.collect())
    }

    /// The labels and value of each series of a metric.
    fn series(&self, metric: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
            // Another metric may begin with the same words.
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
        })
    }
}

/// Upper limits and how many were at most that large, as Prometheus counts them.
#[derive(Clone)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// What has come since an earlier look.
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|((limit, now), (_, before))| (*limit, now - before)).collect())
    }

    /// A quantile, evenly between the limits of its bucket, as `histogram_quantile` reckons it; `None` where there is nothing.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let (_, all) = self.0.last().filter(|(_, all)| *all > 0.0)?;
        let rank = quantile * all;
        let at = self.0.iter().position(|(_, count)| *count >= rank)?;
        let (from, below) = at.checked_sub(1).map_or((0.0, 0.0), |before| self.0[before]);
        let (to, count) = self.0[at];
        // Beyond the last limit nothing more is known.
        Some(if to.is_finite() { from + (to - from) * (rank - below) / (count - below) } else { from })
    }
}
