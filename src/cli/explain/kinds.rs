//! Kinds of objects that can be explained, and how they are called.

use std::{borrow::Cow, fmt};

use kube::{api::ApiResource, core::GroupVersionKind};

use crate::api::dns::is_subdomain;

/// A kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    group: Cow<'static, str>,
    version: Cow<'static, str>,
    pub(super) name: Cow<'static, str>,
    plural: Cow<'static, str>,
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
    LegalHold,
    ClusterLegalHold,
    /// Retention alone: its metadata is read, and nothing else of it.
    Kept,
    /// Retention alone.
    Other,
}

impl What {
    /// Whether it is a kind of Rampart's that stands in no namespace.
    pub(super) const fn is_of_cluster(self) -> bool {
        matches!(self, Self::ClusterSecurityPolicy | Self::ClusterLegalHold)
    }

    pub(super) const fn is_hold(self) -> bool {
        matches!(self, Self::LegalHold | Self::ClusterLegalHold)
    }
}

const fn kind(
    (group, version): (&'static str, &'static str),
    name: &'static str,
    plural: &'static str,
    shorts: &'static [&'static str],
    what: What,
) -> Kind {
    let [group, version, name, plural] =
        [Cow::Borrowed(group), Cow::Borrowed(version), Cow::Borrowed(name), Cow::Borrowed(plural)];
    Kind { group, version, name, plural, shorts, what }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const OURS: (&str, &str) = (crate::GROUP, crate::cli::fields::VERSION);

static KINDS: [Kind; 21] = [
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
    kind(OURS, "LegalHold", "legalholds", &["rhold"], What::LegalHold),
    kind(OURS, "ClusterLegalHold", "clusterlegalholds", &["rchold"], What::ClusterLegalHold),
    kind(OURS, "PolicyException", "policyexceptions", &["rpx"], What::Other),
    kind(OURS, "RetentionPolicy", "retentionpolicies", &["rret"], What::Other),
    kind(OURS, "RetentionReport", "retentionreports", &["rrep"], What::Other),
    kind(CORE, "ConfigMap", "configmaps", &["cm"], What::Kept),
    kind(CORE, "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], What::Kept),
    kind(CORE, "Secret", "secrets", &[], What::Kept),
];

impl Kind {
    /// One that is not listed here.
    pub(super) fn other(resource: &ApiResource) -> Self {
        let [group, version, name, plural] =
            [&resource.group, &resource.version, &resource.kind, &resource.plural].map(|it| Cow::Owned(it.clone()));
        Self { group, version, name, plural, shorts: &[], what: What::Other }
    }

    /// How the API server calls it.
    pub(super) fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&self.group, &self.version, &self.name), &self.plural)
    }

    /// Whether its objects stand in a namespace.
    pub(super) const fn is_namespaced(&self) -> bool {
        !matches!(self.what, What::Namespace) && !self.what.is_of_cluster()
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    fn is_called(&self, name: &str, group: Option<&str>) -> bool {
        let named = name == self.plural || name == self.name.to_lowercase() || self.shorts.contains(&name);
        named && group.is_none_or(|group| group == self.group)
    }
}

/// A kind, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Its name or its plural, in lower case.
    pub(super) called: String,
    pub(super) group: Option<String>,
}

impl Written {
    /// The kind, if it is listed here.
    pub(super) fn listed(&self) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.is_called(&self.called, self.group.as_deref()))
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.called)?;
        self.group.iter().try_for_each(|group| write!(f, ".{group}"))
    }
}

/// An object, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: Written,
    pub(super) name: String,
}

/// Reads `KIND/NAME`; the kind may be written as for kubectl: `po/x`, `pods/x`, `deployments.apps/x`.
pub(super) fn parse(text: &str) -> Result<Asked, String> {
    let written = text.split_once('/').map(|(kind, name)| (kind.to_lowercase(), name));
    let written = written.filter(|(kind, name)| is_subdomain(kind) && is_subdomain(name));
    let (kind, name) = written.ok_or("write KIND/NAME, such as pod/web or rsp/web")?;
    let (called, group) = match kind.split_once('.') {
        Some((called, group)) => (called.to_owned(), Some(group.to_owned())),
        None => (kind, None),
    };
    Ok(Asked { kind: Written { called, group }, name: name.into() })
}

/// Every kind that is listed here, with its short names: `pod (po), ...`.
pub(super) fn listed() -> String {
    let told = KINDS.iter().map(|kind| match kind.shorts {
        [] => kind.name.to_lowercase(),
        shorts => format!("{} ({})", kind.name.to_lowercase(), shorts.join(", ")),
    });
    told.collect::<Vec<_>>().join(", ")
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
    #[case("rhold/web", "LegalHold")]
    #[case("clusterlegalholds/web", "ClusterLegalHold")]
    #[case("rpx/web", "PolicyException")]
    #[case("ns/web", "Namespace")]
    fn kinds_are_called_as_for_kubectl(#[case] text: &str, #[case] wanted: &str) {
        let asked = parse(text).unwrap();
        assert_eq!((&*asked.kind.listed().unwrap().name, asked.name.as_str()), (wanted, "web"));
    }

    #[rstest]
    #[case("node/a")]
    #[case("workflows.argoproj.io/a")]
    #[case("securitypolicies.gateway.envoyproxy.io/a")]
    fn others_are_asked_for(#[case] text: &str) {
        let asked = parse(text).unwrap();
        assert_eq!((asked.kind.listed(), asked.kind.to_string()), (None, text.trim_end_matches("/a").to_owned()));
    }

    #[rstest]
    #[case("web", "write KIND/NAME")]
    #[case("pod/", "write KIND/NAME")]
    #[case("pod/../secrets", "write KIND/NAME")]
    #[case("../pods/web", "write KIND/NAME")]
    fn what_is_no_object_is_refused(#[case] text: &str, #[case] said: &str) {
        let refused = parse(text).unwrap_err();
        assert!(refused.starts_with(said), "{refused}");
    }
}
