//! Network plug-ins that enforce NetworkPolicies, by what each leaves in a cluster. Without one they are without effect,
//! and nothing else in a cluster says so (KEP-2943, which would have, was withdrawn).

use std::collections::BTreeMap;

/// It matches addresses of nodes with no `ipBlock`, unless `policyCIDRMatchMode` says so (cilium/cilium#20550).
pub(super) const CILIUM: &str = "Cilium";

/// Labels of the pods of a plug-in's DaemonSet, as its own manifests and charts write them.
const PODS: [(&str, &str, &str); 12] = [
    ("k8s-app", "calico-node", "Calico"),
    ("k8s-app", "canal", "Calico (Canal)"),
    ("k8s-app", "cilium", CILIUM),
    ("app", "antrea", "Antrea"),
    ("k8s-app", "kube-router", "kube-router"),
    ("name", "weave-net", "Weave Net"),
    ("k8s-app", "azure-npm", "Azure Network Policy Manager"),
    ("app", "ovnkube-node", "OVN-Kubernetes"),
    ("app", "kube-ovn-cni", "Kube-OVN"),
    ("k8s-app", "kube-network-policies", "kube-network-policies"),
    ("app", "kindnet", "kindnet"),
    ("app", "romana-agent", "Romana"),
];

/// API groups of a plug-in's custom resources.
const GROUPS: [(&str, &str); 6] = [
    ("crd.projectcalico.org", "Calico"),
    ("cilium.io", CILIUM),
    ("crd.antrea.io", "Antrea"),
    ("k8s.ovn.org", "OVN-Kubernetes"),
    ("kubeovn.io", "Kube-OVN"),
    ("networking.k8s.aws", "the network policy agent of Amazon's VPC CNI"),
];

/// The plug-in that a pod with these labels is of.
pub(super) fn of_pod(labels: &BTreeMap<String, String>) -> Option<&'static str> {
    let is_so = |(key, value, _): &&(&str, &str, _)| labels.get(*key).is_some_and(|it| it == value);
    PODS.iter().find(is_so).map(|(_, _, name)| *name)
}

/// The plug-in that an API group is of.
#[must_use]
pub fn of_group(group: &str) -> Option<&'static str> {
    GROUPS.iter().find(|(known, _)| *known == group).map(|(_, name)| *name)
}
