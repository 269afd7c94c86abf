//! Policies that cover one namespace: the restricted standard, every rule beyond it, and exceptions from both.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use rampart::hardening::{ClusterWide, Covering, Exception, Origin, Policies, Requirement};
use serde_json::{Value, from_value, json};

pub const NAMESPACE: &str = "web";

/// A time at which the exceptions hold.
pub fn now() -> Timestamp {
    "2026-06-15T00:00:00Z".parse().expect("a time")
}

pub fn known() -> Policies {
    let own = ["Enforce", "Disabled"].map(|mode| {
        let hardening =
            json!({"mode": mode, "podSecurity": {"level": "restricted", "version": "latest"}, "rules": rules()});
        let requirement = Requirement::try_from(&from_value(hardening).expect("a requirement")).expect("a requirement");
        let origin = Origin::SecurityPolicy(mode.to_lowercase());
        Covering { origin, made: None, requirement, exceptions: Arc::default() }
    });
    let wide = [
        ("old", "restricted", "v1.18", "Warn", "Preview"),
        ("base", "baseline", "v1.30", "Enforce", "Disabled"),
        ("mended", "restricted", "latest", "Audit", "Apply"),
    ];
    let wide = wide.map(|(name, level, version, mode, fix)| {
        let policy = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy",
            "metadata": {"name": name}, "spec": {
                "namespaceSelector": {"matchLabels": {"team": "web"}},
                "hardening": {"mode": mode, "podSecurity": {"level": level, "version": version}, "fix": fix},
                "exceptions": {"namespaces": [NAMESPACE], "maxDuration": "8760h"}}});
        let policy = ClusterWide::try_from(&from_value(policy).expect("a policy")).expect("a policy");
        (name.to_owned(), policy)
    });
    let exceptions = vec![
        exception(&json!({"policies": [{"kind": "SecurityPolicy", "name": "enforce"}], "images": ["**"],
            "rules": ["pss/privileged", "pss/capabilities_restricted", "hardening/probes", "hardening/volumes.allow"],
            "values": {"pss/capabilities_restricted": ["NET_ADMIN"], "hardening/volumes.allow": ["nfs", "/var/log"]},
            "containers": ["debugger", "a"]})),
        exception(&json!({"policies": [{"kind": "ClusterSecurityPolicy", "name": "base"},
                                       {"kind": "SecurityPolicy", "name": "enforce"}],
            "images": ["docker.io/library/*", "*.example.com/team/**:1.*"],
            "rules": ["pss/hostNamespaces", "pss/runAsNonRoot", "hardening/images.allow", "hardening/users"],
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}})),
    ];
    Policies {
        own: Arc::new(HashMap::from([(NAMESPACE.to_owned(), Arc::from(own))])),
        wide: Arc::new(wide.into()),
        labels: Arc::new(HashMap::from([(NAMESPACE.to_owned(), [("team".to_owned(), "web".to_owned())].into())])),
        exceptions: Arc::new(HashMap::from([(NAMESPACE.to_owned(), exceptions)])),
    }
}

fn exception(spec: &Value) -> Exception {
    let mut spec = spec.clone();
    spec["reason"] = json!("fuzzing");
    spec["expiresAt"] = json!("2027-01-01T00:00:00Z");
    let metadata = json!({"name": "it", "namespace": NAMESPACE, "creationTimestamp": "2026-06-01T00:00:00Z"});
    let kind = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": metadata, "spec": spec});
    Exception::try_from(&from_value(kind).expect("an exception")).expect("an exception")
}

/// Every rule that there is.
fn rules() -> Value {
    json!({
        "readOnlyRootFilesystem": "Required",
        "resourceRequests": ["cpu", "memory"],
        "resourceLimits": ["memory"],
        "images": {"allow": ["registry.example.com/**", "docker.io/library/*", "*.example.com/team/**:1.*"],
                   "deny": ["quay.io/**", "nginx:1.27"], "requireDigest": true, "forbidTags": ["latest", "dev"]},
        "users": {"minUid": 1000, "minGid": 1000, "minFsGroup": 1000, "requireExplicit": true},
        "capabilities": {"allowAdd": ["NET_BIND_SERVICE"]},
        "seccomp": {"localhostProfiles": ["a"]},
        "appArmor": {"localhostProfiles": ["a"]},
        "userNamespaces": "Required",
        "serviceAccountToken": "Forbidden",
        "volumes": {"allow": ["configMap", "secret", "projected", "hostPath"],
                    "hostPaths": [{"prefix": "/var/log", "readOnly": true}, {"prefix": "/data/"}]},
        "probes": ["readiness", "liveness", "startup"],
        "hostPorts": {"allow": [{"min": 8000, "max": 8080}]},
        "terminationGracePeriod": {"max": "20s"},
        "priorityClasses": {"allow": ["low"]},
        "nodeSelector": {"forbid": ["role"]},
        "tolerations": {"forbid": ["role"]},
        "runtimeClasses": {"require": ["gvisor"]},
    })
}
