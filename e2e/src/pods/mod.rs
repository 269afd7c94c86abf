//! Random pods for differential tests of the Pod Security Standards: some compliant, some one mutation
//! away, the rest several. How good the generator is, is tested too: `e2e/judges/pss/faults.yaml`.

mod annotations;
mod compliant;
mod ruled;
mod valid;

use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};
use serde_json::{Value, json};

use self::{
    annotations::{app_armor_annotation, seccomp_annotation},
    compliant::compliant,
};
pub use self::{ruled::ruled, valid::acceptable};

/// A source of pods; the same seed makes the same pods.
pub struct Pods(StdRng);

/// A pod, and how it was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// `compliant`, or the mutations in their order.
    pub label: String,
    /// The pod.
    pub pod: Value,
}

type Mutation = fn(&mut StdRng, &mut Value);

/// Everything that a check looks at, and what it must not look at.
const MUTATIONS: [(&str, Mutation); 25] = [
    ("app armor", app_armor),
    ("app armor annotation", app_armor_annotation),
    ("capabilities added", capabilities_added),
    ("capabilities dropped", capabilities_dropped),
    ("host namespaces", host_namespaces),
    ("volumes", volumes),
    ("ports", ports),
    ("called hosts", called_hosts),
    ("called hosts", called_hosts),
    ("privileged", |rng, pod| {
        of_container(rng, pod, "privileged", &[json!(true), json!(true), json!(false), Value::Null]);
    }),
    ("proc mount", |rng, pod| {
        of_container(rng, pod, "procMount", &["Unmasked", "Unmasked", "Default", "", "default"].map(Value::from));
    }),
    ("selinux", selinux),
    ("seccomp", seccomp),
    ("seccomp annotation", seccomp_annotation),
    ("sysctls", sysctls),
    ("sysctls", sysctls),
    ("host process", |rng, pod| {
        let options = [json!({"hostProcess": true}), json!({"hostProcess": false}), json!({})];
        anywhere(rng, pod, "windowsOptions", &options);
    }),
    ("os", |rng, pod| {
        pod["spec"]["os"] =
            pick(rng, &[json!({"name": "windows"}), json!({"name": "Windows"}), json!({"name": "linux"}), json!({})]);
    }),
    ("host users", |rng, pod| {
        pod["spec"]["hostUsers"] = pick(rng, &[json!(false), json!(false), json!(true), Value::Null]);
    }),
    ("run as non root", |rng, pod| {
        anywhere(rng, pod, "runAsNonRoot", &[json!(false), json!(false), json!(true), Value::Null]);
    }),
    ("run as user", |rng, pod| anywhere(rng, pod, "runAsUser", &[json!(0), json!(0), json!(1000), Value::Null])),
    ("privilege escalation", |rng, pod| {
        of_container(rng, pod, "allowPrivilegeEscalation", &[json!(true), Value::Null]);
    }),
    ("no context", |rng, pod| {
        let place = if rng.random_bool(0.5) { Some(&mut pod["spec"]) } else { container(rng, pod) };
        if let Some(place) = place {
            place["securityContext"] = pick(rng, &[Value::Null, json!({})]);
        }
    }),
    ("bare container", |rng, pod| {
        let name = name(rng);
        add_container(rng, pod, json!({"name": name}));
    }),
    ("wrong case", |rng, pod| {
        let key = pick(rng, &["HostNetwork", "hostPid", "HostPID", "hostipc"].map(Value::from));
        pod["spec"][key.as_str().unwrap_or_default()] = json!(true);
    }),
];

impl Pods {
    /// Pods of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }
}

impl Iterator for Pods {
    type Item = Made;

    fn next(&mut self) -> Option<Made> {
        let rng = &mut self.0;
        let mut pod = compliant(rng);
        let mutations = match rng.random_range(0..6) {
            0 => 0,
            1 => 1,
            _ => rng.random_range(2..9),
        };
        let mut label = vec![];
        for _ in 0..mutations {
            let (name, mutate) = MUTATIONS.choose(rng)?;
            mutate(rng, &mut pod);
            label.push(*name);
        }
        let label = if label.is_empty() { "compliant".into() } else { label.join(", ") };
        Some(Made { label, pod })
    }
}

