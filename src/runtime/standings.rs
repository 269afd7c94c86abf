//! How objects of a kind stand, for metrics: read when these are asked for.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

/// Labels of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObjectLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is told of each object of a kind.
pub struct Told<S> {
    /// Name of the gauge.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Its value; `None` for none.
    pub of: fn(&S) -> Option<i64>,
}

/// How an object stands.
pub trait Standing: Send + Sync + Sized + 'static {
    /// The gauges of its kind.
    const TOLD: &'static [Told<Self>];

    /// Which object.
    fn labels(&self) -> &ObjectLabels;
}

type Source<S> = Box<dyn Fn() -> Vec<S> + Send + Sync>;

/// How all objects of a kind stand, from who knows it.
pub struct Standings<S>(Arc<OnceLock<Source<S>>>);

impl<S> Standings<S> {
    /// Says who knows. The first who does counts.
    pub fn tell(&self, source: impl Fn() -> Vec<S> + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(source));
    }
}

impl<S> Clone for Standings<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Standings<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> fmt::Debug for Standings<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standings")
    }
}

impl<S: Standing> Collector for Standings<S> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let all = self.0.get().map(|source| source()).unwrap_or_default();
        for Told { name, help, of } in S::TOLD {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for standing in &all {
                if let Some(value) = of(standing) {
                    ConstGauge::new(value).encode(family.encode_family(standing.labels())?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    struct Door(ObjectLabels, Option<i64>);

    impl Standing for Door {
        const TOLD: &'static [Told<Self>] = &[
            Told { name: "doors", help: "Doors", of: |_| Some(1) },
            Told { name: "door_open", help: "Whether it is open", of: |it| it.1 },
        ];

        fn labels(&self) -> &ObjectLabels {
            &self.0
        }
    }

    #[test]
    fn each_object_is_told_as_it_stands_when_somebody_asks() {
        let (mut registry, standings) = (Registry::default(), Standings::<Door>::default());
        registry.register_collector(Box::new(standings.clone()));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(text().is_empty(), "nobody knows any");
        let labels = |name: &str| ObjectLabels { namespace: "shop".into(), name: name.into() };
        standings.tell(move || vec![Door(labels("front"), Some(0)), Door(labels("back"), None)]);
        standings.tell(Vec::new);
        let wanted = [
            r#"doors{namespace="shop",name="front"} 1"#,
            r#"doors{namespace="shop",name="back"} 1"#,
            r#"door_open{namespace="shop",name="front"} 0"#,
        ];
        assert_eq!(text(), wanted);
    }
}
