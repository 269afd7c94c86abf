//! What rules beyond the standards look at, set at random in a pod that the API server accepts.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use super::{container_of, pick, push};

const DIGEST: &str = "registry.example.com/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const IMAGES: [&str; 21] = [
    "Registry.example.com/app:1",
    "registry.example.com:443/app:1",
    "DOCKER.io:0443/nginx:1.27",
    "nginx",
    "nginx:1.27",
    "nginx:latest",
    "library/nginx",
    "docker.io/nginx",
    "docker.io/library/nginx:1.27",
    "index.docker.io/team/app",
    "docker.io/team/app:latest",
    "team/app:1",
    "registry.example.com/app:1.2.3",
    "registry.example.com/team/app",
    "registry.example.com:5000/team/app:latest",
    "localhost/app",
    "localhost:5000/a/b/c:1",
    DIGEST,
    "team/app:latest@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "UPPER/app:1",
    "not an image?",
];

type Change = fn(&mut StdRng, &mut Value);

/// Changes of the pod.
const OF_POD: [Change; 15] = [
    |rng, spec| spec["hostUsers"] = pick(rng, &[json!(true), json!(false)]),
    |rng, spec| spec["automountServiceAccountToken"] = pick(rng, &[json!(true), json!(false)]),
    |rng, spec| spec["terminationGracePeriodSeconds"] = pick(rng, &[0, 5, 30, 31, 600].map(Value::from)),
    |rng, spec| spec["priorityClassName"] = pick(rng, &["low", "system-node-critical", ""].map(Value::from)),
    |_, spec| spec["runtimeClassName"] = json!("gvisor"),
    |_, spec| spec["nodeName"] = json!("node-1"),
    |rng, spec| {
        spec["nodeSelector"] = pick(rng, &[json!({"role": "x"}), json!({"disk": "ssd", "zone": "a"}), json!({})]);
    },
    |rng, spec| {
        let operator = pick(rng, &["In", "NotIn", "Exists", "DoesNotExist"].map(Value::from));
        let takes_values = operator.as_str().is_some_and(|it| it.ends_with("In"));
        let key = pick(rng, &["role", "zone", "disk"].map(Value::from));
        let mut expression = json!({"key": key, "operator": operator});
        if takes_values {
            expression["values"] = json!(["x"]);
        }
        let term = json!({"matchExpressions": [{"key": "disk", "operator": "Exists"}, expression]});
        let nodes = [
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}),
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]}),
        ];
        spec["affinity"]["nodeAffinity"] = pick(rng, &nodes);
    },
    |rng, spec| {
        spec["tolerations"] = pick(
            rng,
            &[
                json!([{"operator": "Exists"}]),
                json!([{"key": "role", "operator": "Exists", "effect": "NoSchedule"}]),
                json!([{"key": "other", "value": "x"}]),
            ],
        );
    },
    |rng, spec| spec["restartPolicy"] = pick(rng, &["Always", "Never", "OnFailure"].map(Value::from)),
    |rng, spec| {
        let resources = [json!({"limits": {"memory": "1Gi"}}), json!({"requests": {"cpu": "1", "memory": "1Gi"}})];
        spec["resources"] = pick(rng, &resources);
    },
    |rng, spec| spec["securityContext"]["runAsUser"] = pick(rng, &[0, 999, 1000, 65_534].map(Value::from)),
    |rng, spec| spec["securityContext"]["runAsGroup"] = pick(rng, &[0, 99, 1000].map(Value::from)),
    |rng, spec| spec["securityContext"]["fsGroup"] = pick(rng, &[0, 99, 1000].map(Value::from)),
    |rng, spec| {
        let volumes = [
            json!({"hostPath": {"path": "/var/log"}}),
            json!({"hostPath": {"path": "/var/log/pods"}}),
            json!({"hostPath": {"path": "/var/logs"}}),
            json!({"hostPath": {"path": "/"}}),
            json!({"hostPath": {"path": "nfs"}}),
            json!({"image": {"reference": "nginx:latest"}}),
            json!({"image": {"reference": "registry.example.com/data:1"}}),
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
            json!({"configMap": {"name": "c"}}),
            json!({"nfs": {"server": "s", "path": "/"}}),
        ];
        let mut volume = pick(rng, &volumes);
        let name = format!("extra-{}", rng.random_range(0..1000));
        volume["name"] = json!(name);
        let mount = json!({"name": name, "mountPath": format!("/{name}"), "readOnly": rng.random_bool(0.5)});
        push(&mut spec["volumes"], volume);
        if let Some(container) = container_of(rng, spec) {
            push(&mut container["volumeMounts"], mount);
        }
    },
];

