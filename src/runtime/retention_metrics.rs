//! Metrics of RetentionPolicies, read when they are asked for.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::{
    clock,
    metric_names::Names,
    standings::{ObjectLabels, Standing, Standings, Told},
};

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
    pub labels: ObjectLabels,
    /// Items that are too old.
    pub candidates: i64,
    /// Whether the caps hold, until a set is approved.
    pub tripped: bool,
    /// Since when the oldest that nothing protects is too old, Unix seconds.
    pub oldest: Option<i64>,
}

impl Standing for RetentionStanding {
    const TOLD: &'static [Told<Self>] = &[
        Told { name: "retention_candidates", help: "Objects that are too old", of: |it| Some(it.candidates) },
        Told {
            name: "retention_breaker_tripped",
            help: "1 while nothing is deleted until a set is approved",
            of: |it| Some(it.tripped.into()),
        },
        Told {
            name: "retention_oldest_overdue_seconds",
            help: "For how long the oldest is too old that nothing protects",
            of: |it| Some(it.oldest.map_or(0, |oldest| (clock::now().as_second() - oldest).max(0))),
        },
    ];

    fn labels(&self) -> &ObjectLabels {
        &self.labels
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
    pub standings: Standings<RetentionStanding>,
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
