//! Kinds of objects that can be explained, and how they are called.

use kube::{api::ApiResource, core::GroupVersionKind};

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    group: &'static str,
    version: &'static str,
    pub(super) name: &'static str,
    plural: &'static str,
    shorts: &'static [&'static str],
    pub(super) what: What,
}

/// What there is to say of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Pod,
    /// It holds a pod template.
    Template,
    Namespace,
    NetworkPolicy,
    SecurityPolicy,
    ClusterSecurityPolicy,
    ApiKey,
    /// Retention alone: its metadata is read, and nothing else of it.
    Kept,
}

const fn kind(
    (group, version): (&'static str, &'static str),
    name: &'static str,
    plural: &'static str,
    shorts: &'static [&'static str],
    what: What,
) -> Kind {
    Kind { group, version, name, plural, shorts, what }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const OURS: (&str, &str) = (crate::GROUP, "v1alpha1");

static KINDS: [Kind; 16] = [
    kind(CORE, "Pod", "pods", &["po"], What::Pod),
    kind(APPS, "Deployment", "deployments", &["deploy"], What::Template),
    kind(APPS, "ReplicaSet", "replicasets", &["rs"], What::Template),
    kind(APPS, "StatefulSet", "statefulsets", &["sts"], What::Template),
    kind(APPS, "DaemonSet", "daemonsets", &["ds"], What::Template),
    kind(BATCH, "Job", "jobs", &[], What::Template),
    kind(BATCH, "CronJob", "cronjobs", &["cj"], What::Template),
    kind(CORE, "ReplicationController", "replicationcontrollers", &["rc"], What::Template),
    kind(CORE, "Namespace", "namespaces", &["ns"], What::Namespace),
    kind(("networking.k8s.io", "v1"), "NetworkPolicy", "networkpolicies", &["netpol"], What::NetworkPolicy),
    kind(OURS, "SecurityPolicy", "securitypolicies", &["rsp"], What::SecurityPolicy),
    kind(OURS, "ClusterSecurityPolicy", "clustersecuritypolicies", &["rcsp"], What::ClusterSecurityPolicy),
    kind(OURS, "ApiKey", "apikeys", &["rkey"], What::ApiKey),
    kind(CORE, "ConfigMap", "configmaps", &["cm"], What::Kept),
    kind(CORE, "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], What::Kept),
    kind(CORE, "Secret", "secrets", &[], What::Kept),
];

impl Kind {
    /// How the API server calls it.
    pub(super) fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.name), self.plural)
    }

    /// Whether its objects stand in a namespace.
    pub(super) const fn is_namespaced(&self) -> bool {
        !matches!(self.what, What::Namespace | What::ClusterSecurityPolicy)
    }

    pub(super) const fn group(&self) -> &'static str {
        self.group
    }

    fn is_called(&self, name: &str, group: Option<&str>) -> bool {
        let named = name == self.plural || name == self.name.to_lowercase() || self.shorts.contains(&name);
        named && group.is_none_or(|group| group == self.group)
    }
}

/// An object, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: &'static Kind,
    pub(super) name: String,
}

/// Reads `KIND/NAME`; the kind may be written as for kubectl: `po/x`, `pods/x`, `deployments.apps/x`.
pub(super) fn parse(text: &str) -> Result<Asked, String> {
    let written = text.split_once('/').filter(|(kind, name)| !kind.is_empty() && is_name(name));
    let (kind, name) = written.ok_or("write KIND/NAME, such as pod/web or rsp/web")?;
    let lower = kind.to_lowercase();
    let (called, group) = lower.split_once('.').map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
    let known = KINDS.iter().find(|kind| kind.is_called(called, group));
    let kind = known.ok_or_else(|| format!("{kind:?} is none of the kinds that can be explained: {}", listed()))?;
    Ok(Asked { kind, name: name.into() })
}

/// Every kind, with its short names: `pod (po), ...`.
fn listed() -> String {
    let told = KINDS.iter().map(|kind| match kind.shorts {
        [] => kind.name.to_lowercase(),
        shorts => format!("{} ({})", kind.name.to_lowercase(), shorts.join(", ")),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Whether an object can be called so: names stand in paths.
fn is_name(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("pod/web", "Pod")]
    #[case("po/web", "Pod")]
    #[case("Pods/web", "Pod")]
    #[case("deploy/web", "Deployment")]
    #[case("deployments.apps/web", "Deployment")]
    #[case("netpol/web", "NetworkPolicy")]
    #[case("securitypolicies.rampart.dev/web", "SecurityPolicy")]
    #[case("rsp/web", "SecurityPolicy")]
    #[case("ns/web", "Namespace")]
    fn kinds_are_called_as_for_kubectl(#[case] text: &str, #[case] wanted: &str) {
        let asked = parse(text).unwrap();
        assert_eq!((asked.kind.name, asked.name.as_str()), (wanted, "web"));
    }

    #[rstest]
    #[case("web", "write KIND/NAME")]
    #[case("pod/", "write KIND/NAME")]
    #[case("pod/../secrets", "write KIND/NAME")]
    #[case("node/a", "\"node\" is none of the kinds that can be explained: pod (po), deployment (deploy), ")]
    #[case("securitypolicies.gateway.envoyproxy.io/a", "\"securitypolicies.gateway.envoyproxy.io\" is none of")]
    fn what_is_no_object_is_refused(#[case] text: &str, #[case] said: &str) {
        let refused = parse(text).unwrap_err();
        assert!(refused.starts_with(said), "{refused}");
    }
}
