//! Where every random pod begins.

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{name, pick};

/// A pod that restricted allows at every version.
pub(super) fn compliant(rng: &mut StdRng) -> Value {
    let mut pod = json!({"metadata": {"name": "pod", "labels": {"app": "web"}}, "spec": {"securityContext": {}}});
    let by_pod = rng.random_bool(0.6);
    let profile =
        pick(rng, &[json!({"type": "RuntimeDefault"}), json!({"type": "Localhost", "localhostProfile": "a"})]);
    if by_pod {
        pod["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": profile});
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let number =
            if list == "containers" { rng.random_range(1..4) } else { rng.random_range(0_usize..5).saturating_sub(2) };
        let mut containers = vec![];
        for _ in 0..number {
            let mut context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
            if !by_pod || rng.random_bool(0.2) {
                context["runAsNonRoot"] = json!(true);
                context["seccompProfile"] = profile.clone();
            }
            if rng.random_bool(0.2) {
                context["capabilities"]["add"] = json!(["NET_BIND_SERVICE"]);
            }
            containers.push(json!({
                "name": name(rng), "image": "registry.example.com/team/app:1.2.3", "securityContext": context,
                "ports": [{"containerPort": 8080, "name": "http"}],
                "env": [{"name": "MODE", "value": "production"}],
                "resources": {"limits": {"memory": "128Mi"}, "requests": {"cpu": "10m"}},
            }));
        }
        if number > 0 {
            pod["spec"][list] = json!(containers);
        }
    }
    if rng.random_bool(0.5) {
        pod["spec"]["volumes"] =
            json!([{"name": "tmp", "emptyDir": {}}, {"name": "config", "configMap": {"name": "c"}}]);
    }
    pod
}
