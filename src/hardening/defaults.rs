//! What the API server fills in before admission sees a pod, where a verdict depends on it.

use rampart_pss::values::{VOLUMES_REFUSED, VOLUMES_RESTRICTED};
use serde_json::{Map, Value, json};

use super::rules::{INJECTED, is_positive};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills in a Pod: a volume without a source is an `emptyDir` (`SetDefaults_Volume`), host networking
/// takes every container port on the node (`SetDefaults_Pod`), a Pod with resources of its own asks for what its
/// containers ask for (KEP-2837, `DefaultPodLevelResources`, as of Kubernetes 1.37), and the AppArmor
/// annotation of a container becomes its field (KEP-24, `applyAppArmorVersionSkew`).
pub fn default_pod(pod: &mut Value) {
    default_template(pod);
    let annotations = pod.pointer("/metadata/annotations").cloned().unwrap_or_default();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for port in containers(spec, &["initContainers", "containers"]).filter_map(|it| it.get_mut("ports")) {
            port.as_array_mut().into_iter().flatten().for_each(take_host_port);
        }
    }
    resources_of_pod(spec);
    let windows = spec.get("os").and_then(|os| os.get("name")).is_some_and(|name| name == "windows");
    if windows {
        return;
    }
    let of_pod = spec.get("securityContext").and_then(|context| context.get("appArmorProfile")).cloned();
    for container in containers(spec, &CONTAINERS) {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        let annotation = annotations.get(format!("{APP_ARMOR}{name}")).and_then(Value::as_str);
        let profile = annotation.and_then(app_armor_profile);
        if let Some(profile) = profile.filter(|profile| Some(profile) != of_pod.as_ref()) {
            set_app_armor(container, profile);
        }
    }
}

/// Mounts the service account token in the Pod of a template, unless it says that none is: ServiceAccount admission does
/// so before it asks any webhook (`mountServiceAccountToken`).
pub fn mount_token(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("automountServiceAccountToken") == Some(&Value::Bool(false)) {
        return;
    }
    let volumes = spec.entry("volumes").or_insert(Value::Null);
    if volumes.is_null() {
        *volumes = json!([]);
    }
    let token = json!({"name": format!("{INJECTED}token"), "projected": {"sources": [{"serviceAccountToken": {}}]}});
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token);
    }
}

/// What a Pod with resources of its own asks for as a whole, where it leaves something open. Which quantity it is
/// matters to no verdict, but whether it is above zero.
fn resources_of_pod(spec: &mut Map<String, Value>) {
    let Some(mut resources) = spec.get("resources").and_then(Value::as_object).cloned() else { return };
    let part = |of: &str| resources.get(of).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut requests, mut limits) = (part("requests"), part("limits"));
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    for name in ["cpu", "memory"] {
        let (mut requested, mut limited, mut unlimited) = (vec![], vec![], false);
        for container in containers(spec, &["initContainers", "containers"]) {
            let quantity =
                |of: &str| container.get("resources")?.get(of)?.get(name).filter(|it| !it.is_null()).cloned();
            let limit = quantity("limits");
            unlimited |= limit.is_none();
            requested.extend(quantity("requests").or_else(|| limit.clone()));
            limited.extend(limit);
        }
        let request = most(requested).or_else(|| limits.get(name).cloned());
        let request = requests.get(name).cloned().or(request);
        if let (false, Some(request), None) = (unlimited, &request, limits.get(name)) {
            let limit = most(limited.into_iter().chain([request.clone()]).collect());
            limits.extend(limit.map(|limit| (name.into(), limit)));
        }
        requests.extend(request.map(|request| (name.into(), request)));
    }
    resources.extend([("requests".into(), requests.into()), ("limits".into(), limits.into())]);
    spec.insert("resources".into(), resources.into());
}

/// One that is above zero, or any.
fn most(quantities: Vec<Value>) -> Option<Value> {
    let positive = quantities.iter().position(is_positive);
    quantities.into_iter().nth(positive.unwrap_or_default())
}

/// Fills in a pod template: volumes alone; the rest happens to the pods that come of it.
pub fn default_template(template: &mut Value) {
    let volumes = template.pointer_mut("/spec/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten().filter_map(Value::as_object_mut) {
        // What is no source is dropped, such as one spelt in the wrong case.
        let is_source = |key: &str| VOLUMES_RESTRICTED.contains(&key) || VOLUMES_REFUSED.contains(&key);
        if volume.iter().all(|(key, value)| !is_source(key) || value.is_null()) {
            volume.insert("emptyDir".into(), json!({}));
        }
    }
}

