//! A hold's spec, parsed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rampart_reach::{NAMESPACE_NAME, Selector};

use crate::{
    GROUP,
    api::{ClusterLegalHold, HeldResource, HoldTerms, Invalid, LegalHold, selector},
    hardening::is_system_namespace,
};

/// What the cluster itself rewrites, replaces or removes all the time: a hold would stop it, and keep nothing.
const REFUSED: [(&str, &str); 8] = [
    ("", "pods"),
    ("", "namespaces"),
    ("", "nodes"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("", "endpoints"),
    ("discovery.k8s.io", "endpointslices"),
    ("coordination.k8s.io", "leases"),
];

/// The evidence of Rampart's own group, which may be held. A hold of the others would keep a key from being revoked, a
/// policy from being made stricter and an exception from being withdrawn; holds themselves are kept by the verb `release`.
const EVIDENCE: &str = "retentionreports";

/// What could never be held of it. Earlier builds let all the rest be.
const NEVER: [&str; 3] = ["legalholds", "clusterlegalholds", "keyrecords"];

/// What the API server asks no ValidatingAdmissionPolicy about, so that a cluster can be repaired.
const UNASKED: [&str; 4] = [
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Whose rules a hold is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Those that it has to meet to be made.
    Now,
    /// Those of earlier builds, which let Rampart's own kinds be held.
    Before,
}

impl Rules {
    /// Whether a kind of Rampart's own may be held.
    fn admit_own(self, resource: &str) -> bool {
        match self {
            Self::Now => resource == EVIDENCE,
            Self::Before => !NEVER.contains(&resource),
        }
    }
}

/// Which kind of hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldKind {
    /// In its own namespace.
    LegalHold,
    /// In many, and of objects that stand in none.
    ClusterLegalHold,
}

/// A hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// Its kind.
    pub kind: HoldKind,
    /// Its namespace; empty for a ClusterLegalHold.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; empty where it comes from a file.
    pub uid: String,
    /// Kinds that are held: group and plural.
    pub resources: BTreeSet<(String, String)>,
    /// Which objects, as the API server is told.
    pub selector: LabelSelector,
    /// In which namespaces, as the API server is told.
    pub namespaces: LabelSelector,
    /// When it ends; `None` for one without an end.
    pub until: Option<Timestamp>,
    selected: Selector,
    selected_namespaces: Selector,
}

impl TryFrom<&LegalHold> for Hold {
    type Error = Invalid;

    fn try_from(hold: &LegalHold) -> Result<Self, Invalid> {
        of_namespace(hold, Rules::Now)
    }
}

impl TryFrom<&ClusterLegalHold> for Hold {
    type Error = Invalid;

    fn try_from(hold: &ClusterLegalHold) -> Result<Self, Invalid> {
        of_cluster(hold, Rules::Now)
    }
}

fn of_namespace(hold: &LegalHold, rules: Rules) -> Result<Hold, Invalid> {
    let namespace = hold.metadata.namespace.clone().unwrap_or_default();
    if is_system_namespace(&namespace) {
        let problem = format!("{namespace} is the cluster's or Rampart's own: a hold there could keep it from working");
        return Err(Invalid::at("metadata.namespace", problem));
    }
    let named = [(NAMESPACE_NAME.to_owned(), namespace.clone())].into();
    let own = LabelSelector { match_labels: Some(named), ..LabelSelector::default() };
    let mut parsed = parse(HoldKind::LegalHold, &hold.spec.terms, own, rules)?;
    parsed.namespace = namespace;
    parsed.name = hold.metadata.name.clone().unwrap_or_default();
    parsed.uid = hold.metadata.uid.clone().unwrap_or_default();
    Ok(parsed)
}

fn of_cluster(hold: &ClusterLegalHold, rules: Rules) -> Result<Hold, Invalid> {
    let namespaces = hold.spec.namespace_selector.clone();
    let mut parsed = parse(HoldKind::ClusterLegalHold, &hold.spec.terms, namespaces, rules)?;
    parsed.name = hold.metadata.name.clone().unwrap_or_default();
    parsed.uid = hold.metadata.uid.clone().unwrap_or_default();
    Ok(parsed)
}