fn pick(rng: &mut StdRng, values: &[Value]) -> Value {
    values.choose(rng).cloned().unwrap_or_default()
}

fn name(rng: &mut StdRng) -> String {
    let names = ["web", "init", "sidecar", "debugger", "db", "a", "b", "z-1", "container", "pod"];
    names.choose(rng).map_or_else(String::new, |name| format!("{name}{}", rng.random_range(0..30)))
}

/// A container of any of the three lists.
fn container<'a>(rng: &mut StdRng, pod: &'a mut Value) -> Option<&'a mut Value> {
    container_of(rng, &mut pod["spec"])
}

fn container_of<'a>(rng: &mut StdRng, spec: &'a mut Value) -> Option<&'a mut Value> {
    let lists = spec.as_object_mut()?.iter_mut().filter(|(key, _)| key.to_lowercase().ends_with("containers"));
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten().choose(rng)
}

fn names(pod: &Value) -> Vec<String> {
    let spec = pod["spec"].as_object().into_iter().flatten();
    let lists = spec.filter(|(key, _)| key.to_lowercase().ends_with("containers"));
    let containers = lists.filter_map(|(_, list)| list.as_array()).flatten();
    containers.filter_map(|container| container["name"].as_str()).map(ToOwned::to_owned).collect()
}

fn add_container(rng: &mut StdRng, pod: &mut Value, container: Value) {
    let list = pick(rng, &["initContainers", "containers", "ephemeralContainers"].map(Value::from));
    push(&mut pod["spec"][list.as_str().unwrap_or_default()], container);
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

/// Sets a field of a container's security context.
fn of_container(rng: &mut StdRng, pod: &mut Value, field: &str, values: &[Value]) {
    let value = pick(rng, values);
    if let Some(container) = container(rng, pod) {
        container["securityContext"][field] = value;
    }
}

/// Sets a field of the security context of the pod or of a container.
fn anywhere(rng: &mut StdRng, pod: &mut Value, field: &str, values: &[Value]) {
    if rng.random_bool(0.4) {
        pod["spec"]["securityContext"][field] = pick(rng, values);
    } else {
        of_container(rng, pod, field, values);
    }
}

const PROFILES: [&str; 7] = ["Unconfined", "RuntimeDefault", "Localhost", "", "localhost", "runtime/default", "a\"b"];

fn app_armor(rng: &mut StdRng, pod: &mut Value) {
    anywhere(rng, pod, "appArmorProfile", &PROFILES.map(|kind| json!({"type": kind})));
}

fn seccomp(rng: &mut StdRng, pod: &mut Value) {
    let mut values = PROFILES.map(|kind| json!({"type": kind})).to_vec();
    values.push(Value::Null);
    anywhere(rng, pod, "seccompProfile", &values);
}

fn capabilities_added(rng: &mut StdRng, pod: &mut Value) {
    const NAMES: [&str; 24] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
        "NET_BIND_SERVICE",
        "net_bind_service",
        "chown",
        "CAP_CHOWN",
        "CAP_NET_BIND_SERVICE",
        "SYS_ADMIN",
        "NET_RAW",
        "ALL",
        "",
        "a\"b\\c",
        "SYS_CHROOT",
    ];
    let add: Vec<_> = (0..rng.random_range(0..4)).map(|_| pick(rng, &NAMES.map(Value::from))).collect();
    if let Some(container) = container(rng, pod) {
        container["securityContext"]["capabilities"]["add"] = json!(add);
    }
}

fn capabilities_dropped(rng: &mut StdRng, pod: &mut Value) {
    let drops = [
        json!(["all"]),
        json!(["NET_RAW"]),
        json!([]),
        json!(["NET_RAW", "ALL"]),
        Value::Null,
        json!(["CAP_ALL"]),
        json!(["All"]),
    ];
    let drop = pick(rng, &drops);
    let wholly = rng.random_bool(0.1);
    if let Some(container) = container(rng, pod) {
        let capabilities = &mut container["securityContext"]["capabilities"];
        if wholly {
            *capabilities = Value::Null;
        } else {
            capabilities["drop"] = drop;
        }
    }
}

