//! What metrics are called, for whoever writes about them.

use prometheus_client::{
    collector::Collector,
    metrics::MetricType,
    registry::{Metric, Registry},
};

/// A metric, as it is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Described {
    /// Its whole name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub form: String,
    /// What it counts.
    pub help: String,
}

/// A part of a registry that notes what is registered: one that nothing was counted of yet is served by nobody.
pub(super) struct Names<'a> {
    registry: &'a mut Registry,
    prefix: &'static str,
    told: &'a mut Vec<Described>,
}

impl<'a> Names<'a> {
    /// The part with a prefix, which may be none.
    pub(super) fn of(all: &'a mut Registry, prefix: &'static str, told: &'a mut Vec<Described>) -> Self {
        let registry = if prefix.is_empty() { all } else { all.sub_registry_with_prefix(prefix) };
        Self { registry, prefix, told }
    }

    /// As [`Registry::register`].
    pub(super) fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        let form = metric.metric_type();
        let end = if matches!(form, MetricType::Counter) { "_total" } else { "" };
        let begin = if self.prefix.is_empty() { String::new() } else { format!("{}_", self.prefix) };
        let name_served = format!("{begin}{name}{end}");
        self.told.push(Described { name: name_served, form: form.as_str().into(), help: format!("{help}.") });
        self.registry.register(name, help, metric);
    }

    /// As [`Registry::register_collector`]. It says itself what it is called, in the text.
    pub(super) fn register_collector(&mut self, collector: Box<dyn Collector>) {
        self.registry.register_collector(collector);
    }
}

/// Adds what a text in the OpenMetrics format describes and nobody told.
pub(super) fn described(text: &str, mut told: Vec<Described>) -> Vec<Described> {
    let help = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    for (name, help) in help {
        let form = text.lines().find_map(|line| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
        let is_told = told.iter().any(|it| it.name == name || it.name.strip_suffix("_total") == Some(name));
        if let Some(form) = form.filter(|_| !is_told) {
            told.push(Described { name: name.into(), form: form.into(), help: help.into() });
        }
    }
    told.sort();
    told
}