fn containers<'a>(spec: &'a mut Map<String, Value>, lists: &'static [&str]) -> impl Iterator<Item = &'a mut Value> {
    spec.iter_mut()
        .filter(|(key, _)| lists.contains(&key.as_str()))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
}

fn take_host_port(port: &mut Value) {
    let Some(port) = port.as_object_mut() else { return };
    let free = port.get("hostPort").is_none_or(|taken| taken.is_null() || *taken == 0);
    if let (true, Some(number)) = (free, port.get("containerPort").cloned()) {
        port.insert("hostPort".into(), number);
    }
}

fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let local = annotation.strip_prefix("localhost/").filter(|local| !local.trim().is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": local}))
        }
    }
}

fn set_app_armor(container: &mut Value, profile: Value) {
    let Some(container) = container.as_object_mut() else { return };
    let context = container.entry("securityContext").or_insert(Value::Null);
    if context.is_null() {
        *context = json!({});
    }
    let Some(context) = context.as_object_mut() else { return };
    if context.get("appArmorProfile").is_none_or(Value::is_null) {
        context.insert("appArmorProfile".into(), profile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_the_api_server_fills_in() {
        let mut pod = json!({
            "metadata": {"annotations": {
                "container.apparmor.security.beta.kubernetes.io/a": "unconfined",
                "container.apparmor.security.beta.kubernetes.io/b": "localhost/x",
                "container.apparmor.security.beta.kubernetes.io/c": "nonsense",
                "container.apparmor.security.beta.kubernetes.io/d": "runtime/default",
            }},
            "spec": {
                "hostNetwork": true,
                "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
                "volumes": [{"name": "empty"}, {"name": "null", "hostPath": null}, {"name": "host", "hostPath": {}},
                            {"name": "misspelt", "hostpath": {}}],
                "containers": [
                    {"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 82}]},
                    {"name": "b", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
                    {"name": "c"},
                    {"name": "d", "securityContext": null},
                ],
            },
        });
        default_pod(&mut pod);
        assert_eq!(
            pod["spec"]["volumes"],
            json!([
                {"name": "empty", "emptyDir": {}},
                {"name": "null", "hostPath": null, "emptyDir": {}},
                {"name": "host", "hostPath": {}},
                {"name": "misspelt", "hostpath": {}, "emptyDir": {}},
            ])
        );
        assert_eq!(
            pod["spec"]["containers"],
            json!([
                {"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 82}],
                 "securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
                {"name": "b", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
                {"name": "c"},
                {"name": "d", "securityContext": null},
            ]),
            "what is set stays, nonsense is left out, and what equals the pod's own is not repeated"
        );
    }

    #[test]
    fn a_pod_with_resources_asks_for_what_its_containers_ask_for() {
        let filled = |resources: Value| {
            let containers = json!([
                {"name": "a", "resources": {"requests": {"cpu": "0"}, "limits": {"memory": "0"}}},
                {"name": "b", "resources": {"requests": {"cpu": "2", "memory": null}, "limits": {"memory": "1Mi"}}},
            ]);
            let mut pod = json!({"spec": {"containers": containers, "resources": resources}});
            default_pod(&mut pod);
            pod["spec"]["resources"].clone()
        };
        assert_eq!(
            filled(json!({"limits": {"cpu": "4"}})),
            json!({"requests": {"cpu": "2", "memory": "1Mi"}, "limits": {"cpu": "4", "memory": "1Mi"}})
        );
        assert_eq!(
            filled(json!({"requests": {"cpu": "3", "memory": "2Mi"}})),
            json!({"requests": {"cpu": "3", "memory": "2Mi"}, "limits": {"memory": "1Mi"}}),
            "not every container limits the CPU"
        );
        assert_eq!(filled(json!({"limits": {}})), json!({"limits": {}}));
    }

    #[test]
    fn what_is_no_pod_is_left_alone() {
        for mut odd in [json!(null), json!([]), json!({"spec": 1}), json!({"spec": {"volumes": {}, "containers": [1]}})]
        {
            let before = odd.clone();
            default_pod(&mut odd);
            assert_eq!(odd, before);
        }
    }
}