fn host_namespaces(rng: &mut StdRng, pod: &mut Value) {
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if rng.random_bool(0.5) {
            pod["spec"][field] = pick(rng, &[json!(true), json!(true), json!(false), Value::Null]);
        }
    }
}

fn volumes(rng: &mut StdRng, pod: &mut Value) {
    const SOURCES: [&str; 34] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
        "hostPath",
        "hostPath",
        "hostpath",
        "somethingNew",
    ];
    let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..4) {
        let mut volume = json!({"name": name(rng)});
        // What API validation never lets in, and the standards decide all the same.
        if rng.random_bool(0.1) {
            volume["hostPath"] = json!({});
            volume["configMap"] = json!({});
        }
        if rng.random_bool(0.2) {
            volumes.push(json!({"name": name(rng), "hostPath": {}}));
        }
        for _ in 0..*[0, 1, 1, 1, 1, 2].choose(rng).unwrap_or(&1) {
            let source = pick(rng, &SOURCES.map(Value::from));
            volume[source.as_str().unwrap_or_default()] = pick(rng, &[json!({}), json!({}), json!({}), Value::Null]);
        }
        volumes.push(volume);
    }
    pod["spec"]["volumes"] = json!(volumes);
}

fn ports(rng: &mut StdRng, pod: &mut Value) {
    for _ in 0..rng.random_range(1..3) {
        let ports: Vec<_> = (0..rng.random_range(1..4))
            .map(|_| json!({"containerPort": 80, "hostPort": pick(rng, &[0, 0, 9, 10, 80, 443, 8080, 65535].map(Value::from))}))
            .collect();
        if let Some(container) = container(rng, pod) {
            container["ports"] = json!(ports);
        }
    }
}

fn called_hosts(rng: &mut StdRng, pod: &mut Value) {
    for _ in 0..rng.random_range(1..3) {
        let host = pick(rng, &["", "localhost", "10.0.0.1", "10.0.0.1", "example.com", "a\"b"].map(Value::from));
        let action = pick(
            rng,
            &[
                json!({"httpGet": {"host": host, "port": 80}}),
                json!({"tcpSocket": {"host": host, "port": 80}}),
                json!({"exec": {"command": ["true"]}}),
            ],
        );
        let place = rng.random_range(0..5);
        let Some(container) = container(rng, pod) else { return };
        match place {
            0 => container["livenessProbe"] = action,
            1 => container["readinessProbe"] = action,
            2 => container["startupProbe"] = action,
            3 => container["lifecycle"]["postStart"] = action,
            _ => container["lifecycle"]["preStop"] = action,
        }
    }
}

fn selinux(rng: &mut StdRng, pod: &mut Value) {
    const TYPES: [&str; 8] = [
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
        "container_engine_t",
        "spc_t",
        "a\"b",
    ];
    let mut options = json!({"level": "s0:c1,c2"});
    if rng.random_bool(0.7) {
        options["type"] = pick(rng, &TYPES.map(Value::from));
    }
    for field in ["user", "role"] {
        if rng.random_bool(0.3) {
            options[field] = pick(rng, &["", "sys", "system_u"].map(Value::from));
        }
    }
    anywhere(rng, pod, "seLinuxOptions", &[options]);
}

fn sysctls(rng: &mut StdRng, pod: &mut Value) {
    const NAMES: [&str; 19] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
        "net.ipv4.tcp_slow_start_after_idle",
        "net.ipv4.tcp_notsent_lowat",
        "kernel.msgmax",
        "net.core.somaxconn",
        "net/ipv4/tcp_rmem",
        "",
        "kernel.msgmax",
    ];
    let sysctls: Vec<_> = (0..rng.random_range(1..4))
        .map(|_| json!({"name": pick(rng, &NAMES.map(Value::from)), "value": "1"}))
        .collect();
    pod["spec"]["securityContext"]["sysctls"] = json!(sysctls);
}
