//! What a pod names: the class of its priority and of its runtime, labels and taints of nodes. Four rules
//! of one shape.

use rampart_pss::Path;

use super::{
    About, Complaint, Part, Pod, Rule,
    affinity::{AVOID, Affinity},
    pod::Spec,
    told_or_none,
};
use crate::{
    api,
    hardening::cel::{string, strings},
};

const RUNTIME_CLASS: &str = "a RuntimeClass that the pod names may add to it";

pub(super) static PRIORITY_CLASSES: About = About {
    id: "priorityClasses",
    title: "Pods name no priority class but those of a list",
    windows: true,
    depends_on: Some("the default PriorityClass of the cluster is set where a pod names none"),
    values: None,
};
pub(super) static RUNTIME_CLASSES: About = About {
    id: "runtimeClasses",
    title: "Pods name a runtime class of a list",
    windows: true,
    depends_on: None,
    values: None,
};
pub(super) static NODE_SELECTOR: About = About {
    id: "nodeSelector",
    title: "Pods do not choose nodes by listed labels",
    windows: true,
    depends_on: Some(RUNTIME_CLASS),
    values: None,
};
pub(super) static TOLERATIONS: About = About {
    id: "tolerations",
    title: "Pods do not tolerate listed taints",
    windows: true,
    depends_on: Some(RUNTIME_CLASS),
    values: None,
};

/// A pod's affinity to nodes, in CEL: what it requires, and what it prefers. Their terms are of two types.
const REQUIRED: &str = "object.spec.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution\
    .?nodeSelectorTerms.orValue([])";
const PREFERRED: &str =
    "object.spec.?affinity.?nodeAffinity.?preferredDuringSchedulingIgnoredDuringExecution.orValue([])";

/// [`Pod::names_its_node`] in CEL, of a pod that is being created.
const NAMES_ITS_NODE: &str = "(request.operation == 'CREATE' && object.spec.?nodeName.orValue('') != '' && \
    !('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({})))";

/// What an update changes of that by which a pod chooses its nodes. Kubernetes lets it be added to pods that are
/// there: tolerations to any, labels of nodes to those that a scheduling gate holds back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether it changes `spec.nodeSelector` or the affinity to nodes.
    pub node_selector: bool,
    /// Whether it changes `spec.tolerations`.
    pub tolerations: bool,
}

impl About {
    /// Whether an update changes what the rule is about, in CEL; `None` where it is about nothing that may be added
    /// to a pod that is there. The same as [`Moved`].
    pub(in crate::hardening) fn changed(&self) -> Option<&'static str> {
        match self.id {
            "nodeSelector" => Some(
                "object.spec.?nodeSelector.orValue({}) != oldObject.spec.?nodeSelector.orValue({}) || \
                 object.spec.?affinity.?nodeAffinity.orValue({}) != \
                 oldObject.spec.?affinity.?nodeAffinity.orValue({})",
            ),
            "tolerations" => Some("object.spec.?tolerations.orValue([]) != oldObject.spec.?tolerations.orValue([])"),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    PriorityClass,
    RuntimeClass,
    NodeSelector,
    Tolerations,
}

#[derive(Debug)]
struct Names {
    kind: Kind,
    names: Vec<String>,
}

pub(super) fn parse(wire: &api::Rules) -> impl Iterator<Item = Box<dyn Rule>> {
    [
        (Kind::PriorityClass, wire.priority_classes.as_ref().map(|rule| &rule.allow)),
        (Kind::RuntimeClass, wire.runtime_classes.as_ref().map(|rule| &rule.require)),
        (Kind::NodeSelector, wire.node_selector.as_ref().map(|rule| &rule.forbid)),
        (Kind::Tolerations, wire.tolerations.as_ref().map(|rule| &rule.forbid)),
    ]
    .into_iter()
    .filter_map(|(kind, names)| Some(Box::new(Names { kind, names: names?.clone() }) as Box<dyn Rule>))
}

impl Kind {
    const fn field(self) -> &'static str {
        match self {
            Self::PriorityClass => "priorityClassName",
            Self::RuntimeClass => "runtimeClassName",
            Self::NodeSelector => "nodeSelector",
            Self::Tolerations => "tolerations",
        }
    }
}

impl Names {
    /// What is wrong, and what is wanted instead.
    fn text(&self) -> String {
        let (field, names) = (self.kind.field(), told_or_none(&self.names));
        match self.kind {
            Kind::PriorityClass => format!("pod must not set {field} to anything else than: {names}"),
            Kind::RuntimeClass => format!("pod must set {field} to one of: {names}"),
            Kind::NodeSelector => format!("pod must not set nodeName, nor {field} or nodeAffinity for any of: {names}"),
            Kind::Tolerations => format!("pod must not set nodeName, nor {field} of all taints, or of any of: {names}"),
        }
    }

    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    fn refuses(&self, spec: &Spec) -> bool {
        let text = |name: &Option<String>| name.clone().unwrap_or_default();
        match self.kind {
            Kind::PriorityClass => {
                let name = text(&spec.priority_class_name);
                !name.is_empty() && !self.is_named(&name)
            }
            Kind::RuntimeClass => !self.is_named(&text(&spec.runtime_class_name)),
            Kind::NodeSelector => {
                let selected = spec.node_selector.iter().flatten().map(|(key, _)| key.as_str());
                selected.chain(spec.affinity.iter().flat_map(Affinity::labels)).any(|key| self.is_named(key))
            }
            // Without a key it tolerates every taint.
            Kind::Tolerations => spec.tolerations.iter().flatten().any(|toleration| {
                let key = text(&toleration.key);
                key.is_empty() || self.is_named(&key)
            }),
        }
    }
}

impl Rule for Names {
    fn about(&self) -> &'static About {
        match self.kind {
            Kind::PriorityClass => &PRIORITY_CLASSES,
            Kind::RuntimeClass => &RUNTIME_CLASSES,
            Kind::NodeSelector => &NODE_SELECTOR,
            Kind::Tolerations => &TOLERATIONS,
        }
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let chooses = matches!(self.kind, Kind::NodeSelector | Kind::Tolerations);
        let refused = chooses && pod.names_its_node() || pod.spec().is_some_and(|spec| self.refuses(spec));
        if refused { vec![Complaint::pod(self.text(), Path::spec(self.kind.field()))] } else { vec![] }
    }

    fn form(&self) -> Vec<Part> {
        let names = strings(&self.names);
        let field = format!("object.spec.?{}", self.kind.field());
        let bad = match self.kind {
            Kind::PriorityClass => format!("!({field}.orValue('') in (['']+{names}))"),
            Kind::RuntimeClass => format!("!({field}.orValue('') in {names})"),
            Kind::NodeSelector => {
                let avoid = strings(AVOID);
                let chooses = format!("exists(e, e.key in {names} && !(e.operator in {avoid}))");
                format!(
                    "({NAMES_ITS_NODE} || {field}.orValue({{}}).exists(k, k in {names}) || \
                     {REQUIRED}.exists(t, t.?matchExpressions.orValue([]).{chooses}) || \
                     {PREFERRED}.exists(p, p.preference.?matchExpressions.orValue([]).{chooses}))"
                )
            }
            Kind::Tolerations => {
                format!("({NAMES_ITS_NODE} || {field}.orValue([]).exists(t, t.?key.orValue('') in (['']+{names})))")
            }
        };
        vec![Part::pod(bad, string(&self.text()))]
    }
}
