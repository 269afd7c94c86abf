//! Metrics of the verifier.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use super::{metric_names::Names, metrics::ResultLabel, moment::Moment};
use crate::keys::verify::{Refusal, WINDOWS};

/// Label of a window of rates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WindowLabel {
    /// Its name.
    pub window: &'static str,
}

/// Metrics of the verifier. Labels never name a key: there are too many.
#[derive(Debug, Clone)]
pub struct VerifierMetrics {
    /// Questions by what came of them.
    pub verified: Family<ResultLabel, Counter>,
    /// Of these the admitted ones, which are the most.
    pub admitted: Counter,
    /// Time from a question to its answer.
    pub seconds: Histogram,
    /// Admitted calls with a key that was replaced.
    pub deprecated: Counter,
    /// Refused calls by window that had none left.
    pub limited: Family<WindowLabel, Counter>,
    /// Addresses that were shut out.
    pub blocks: Counter,
    /// Keys that are known.
    pub keys: Gauge,
    /// When the API server was last heard of.
    pub heard: Moment,
    /// When it last told which keys were used.
    pub told: Moment,
}

impl Default for VerifierMetrics {
    fn default() -> Self {
        let verified = Family::<ResultLabel, Counter>::default();
        let admitted = verified.get_or_create_owned(&ResultLabel { result: "admitted" });
        Self {
            verified,
            admitted,
            seconds: Histogram::new(exponential_buckets(0.000_001, 2.0, 16)),
            deprecated: Counter::default(),
            limited: Family::default(),
            blocks: Counter::default(),
            keys: Gauge::default(),
            heard: Moment::default(),
            told: Moment::default(),
        }
    }
}

impl VerifierMetrics {
    /// Names them in a registry, under the prefix that it has.
    pub(super) fn register(&self, of: &mut Names<'_>) {
        of.register("apikey_verify", "Questions to the verifier by what came of them", self.verified.clone());
        of.register("apikey_verify_duration_seconds", "Time from a question to its answer", self.seconds.clone());
        of.register("apikey_deprecated_requests", "Admitted calls with a replaced key", self.deprecated.clone());
        of.register("apikey_ratelimited", "Refused calls by window that had none left", self.limited.clone());
        of.register("apikey_address_blocks", "Addresses that were shut out for guessing", self.blocks.clone());
        of.register("apikey_index_keys", "Keys that the verifier knows", self.keys.clone());
        let heard = self.heard.clone();
        of.register("apikey_index_heard_timestamp_seconds", "When the verifier last heard of the API server", heard);
        let told = self.told.clone();
        of.register("apikey_usage_told_timestamp_seconds", "When the verifier last told which keys were used", told);
    }

    /// Counts a question.
    pub fn count(&self, result: &'static str) {
        self.verified.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a refusal.
    pub fn refused(&self, refusal: &Refusal) {
        self.count(refusal.reason());
        let Refusal::Limited(_, windows) = refusal else { return };
        for window in windows.iter().filter(|window| window.retry_after > 0) {
            if let Some((window, _)) = WINDOWS.get(window.index) {
                self.limited.get_or_create(&WindowLabel { window }).inc();
            }
        }
    }
}
