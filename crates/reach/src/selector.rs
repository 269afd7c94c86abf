//! Label selectors, and when one provably selects all that another does, or nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Invalid,
    wire::{Expression, LabelSelector},
};

/// A label selector: every requirement must hold; without any, everything is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

/// The label that every namespace has: its name (KEP-2161).
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// One requirement on a label (`k8s.io/apimachinery`, `LabelSelectorRequirement`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

/// What a requirement asks of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Present, with one of the values.
    In(BTreeSet<String>),
    /// Absent, or with none of the values.
    NotIn(BTreeSet<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl Operator {
    fn matches(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }

    /// Whether whatever satisfies `self` satisfies `other`.
    fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::In(values), other) => values.iter().all(|value| other.matches(Some(value))),
            (Self::NotIn(excluded), Self::NotIn(fewer)) => fewer.is_subset(excluded),
            (Self::DoesNotExist, Self::NotIn(_)) => true,
            (same, other) => same == other,
        }
    }

    /// Whether nothing satisfies both.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::In(values), other) | (other, Self::In(values)) => {
                !values.iter().any(|value| other.matches(Some(value)))
            }
            (Self::Exists, Self::DoesNotExist) | (Self::DoesNotExist, Self::Exists) => true,
            _ => false,
        }
    }
}

impl TryFrom<&LabelSelector> for Selector {
    type Error = Invalid;

    /// # Errors
    /// When an operator is unknown, or has values that it does not take or lacks those that it needs. Keys and
    /// values are taken as they are.
    fn try_from(written: &LabelSelector) -> Result<Self, Invalid> {
        let labels = written.match_labels.iter().flatten();
        let labels = labels
            .map(|(key, value)| Ok(Requirement { key: key.clone(), operator: Operator::In([value.clone()].into()) }));
        let expressions = written.match_expressions.iter().flatten().enumerate();
        let expressions = expressions.map(|(index, it)| requirement(it, &format!("matchExpressions[{index}]")));
        Ok(Self { requirements: labels.chain(expressions).collect::<Result<_, _>>()? })
    }
}

fn requirement(written: &Expression, field: &str) -> Result<Requirement, Invalid> {
    let values: BTreeSet<String> = written.values.iter().flatten().cloned().collect();
    let operator = match (written.operator.as_str(), values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        (operator @ ("In" | "NotIn"), true) => {
            return Err(Invalid::at(format!("{field}.values"), format!("{operator} needs at least one value")));
        }
        (operator @ ("Exists" | "DoesNotExist"), false) => {
            return Err(Invalid::at(format!("{field}.values"), format!("{operator} takes no values")));
        }
        (other, _) => {
            let problem = format!("must be In, NotIn, Exists or DoesNotExist, not {other:?}");
            return Err(Invalid::at(format!("{field}.operator"), problem));
        }
    };
    Ok(Requirement { key: written.key.clone(), operator })
}

impl Selector {
    /// A selector of the given requirements.
    #[must_use]
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        Self { requirements: requirements.into_iter().collect() }
    }

    pub(crate) fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }

    /// Whether labels satisfy every requirement.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.holds(|key| labels.get(key).map(String::as_str))
    }

    /// Whether a namespace of this name satisfies every requirement: whatever its labels say of its name, the API server
    /// knows better ([`NAMESPACE_NAME`]).
    #[must_use]
    pub fn matches_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.holds(|key| if key == NAMESPACE_NAME { Some(name) } else { labels.get(key).map(String::as_str) })
    }

    fn holds<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.operator.matches(label(&requirement.key)))
    }
}

/// Whether `wide` selects everything that `narrow` does, provably: each requirement of `wide` follows
/// from a requirement of `narrow` on the same label.
///
/// `false` may also mean that it could not be proven, never the reverse.
#[must_use]
pub fn covers(wide: &Selector, narrow: &Selector) -> bool {
    wide.requirements.iter().all(|wanted| {
        narrow.requirements.iter().any(|given| given.key == wanted.key && given.operator.implies(&wanted.operator))
    })
}