fn parse(kind: HoldKind, terms: &HoldTerms, namespaces: LabelSelector, rules: Rules) -> Result<Hold, Invalid> {
    if terms.resources.is_empty() {
        return Err(Invalid::at("spec.resources", "name at least one kind"));
    }
    for (index, HeldResource { group, resource }) in terms.resources.iter().enumerate() {
        let at = format!("spec.resources[{index}].resource");
        if resource.is_empty() || resource.contains(['*', '/']) || group.contains('*') {
            return Err(Invalid::at(at, "names one kind by its plural, such as `configmaps`: never `*`"));
        }
        if REFUSED.contains(&(group, resource)) {
            let problem = format!("{resource} can't be held: the cluster itself rewrites, replaces or removes them");
            return Err(Invalid::at(at, problem));
        }
        if group == GROUP && !rules.admit_own(resource) {
            let problem = format!(
                "{resource} can't be held: of Rampart's own kinds, {EVIDENCE} can; a hold of others would stand in the way of a revocation, a stricter policy, or an exception's end"
            );
            return Err(Invalid::at(at, problem));
        }
        if group == "admissionregistration.k8s.io" && UNASKED.contains(&resource.as_str()) {
            let problem = format!("{resource} can't be held: the API server asks no admission policy about them");
            return Err(Invalid::at(at, problem));
        }
    }
    if terms.until.is_some() == (terms.indefinite == Some(true)) {
        return Err(Invalid::at("spec", "set either until or indefinite: true"));
    }
    if terms.ground.trim().is_empty() {
        return Err(Invalid::at("spec.ground", "say why it is held"));
    }
    Ok(Hold {
        kind,
        namespace: String::new(),
        name: String::new(),
        uid: String::new(),
        resources: terms.resources.iter().map(|it| (it.group.clone(), it.resource.clone())).collect(),
        selected: selector::parse(&terms.selector, "spec.selector")?,
        selected_namespaces: selector::parse(&namespaces, "spec.namespaceSelector")?,
        selector: terms.selector.clone(),
        namespaces,
        until: terms.until.as_ref().map(|until| until.0),
    })
}

impl Hold {
    /// A LegalHold as the builds read it that let Rampart's own kinds be held, for one that they admitted and that can't be
    /// made any more: what they refuse for it stays until it ends. `None` for what is no hold by their rules either.
    #[must_use]
    pub fn before(hold: &LegalHold) -> Option<Self> {
        of_namespace(hold, Rules::Before).ok()
    }

    /// The same of a ClusterLegalHold.
    #[must_use]
    pub fn cluster_before(hold: &ClusterLegalHold) -> Option<Self> {
        of_cluster(hold, Rules::Before).ok()
    }

    /// Whether it holds what another one does, and no longer.
    #[must_use]
    pub fn is_no_longer_than(&self, other: &Self) -> bool {
        let is_same =
            self.resources == other.resources && self.selector == other.selector && self.namespaces == other.namespaces;
        is_same && other.until.is_none_or(|theirs| self.until.is_some_and(|until| until <= theirs))
    }

    /// Whether its end has come.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether it is about a namespace with these labels.
    #[must_use]
    pub fn is_about(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        !is_system_namespace(namespace) && self.selected_namespaces.matches_namespace(namespace, labels)
    }

    /// Whether it holds an object of a kind (its group and plural) with these labels, in a namespace that it is about.
    #[must_use]
    pub fn holds(&self, group: &str, resource: &str, labels: &BTreeMap<String, String>) -> bool {
        let is_of_kind = self.resources.iter().any(|(held, plural)| held == group && plural == resource);
        is_of_kind && self.selected.matches(labels)
    }

    /// The kubectl command that lists what it holds; for a ClusterLegalHold, with the namespaces to look at in it.
    #[must_use]
    pub fn listing(&self) -> String {
        let kind = |(group, plural): &(String, String)| match group.as_str() {
            "" => plural.clone(),
            group => format!("{plural}.{group}"),
        };
        let kinds = self.resources.iter().map(kind).collect::<Vec<_>>().join(",");
        let labelled = |it: &LabelSelector| match selector::text(it) {
            all if all.is_empty() => all,
            labels => format!(" -l '{labels}'"),
        };
        let (objects, namespaces) = (labelled(&self.selector), labelled(&self.namespaces));
        match self.kind {
            HoldKind::LegalHold => format!("kubectl get {kinds} -n {}{objects}", self.namespace),
            HoldKind::ClusterLegalHold if namespaces.is_empty() => format!("kubectl get {kinds} -A{objects}"),
            HoldKind::ClusterLegalHold => {
                format!("kubectl get {kinds} -A{objects}, of the namespaces of: kubectl get namespaces{namespaces}")
            }
        }
    }
}

