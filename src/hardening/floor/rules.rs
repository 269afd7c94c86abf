//! Rules beyond the standards as CEL, from the parts that each rule states.

use super::standards::Form;
use crate::hardening::{
    cel::string,
    rules::{About, Part},
};

/// The name of the variable that says whether a rule is violated, and its form.
pub(super) fn form(about: &About, parts: &[Part]) -> (String, Form) {
    let violated = parts.iter().map(|part| match part {
        Part::Each { of, bad, .. } => format!("{of}.exists(c, {bad})"),
        Part::Pod { bad, .. } => format!("({bad})"),
    });
    let violated = violated.collect::<Vec<_>>().join(" || ");
    let said = parts.iter().map(|part| match part {
        Part::Each { of, noun, bad, text } => {
            format!("{of}.filter(c, {bad}).map(c, '{noun} \"' + string(c.name) + '\" ' + {text})")
        }
        Part::Pod { bad, text } => format!("(({bad}) ? [{text}] : [])"),
    });
    let said = said.collect::<Vec<_>>().join(" + ");
    let said = format!("{} + ({said}).join('; ') + ')'", string(&format!("hardening/{} (", about.id)));
    let form = Form { violated, said, variables: vec![] };
    let form = if about.windows { form } else { form.unless("!variables.windows") };
    (format!("breaks_{}", about.id.replace('.', "_")), form)
}
