//! Makes random pods acceptable to API validation, as far as that leaves their verdict alone. What the
//! API server still refuses, a test leaves out; most it accepts.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// A Pod that most API servers accept, much like the given one.
#[must_use]
pub fn acceptable(mut pod: Value) -> Value {
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    let Some(spec) = pod["spec"].as_object_mut() else { return pod };
    // Only the debug subresource may add them.
    spec.remove("ephemeralContainers");
    spec.retain(|key, _| key.chars().next().is_some_and(char::is_lowercase) && key != "hostPid" && key != "hostipc");
    if spec.get("os").is_some_and(|os| os["name"] != "linux") {
        spec.remove("os");
    }
    if spec.get("hostUsers") == Some(&json!(false)) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            spec.remove(field);
        }
    }
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            mend_container(container, list == "initContainers", &mut names);
        }
    }
    if !spec.contains_key("containers") {
        spec.insert("containers".into(), json!([{"name": "only", "image": "a"}]));
    }
    if let Some(context) = spec.get_mut("securityContext").and_then(Value::as_object_mut) {
        mend_context(context);
        mend_sysctls(context);
    }
    let mut names = BTreeSet::new();
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        mend_volume(volume, &mut names);
    }
    pod
}

fn unique(value: &mut Value, names: &mut BTreeSet<String>) {
    let base = value.as_str().filter(|name| !name.is_empty()).unwrap_or("c").to_owned();
    let mut name = base.clone();
    let mut number = 0;
    while !names.insert(name.clone()) {
        number += 1;
        name = format!("{base}-{number}");
    }
    *value = json!(name);
}

fn mend_container(container: &mut Value, init: bool, names: &mut BTreeSet<String>) {
    unique(&mut container["name"], names);
    container["image"] = json!("registry.example.com/app:1");
    if let Some(context) = container.get_mut("securityContext").and_then(Value::as_object_mut) {
        mend_context(context);
        if context.get("privileged") == Some(&json!(true)) {
            context.remove("allowPrivilegeEscalation");
        }
    }
    if init {
        for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            container.as_object_mut().map(|container| container.remove(field));
        }
    }
    let mut taken = BTreeSet::new();
    if let Some(ports) = container.get_mut("ports").and_then(Value::as_array_mut) {
        ports.retain(|port| {
            let host = port["hostPort"].as_i64().unwrap_or_default();
            host == 0 || taken.insert(host)
        });
    }
}

/// Profiles that need a name get one; what no API server takes goes.
fn mend_context(context: &mut Map<String, Value>) {
    for field in ["seccompProfile", "appArmorProfile"] {
        let Some(profile) = context.get_mut(field) else { continue };
        match profile["type"].as_str() {
            Some("Localhost") => profile["localhostProfile"] = json!("profiles/a"),
            Some("RuntimeDefault" | "Unconfined") => {}
            _ => drop(context.remove(field)),
        }
    }
    if context.get("procMount").is_some_and(|mount| mount != "Default" && mount != "Unmasked") {
        context.remove("procMount");
    }
}

fn mend_sysctls(context: &mut Map<String, Value>) {
    let mut names = BTreeSet::new();
    if let Some(sysctls) = context.get_mut("sysctls").and_then(Value::as_array_mut) {
        sysctls.retain(|sysctl| {
            let name = sysctl["name"].as_str().unwrap_or_default().replace('/', ".");
            !name.is_empty() && names.insert(name)
        });
    }
}

/// One source, with what it needs.
fn mend_volume(volume: &mut Value, names: &mut BTreeSet<String>) {
    unique(&mut volume["name"], names);
    let Some(volume) = volume.as_object_mut() else { return };
    let mut sources = 0;
    volume.retain(|key, value| {
        let is_source = key != "name";
        sources += u32::from(is_source && !value.is_null());
        !is_source || (!value.is_null() && sources == 1)
    });
    for (kind, source) in volume.iter_mut().filter(|(key, _)| *key != "name") {
        if let Some(needed) = needed(kind) {
            *source = needed;
        }
    }
}

fn needed(kind: &str) -> Option<Value> {
    Some(match kind {
        "hostPath" => json!({"path": "/data"}),
        "configMap" => json!({"name": "c"}),
        "secret" => json!({"secretName": "s"}),
        "csi" => json!({"driver": "csi.example.com"}),
        "ephemeral" => {
            json!({"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}})
        }
        "image" => json!({"reference": "registry.example.com/data:1"}),
        "persistentVolumeClaim" => json!({"claimName": "p"}),
        "projected" => json!({"sources": [{"configMap": {"name": "c"}}]}),
        "gcePersistentDisk" => json!({"pdName": "d"}),
        "awsElasticBlockStore" | "portworxVolume" => json!({"volumeID": "v"}),
        "gitRepo" => json!({"repository": "https://example.com/a.git"}),
        "nfs" => json!({"server": "nfs.example.com", "path": "/"}),
        "iscsi" => json!({"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2000-01.com.example:a", "lun": 0}),
        "glusterfs" => json!({"endpoints": "e", "path": "p"}),
        "rbd" => json!({"monitors": ["m"], "image": "i"}),
        "flexVolume" => json!({"driver": "example.com/d"}),
        "cinder" | "vsphereVolume" => json!({if kind == "cinder" { "volumeID" } else { "volumePath" }: "v"}),
        "cephfs" => json!({"monitors": ["m"]}),
        "flocker" => json!({"datasetName": "d"}),
        "fc" => json!({"targetWWNs": ["w"], "lun": 0}),
        "azureFile" => json!({"secretName": "s", "shareName": "n"}),
        "quobyte" => json!({"registry": "r:1", "volume": "v"}),
        "azureDisk" => json!({"diskName": "d", "diskURI": "https://example.com/d", "kind": "Shared"}),
        "photonPersistentDisk" => json!({"pdID": "p"}),
        "scaleIO" => json!({"gateway": "g", "system": "s", "volumeName": "v", "secretRef": {"name": "s"}}),
        "storageos" => json!({"volumeName": "v"}),
        _ => return None,
    })
}
