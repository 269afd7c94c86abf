//! Which updates of a pod matter: those that change what runs in it. All others, a label or the removal
//! of a finalizer, must go through whatever the pod looks like.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;

#[derive(Deserialize)]
struct Images<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    image: Cow<'a, str>,
}

/// Whether an update changes neither the number nor the image of containers, and adds no ephemeral one
/// (`isSignificantPodUpdate` of the reference). What can't be read is significant.
pub(super) fn is_insignificant(new: &str, old: &str) -> bool {
    let (Ok(new), Ok(old)) = (serde_json::from_str::<Images<'_>>(new), serde_json::from_str::<Images<'_>>(old)) else {
        return false;
    };
    let before: HashMap<&str, &str> =
        old.spec.ephemeral_containers.iter().flatten().map(|container| (&*container.name, &*container.image)).collect();
    same_images(new.spec.containers.as_deref(), old.spec.containers.as_deref())
        && same_images(new.spec.init_containers.as_deref(), old.spec.init_containers.as_deref())
        && new
            .spec
            .ephemeral_containers
            .iter()
            .flatten()
            .all(|container| before.get(&*container.name).is_some_and(|image| *image == container.image))
}

fn same_images(new: Option<&[Container<'_>]>, old: Option<&[Container<'_>]>) -> bool {
    let (new, old) = (new.unwrap_or_default(), old.unwrap_or_default());
    new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new.image == old.image)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const OLD: &str = r#"{"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "x"}]}}"#;

    #[rstest]
    #[case::a_label(r#"{"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "x"}]}}"#, true)]
    #[case::an_image(r#"{"spec": {"containers": [{"name": "a", "image": "y"}]}}"#, false)]
    #[case::another_container(
        r#"{"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}}"#,
        false
    )]
    #[case::an_init_container(
        r#"{"spec": {"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "a", "image": "x"}]}}"#,
        false
    )]
    #[case::a_debug_container(r#"{"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "x"}, {"name": "e", "image": "x"}]}}"#, false)]
    #[case::another_debug_image(r#"{"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "y"}]}}"#, false)]
    #[case::not_a_pod("[]", false)]
    fn what_matters(#[case] new: &str, #[case] insignificant: bool) {
        assert_eq!(is_insignificant(new, OLD), insignificant);
    }
}
