//! Rules beyond the standards as CEL, from the parts that each rule states.

use super::{
    exceptions::{self, Spared},
    form::{CONTAINERS, Form, Violated, some},
};
use crate::hardening::{
    cel::string,
    rules::{About, Part},
};

/// The name of the variable that says whether a rule is violated, and its form. Where exceptions lift the
/// rule for anything, what concerns the Pod as a whole passes when all its containers are covered.
pub(super) fn form(about: &About, parts: &[Part], whole: bool, spared: &Spared) -> (String, Form) {
    let guarded = |of_pod: bool, bad: &str| {
        if whole && of_pod { format!("(!{} && ({bad}))", exceptions::ALL) } else { format!("({bad})") }
    };
    let (mut violated, mut said) = (vec![], vec![]);
    for part in parts {
        match part {
            Part::Each { of, noun, bad, text, of_pod, value } => {
                let bad = match value {
                    None => bad.clone(),
                    Some(value) if *of_pod => spared.of_pod(bad, value),
                    Some(value) => spared.of_container(bad, value),
                };
                let bad = guarded(*of_pod, &bad);
                violated.push(format!("{of}.exists(c, {bad})"));
                said.push(format!("{of}.filter(c, {bad}).map(c, '{noun} \"' + string(c.name) + '\" ' + {text})"));
            }
            Part::Values { list, value, bad, text } => {
                let bad = spared.of_container(bad, value);
                violated.push(some(&format!("{list}.exists(n, {bad})")));
                let texts = format!("{list}.filter(n, {bad}).map(n, 'container \"' + string(c.name) + '\" ' + {text})");
                said.push(format!("{CONTAINERS}.map(c, {texts}).flatten()"));
            }
            Part::Pod { bad, text } => {
                let bad = guarded(true, bad);
                said.push(format!("({bad} ? [{text}] : [])"));
                violated.push(bad);
            }
        }
    }
    let said = format!("{} + ({}).join('; ') + ')'", string(&format!("{} (", about.rule())), said.join(" + "));
    let form = Form { violated: Violated::pod(violated.join(" || ")), said, variables: vec![] };
    let form = if about.windows { form } else { form.only_if("!variables.windows") };
    (format!("breaks_{}", about.id.replace('.', "_")), form)
}
