//! What a process serves at `/metrics`, in the text format of Prometheus.

use std::str::FromStr;

/// The value of a series, named with its labels in the order that they are served; `None` where it is not served.
#[must_use]
pub fn value_of<T: FromStr>(metrics: &str, series: &str) -> Option<T> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}
