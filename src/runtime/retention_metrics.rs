//! Metrics of RetentionPolicies, read when they are asked for.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge},
};

use super::{clock, metric_names::Names};

/// Labels of a RetentionPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Label of why an item stays.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SkipLabel {
    /// A stable name.
    pub reason: &'static str,
}

/// How a RetentionPolicy stands.
#[derive(Debug, Clone)]
pub struct RetentionStanding {
    /// Which.
    pub labels: PolicyLabels,
    /// Items that are too old.
    pub candidates: i64,
    /// Whether the caps hold, until a set is approved.
    pub tripped: bool,
    /// Since when the oldest that nothing protects is too old, Unix seconds.
    pub oldest: Option<i64>,
}

type Source = Box<dyn Fn() -> Vec<RetentionStanding> + Send + Sync>;

/// How RetentionPolicies stand, from who knows it.
#[derive(Clone, Default)]
pub struct RetentionStandings(Arc<OnceLock<Source>>);

impl RetentionStandings {
    /// Says who knows. The first who does counts.
    pub fn tell(&self, source: impl Fn() -> Vec<RetentionStanding> + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(source));
    }
}

impl fmt::Debug for RetentionStandings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetentionStandings")
    }
}

impl Collector for RetentionStandings {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let all = self.0.get().map(|source| source()).unwrap_or_default();
        let now = clock::now().as_second();
        let mut gauge = |name: &str, help: &str, of: &dyn Fn(&RetentionStanding) -> i64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for standing in &all {
                ConstGauge::new(of(standing)).encode(family.encode_family(&standing.labels)?)?;
            }
            Ok(())
        };
        gauge("retention_candidates", "Objects that are too old", &|it| it.candidates)?;
        gauge("retention_breaker_tripped", "1 while nothing is deleted until a set is approved", &|it| {
            it.tripped.into()
        })?;
        gauge("retention_oldest_overdue_seconds", "For how long the oldest is too old that nothing protects", &|it| {
            it.oldest.map_or(0, |oldest| (now - oldest).max(0))
        })
    }
}

/// Metrics of RetentionPolicies.
#[derive(Debug, Clone, Default)]
pub struct RetentionMetrics {
    /// Objects that were deleted.
    pub deleted: Counter,
    /// Objects that reports say are kept although they are too old.
    skipped: Family<SkipLabel, Counter>,
    /// How RetentionPolicies stand.
    pub standings: RetentionStandings,
}

impl RetentionMetrics {
    /// Names them in a registry, under the prefix that it has.
    pub(super) fn register(&self, of: &mut Names<'_>) {
        of.register("retention_deleted", "Objects that retention deleted", self.deleted.clone());
        of.register(
            "retention_skipped",
            "Objects that reports say are kept although they are too old, by reason",
            self.skipped.clone(),
        );
        of.register_collector(Box::new(self.standings.clone()));
    }

    /// Counts an item that stays.
    pub fn skip(&self, reason: &'static str) {
        self.skipped.get_or_create(&SkipLabel { reason }).inc();
    }
}
