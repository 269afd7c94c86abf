//! Metrics of ApiKeys, read when they are asked for.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
};

use super::{
    clock,
    metric_names::Names,
    standings::{ObjectLabels, Standing, Standings, Told},
};

/// Labels of a rotation's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RotationLabels {
    /// `success` or `failed`.
    pub result: &'static str,
    /// The step that it came to: `completed`, `test` or `hook`.
    pub step: &'static str,
}

/// How an ApiKey stands.
#[derive(Debug, Clone)]
pub struct ApiKeyStanding {
    /// Which.
    pub labels: ObjectLabels,
    /// When its current version ends, Unix seconds.
    pub expires: Option<i64>,
    /// When it is due for rotation, Unix seconds.
    pub next_rotation: Option<i64>,
    /// Whether it is Ready; none of one that is stopped on purpose.
    pub ready: Option<bool>,
}

impl Standing for ApiKeyStanding {
    const TOLD: &'static [Told<Self>] = &[
        Told { name: "apikey_expiration_timestamp_seconds", help: "End of the current version", of: |it| it.expires },
        Told {
            name: "apikey_next_rotation_timestamp_seconds",
            help: "When it is due for rotation",
            of: |it| it.next_rotation,
        },
        Told {
            name: "apikey_ready_status",
            help: "1 while it is Ready; none while it is revoked, suspended or idle",
            of: |it| it.ready.map(i64::from),
        },
    ];

    fn labels(&self) -> &ObjectLabels {
        &self.labels
    }
}

/// The clock by which keys expire.
#[derive(Debug)]
struct OwnClock;

impl Collector for OwnClock {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (name, help) = ("clock_time_seconds", "The operator's own clock, by which keys expire");
        let mut clock = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(clock::now().as_second()).encode(clock.encode_family(&[("source", "operator")])?)
    }
}

/// Metrics of rotations.
#[derive(Debug, Clone)]
pub struct KeyMetrics {
    /// Rotations by outcome.
    pub rotations: Family<RotationLabels, Counter>,
    /// Time from the making of a version until its rotation was complete.
    pub seconds: Histogram,
    /// How ApiKeys stand.
    pub standings: Standings<ApiKeyStanding>,
}

impl Default for KeyMetrics {
    fn default() -> Self {
        let seconds = Histogram::new([0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0]);
        let rotations = Family::<RotationLabels, Counter>::default();
        // An increase is seen only of what was 0 before.
        for step in ["test", "hook"] {
            drop(rotations.get_or_create(&RotationLabels { result: "failed", step }));
        }
        Self { rotations, seconds, standings: Standings::default() }
    }
}

impl KeyMetrics {
    /// Names them in a registry, under the prefix that it has.
    pub(super) fn register(&self, of: &mut Names<'_>) {
        of.register(
            "apikey_rotation",
            "Key rotations by outcome, and the step that they came to",
            self.rotations.clone(),
        );
        of.register("apikey_rotation_duration_seconds", "Time from a version to its rotation", self.seconds.clone());
        of.register_collector(Box::new(self.standings.clone()));
        of.register_collector(Box::new(OwnClock));
    }

    /// Counts a rotation.
    pub fn count(&self, result: &'static str, step: &'static str) {
        self.rotations.get_or_create(&RotationLabels { result, step }).inc();
    }
}
