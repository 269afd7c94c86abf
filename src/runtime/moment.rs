//! A gauge that is a moment.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::Gauge},
};

/// A moment, in Unix seconds. It is not served before it is known: 0 would be an end that has passed long ago, of a
/// certificate or a connection that the process does not have.
#[derive(Debug, Clone, Default)]
pub struct Moment(Gauge);

impl Moment {
    /// Says when.
    pub fn set(&self, moment: Timestamp) {
        self.0.set(moment.as_second());
    }
}

impl EncodeMetric for Moment {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.get() == 0
    }
}