impl HoldKind {
    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LegalHold => "LegalHold",
            Self::ClusterLegalHold => "ClusterLegalHold",
        }
    }
}

impl fmt::Display for Hold {
    /// As it is called in its own namespace: `LegalHold/case-17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::retention::Holds;

    fn object(namespace: &str, spec: &Value) -> Result<LegalHold, Invalid> {
        let mut terms = json!({"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                               "indefinite": true, "ground": "litigation"});
        for (key, value) in spec.as_object().into_iter().flatten() {
            terms[key] = value.clone();
        }
        let hold = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold",
                          "metadata": {"name": "case-17", "namespace": namespace, "uid": "u"}, "spec": terms});
        serde_json::from_value(hold).map_err(|error| Invalid::at("", error.to_string()))
    }

    fn legal(namespace: &str, spec: &Value) -> Result<Hold, Invalid> {
        Hold::try_from(&object(namespace, spec)?)
    }

    fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[rstest]
    #[case(json!({"resources": [{"resource": "*"}]}), "spec.resources[0].resource: names one kind")]
    #[case(json!({"resources": [{"resource": "configmaps"}, {"resource": "pods"}]}), "spec.resources[1].resource: pods can't")]
    #[case(json!({"resources": [{"group": "rampart.dev", "resource": "legalholds"}]}), "spec.resources[0].resource: legalholds can't")]
    #[case(json!({"resources": [{"group": "rampart.dev", "resource": "apikeys"}]}), "spec.resources[0].resource: apikeys can't be held: of Rampart's own")]
    #[case(json!({"resources": [{"group": "admissionregistration.k8s.io", "resource": "validatingadmissionpolicybindings"}]}),
           "spec.resources[0].resource: validatingadmissionpolicybindings can't be held: the API server asks")]
    #[case(json!({"resources": [{"resource": "deployments/scale"}]}), "spec.resources[0].resource: names one kind")]
    #[case(json!({"resources": []}), "spec.resources: name at least one kind")]
    #[case(json!({"until": "2030-01-01T00:00:00Z"}), "spec: set either until or indefinite: true")]
    #[case(json!({"indefinite": null}), "spec: set either until or indefinite: true")]
    #[case(json!({"ground": " "}), "spec.ground: say why")]
    #[case(json!({"selector": {"matchLabels": {"a b": ""}}}), "spec.selector.matchLabels[a b]: ")]
    fn what_is_no_hold_is_refused_at_its_field(#[case] change: Value, #[case] said: &str) {
        let refused = legal("shop", &change).unwrap_err().to_string();
        assert!(refused.starts_with(said), "{refused}");
    }

    /// As far as earlier builds made them; what they refused is none by their rules either.
    #[rstest]
    #[case(json!({"group": "rampart.dev", "resource": "apikeys"}), true)]
    #[case(json!({"group": "rampart.dev", "resource": "securitypolicies"}), true)]
    #[case(json!({"group": "rampart.dev", "resource": "policyexceptions"}), true)]
    #[case(json!({"group": "rampart.dev", "resource": "legalholds"}), false)]
    #[case(json!({"group": "rampart.dev", "resource": "keyrecords"}), false)]
    #[case(json!({"resource": "pods"}), false)]
    fn what_can_not_be_held_any_more_is_read_as_it_was(#[case] resource: Value, #[case] was: bool) {
        let spec = json!({"resources": [{"resource": "configmaps"}, resource]});
        assert!(legal("shop", &spec).is_err());
        let before = Hold::before(&object("shop", &spec).unwrap());
        assert_eq!(before.as_ref().map(|hold| hold.resources.len()), was.then_some(2));
        let mut wide = object("shop", &spec).map(|hold| json!(hold.spec)).unwrap();
        wide["namespaceSelector"] = json!({});
        let wide = json!({"metadata": {"name": "inquiry"}, "spec": wide});
        let wide: ClusterLegalHold = serde_json::from_value(wide).unwrap();
        assert_eq!(Hold::cluster_before(&wide).is_some(), was);
    }

    #[test]
    fn what_can_be_held_is_read_the_same_by_both_rules() {
        let spec = json!({"resources": [{"group": "rampart.dev", "resource": "retentionreports"}]});
        assert_eq!(Hold::before(&object("shop", &spec).unwrap()), Some(legal("shop", &spec).unwrap()));
    }

    #[test]
    fn a_hold_is_no_longer_than_another_where_it_ends_no_later_and_is_the_same_else() {
        let until = |year: i32| json!({"indefinite": null, "until": format!("{year}-01-01T00:00:00Z")});
        let of = |spec: &Value| legal("shop", spec).unwrap();
        let (ever, later, sooner) = (of(&json!({})), of(&until(2040)), of(&until(2030)));
        assert!(sooner.is_no_longer_than(&later) && later.is_no_longer_than(&ever) && later.is_no_longer_than(&later));
        assert!(!later.is_no_longer_than(&sooner) && !ever.is_no_longer_than(&later));
        let kinds = json!([{"resource": "configmaps"}, {"resource": "secrets"}]);
        for more in [json!({"selector": {}}), json!({"resources": kinds})] {
            assert!(!of(&more).is_no_longer_than(&ever) && !ever.is_no_longer_than(&of(&more)), "{more}");
        }
    }

    #[test]
    fn a_hold_is_about_its_own_namespace_and_never_about_the_systems() {
        let hold = legal("shop", &json!({})).unwrap();
        assert!(hold.is_about("shop", &BTreeMap::new()) && !hold.is_about("other", &BTreeMap::new()));
        // Nobody takes a namespace's name by a label.
        assert!(!hold.is_about("other", &labels(&[("kubernetes.io/metadata.name", "shop")])));
        assert!(legal("kube-system", &json!({})).unwrap_err().to_string().starts_with("metadata.namespace: "));
    }

    #[test]
    fn objects_are_held_by_kind_and_labels() {
        let hold = legal("shop", &json!({"resources": [{"group": "batch", "resource": "jobs"}]})).unwrap();
        let of_case = labels(&[("case", "17"), ("other", "x")]);
        assert!(hold.holds("batch", "jobs", &of_case));
        assert!(!hold.holds("", "jobs", &of_case) && !hold.holds("batch", "cronjobs", &of_case));
        assert!(!hold.holds("batch", "jobs", &labels(&[("case", "18")])));
        let holds = Holds::of([hold], "shop", &BTreeMap::new());
        assert_eq!(holds.holder("batch", "jobs", &of_case).unwrap().to_string(), "LegalHold/case-17");
        assert_eq!(holds.holder("batch", "jobs", &BTreeMap::new()), None);
    }

    #[test]
    fn what_is_held_is_listed_by_a_command_of_kubectl() {
        let more = json!({
            "resources": [{"resource": "configmaps"}, {"group": "batch", "resource": "jobs"}],
            "selector": {"matchLabels": {"case": "17"}, "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "team", "operator": "NotIn", "values": ["c"]},
                {"key": "kept", "operator": "Exists"}, {"key": "gone", "operator": "DoesNotExist"}]},
        });
        let listing = |spec: &Value| legal("shop", spec).unwrap().listing();
        let selected = "case=17,tier in (a,b),team notin (c),kept,!gone";
        assert_eq!(listing(&more), format!("kubectl get configmaps,jobs.batch -n shop -l '{selected}'"));
        assert_eq!(listing(&json!({"selector": {}})), "kubectl get configmaps -n shop");
        let wide = |namespaces: Value| {
            let hold = json!({"metadata": {"name": "inquiry"}, "spec": {
                "namespaceSelector": namespaces, "resources": [{"resource": "secrets"}],
                "selector": {"matchLabels": {"case": "4"}}, "indefinite": true, "ground": "inquiry"}});
            Hold::try_from(&serde_json::from_value::<ClusterLegalHold>(hold).unwrap()).unwrap().listing()
        };
        assert_eq!(wide(json!({})), "kubectl get secrets -A -l 'case=4'");
        assert_eq!(
            wide(json!({"matchLabels": {"team": "ads"}})),
            "kubectl get secrets -A -l 'case=4', of the namespaces of: kubectl get namespaces -l 'team=ads'"
        );
    }

    #[test]
    fn a_hold_ends_at_its_end_and_not_before() {
        let until = "2030-01-01T00:00:00Z";
        let hold = legal("shop", &json!({"until": until, "indefinite": null})).unwrap();
        let end: Timestamp = until.parse().unwrap();
        assert!(hold.has_ended(end) && !hold.has_ended(end - jiff::SignedDuration::from_secs(1)));
        assert!(!legal("shop", &json!({})).unwrap().has_ended(Timestamp::MAX));
    }
}
