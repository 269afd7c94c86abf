//! The phrases that the reference's details are made of.

use crate::ContainerKind;

/// `"a", "b"`: plain quotes, nothing escaped.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub(crate) fn containers(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "container" } else { "containers" };
    format!("{noun} {}", quoted(names.iter().copied()))
}

/// `pod`, `container "a"`, or `pod and container "a"`.
pub(crate) fn pod_and(pod: bool, names: &[&str]) -> String {
    match (pod, names.is_empty()) {
        (true, true) => "pod".into(),
        (true, false) => format!("pod and {}", containers(names)),
        (false, _) => containers(names),
    }
}

/// A field of a container's security context, from the Pod's root.
pub(crate) fn container_path(kind: ContainerKind, index: usize, field: &str) -> String {
    format!("spec.{}[{index}].securityContext.{field}", kind.field())
}
