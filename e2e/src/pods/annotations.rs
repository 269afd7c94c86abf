//! Annotations that old versions of the standards look at.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value};

use super::{name, names, pick};

fn annotate(pod: &mut Value, key: &str, value: Value) {
    let annotations = &mut pod["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = Value::Object(Map::new());
    }
    annotations[key] = value;
}

const ANNOTATION_VALUES: [&str; 14] = [
    "",
    "runtime/default",
    "docker/default",
    "localhost/profile",
    "localhost/",
    "localhost",
    "unconfined",
    "Runtime/Default",
    "a \"quoted\" \\ value",
    "tab\tnewline\nbell\u{7}",
    "zero\u{200b}width",
    "del\u{7f}",
    "é 日本 🦀 e\u{301}",
    "\u{e000}\u{10fffd}\u{ad}\u{a0}",
];

pub(super) fn app_armor_annotation(rng: &mut StdRng, pod: &mut Value) {
    for _ in 0..rng.random_range(1..3) {
        let whose = if rng.random_bool(0.7) { names(pod).choose(rng).cloned() } else { Some(name(rng)) };
        let prefix =
            if rng.random_bool(0.9) { "container.apparmor.security.beta.kubernetes.io/" } else { "example.com/" };
        let value = pick(rng, &ANNOTATION_VALUES.map(Value::from));
        annotate(pod, &format!("{prefix}{}", whose.unwrap_or_default()), value);
    }
}

pub(super) fn seccomp_annotation(rng: &mut StdRng, pod: &mut Value) {
    for _ in 0..rng.random_range(1..3) {
        let whose = if rng.random_bool(0.8) { names(pod).choose(rng).cloned() } else { Some(name(rng)) };
        let key = if rng.random_bool(0.4) {
            "seccomp.security.alpha.kubernetes.io/pod".into()
        } else {
            format!("container.seccomp.security.alpha.kubernetes.io/{}", whose.unwrap_or_default())
        };
        let value = pick(rng, &ANNOTATION_VALUES.map(Value::from));
        annotate(pod, &key, value);
    }
}
