//! Rules beyond the standards as CEL, from the parts that each rule states.

use super::{
    exceptions,
    form::{Form, Violated},
};
use crate::hardening::{
    cel::string,
    rules::{About, Part},
};

/// The name of the variable that says whether a rule is violated, and its form. Where exceptions lift the
/// rule, what concerns the Pod as a whole passes when all its containers are covered.
pub(super) fn form(about: &About, parts: &[Part], lifted: bool) -> (String, Form) {
    let guarded = |part: &Part, bad: &str| {
        if lifted && part.concerns_pod() { format!("(!{} && ({bad}))", exceptions::ALL) } else { format!("({bad})") }
    };
    let violated = parts.iter().map(|part| match part {
        Part::Each { of, bad, .. } => format!("{of}.exists(c, {})", guarded(part, bad)),
        Part::Pod { bad, .. } => guarded(part, bad),
    });
    let violated = violated.collect::<Vec<_>>().join(" || ");
    let said = parts.iter().map(|part| match part {
        Part::Each { of, noun, bad, text, .. } => {
            format!("{of}.filter(c, {}).map(c, '{noun} \"' + string(c.name) + '\" ' + {text})", guarded(part, bad))
        }
        Part::Pod { bad, text } => format!("({} ? [{text}] : [])", guarded(part, bad)),
    });
    let said = said.collect::<Vec<_>>().join(" + ");
    let said = format!("{} + ({said}).join('; ') + ')'", string(&format!("{} (", about.rule())));
    let form = Form { violated: Violated::pod(violated), said, variables: vec![] };
    let form = if about.windows { form } else { form.only_if("!variables.windows") };
    (format!("breaks_{}", about.id.replace('.', "_")), form)
}