/// Whether no labels satisfy both, provably: a requirement of one excludes a requirement of the other on the same label.
///
/// `false` may also mean that it could not be proven, never the reverse.
#[must_use]
pub fn disjoint(one: &Selector, other: &Selector) -> bool {
    one.requirements.iter().any(|mine| {
        other.requirements.iter().any(|theirs| mine.key == theirs.key && mine.operator.excludes(&theirs.operator))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> Requirement {
        let values = values.iter().map(ToString::to_string).collect();
        let operator = match operator {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            _ => Operator::DoesNotExist,
        };
        Requirement { key: key.into(), operator }
    }

    /// Every selector of up to two requirements over two labels with two values.
    fn all() -> Vec<Selector> {
        let mut single = vec![];
        for key in ["a", "b"] {
            for operator in ["In", "NotIn"] {
                for values in [&["1"][..], &["2"], &["1", "2"]] {
                    single.push(requirement(key, operator, values));
                }
            }
            single.extend([requirement(key, "Exists", &[]), requirement(key, "DoesNotExist", &[])]);
        }
        let mut all = vec![Selector::default()];
        for (nth, one) in single.iter().enumerate() {
            all.push(Selector::new([one.clone()]));
            all.extend(single.iter().skip(nth + 1).map(|two| Selector::new([one.clone(), two.clone()])));
        }
        all
    }

    fn worlds() -> Vec<BTreeMap<String, String>> {
        let values = [None, Some("1"), Some("2"), Some("3")];
        let mut worlds = vec![];
        for a in values {
            for b in values {
                let labels = [("a", a), ("b", b)].into_iter();
                worlds.push(labels.filter_map(|(key, value)| Some((key.to_string(), value?.to_string()))).collect());
            }
        }
        worlds
    }

    #[test]
    fn what_is_proven_is_true_in_every_world() {
        let worlds = worlds();
        let all = all();
        let mut proven = 0;
        for wide in &all {
            for narrow in &all {
                if covers(wide, narrow) {
                    proven += 1;
                    let broken = worlds.iter().find(|labels| narrow.matches(labels) && !wide.matches(labels));
                    assert_eq!(broken, None, "{wide:?} does not cover {narrow:?}");
                }
            }
        }
        assert!(proven > all.len(), "each covers itself, and some cover others");
    }

    #[test]
    fn what_is_disjoint_is_so_in_every_world() {
        let worlds = worlds();
        let all = all();
        let mut proven = 0;
        for one in &all {
            for other in &all {
                assert_eq!(disjoint(one, other), disjoint(other, one), "{one:?} and {other:?}");
                if disjoint(one, other) {
                    proven += 1;
                    let both = worlds.iter().find(|labels| one.matches(labels) && other.matches(labels));
                    assert_eq!(both, None, "{one:?} and {other:?}");
                }
            }
        }
        assert!(proven > all.len(), "many exclude some others");
    }

    #[test]
    fn the_usual_cases_are_disjoint() {
        let of = |key: &str, operator: &str, values: &[&str]| Selector::new([requirement(key, operator, values)]);
        let web = of("app", "In", &["web"]);
        for other in
            [of("app", "In", &["db", "queue"]), of("app", "NotIn", &["web", "db"]), of("app", "DoesNotExist", &[])]
        {
            assert!(disjoint(&web, &other), "{other:?}");
        }
        assert!(disjoint(&of("app", "Exists", &[]), &of("app", "DoesNotExist", &[])));
        for other in [
            Selector::default(),
            of("tier", "In", &["backend"]),
            of("app", "In", &["web", "db"]),
            of("app", "NotIn", &["db"]),
            of("app", "Exists", &[]),
        ] {
            assert!(!disjoint(&web, &other), "{other:?}");
        }
    }

    #[test]
    fn the_usual_cases_are_proven() {
        let app = Selector::new([requirement("app", "In", &["postgres"])]);
        assert!(covers(&Selector::default(), &app), "a default deny covers everything");
        assert!(covers(
            &app,
            &Selector::new([requirement("app", "In", &["postgres"]), requirement("x", "Exists", &[])])
        ));
        assert!(!covers(&app, &Selector::default()));
        assert!(!covers(&app, &Selector::new([requirement("app", "In", &["postgres", "redis"])])));
    }
}