/// Changes of a container.
const OF_CONTAINER: [Change; 10] = [
    |rng, it| it["securityContext"]["readOnlyRootFilesystem"] = json!(rng.random_bool(0.7)),
    |rng, it| it["securityContext"]["runAsUser"] = pick(rng, &[0, 999, 1000, 65_534].map(Value::from)),
    |rng, it| it["securityContext"]["runAsGroup"] = pick(rng, &[0, 99, 1000].map(Value::from)),
    |rng, it| {
        let resources = [
            json!({"limits": {"memory": "64Mi"}}),
            json!({"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}}),
            json!({"requests": {"memory": "64Mi"}}),
            json!({"requests": {"cpu": "0", "memory": "0.5Gi"}, "limits": {"memory": "1e9"}}),
            json!({"limits": {"memory": "0"}}),
        ];
        it["resources"] = pick(rng, &resources);
    },
    |rng, it| {
        let probe = ["readinessProbe", "livenessProbe", "startupProbe"].choose(rng).copied().unwrap_or_default();
        it[probe] = json!({"tcpSocket": {"port": 80}});
    },
    |rng, it| {
        it["securityContext"]["capabilities"] =
            pick(rng, &[json!({"add": ["CHOWN", "KILL"]}), json!({"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]})]);
    },
    |rng, it| {
        let profiles = [
            json!({"type": "Localhost", "localhostProfile": "good.json"}),
            json!({"type": "Localhost", "localhostProfile": "bad.json"}),
            json!({"type": "RuntimeDefault"}),
        ];
        it["securityContext"]["seccompProfile"] = pick(rng, &profiles);
    },
    |rng, it| {
        let profiles = [
            json!({"type": "Localhost", "localhostProfile": "good"}),
            json!({"type": "Localhost", "localhostProfile": "bad"}),
            json!({"type": "RuntimeDefault"}),
        ];
        it["securityContext"]["appArmorProfile"] = pick(rng, &profiles);
    },
    |rng, it| {
        let port = pick(rng, &[80, 8000, 8002, 8003, 9].map(Value::from));
        it["ports"] = json!([{"containerPort": port, "hostPort": port}]);
    },
    |rng, it| it["image"] = pick(rng, &IMAGES.map(Value::from)),
];

/// The pod, with some of what rules look at. The priority class `low` and the runtime class `gvisor` must
/// exist.
#[must_use]
pub fn ruled(rng: &mut StdRng, mut pod: Value) -> Value {
    let spec = &mut pod["spec"];
    if rng.random_bool(0.2) {
        // One by one, hardly any pod would come to have digests alone.
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = json!(DIGEST);
            }
        }
    }
    for _ in 0..rng.random_range(0..5) {
        if let Some(change) = OF_POD.choose(rng) {
            change(rng, spec);
        }
    }
    for _ in 0..rng.random_range(0..6) {
        let change = OF_CONTAINER.choose(rng).copied();
        if let (Some(change), Some(container)) = (change, container_of(rng, spec)) {
            change(rng, container);
        }
    }
    if rng.random_bool(0.1)
        && let Some(init) = spec["initContainers"].as_array_mut().and_then(|list| list.first_mut())
    {
        init["restartPolicy"] = json!("Always");
    }
    pod
}
