//! Egress rules without `policyTypes`.

use super::{Caught, Looked, Trap, certain};

pub(super) static TRAP: Trap =
    Trap { id: "policyTypes", title: "without policyTypes a policy always isolates ingress, too", find };

fn find(looked: &Looked<'_>) -> Vec<Caught> {
    let empty = |list: Option<usize>| list.unwrap_or_default() == 0;
    let spec = looked.spec;
    let is_silent = empty(spec.policy_types.as_ref().map(Vec::len))
        && empty(spec.ingress.as_ref().map(Vec::len))
        && !empty(spec.egress.as_ref().map(Vec::len));
    let detail = "it has egress rules alone, and nobody may call its pods any more: write policyTypes: [Egress]";
    if is_silent { vec![certain("/spec/policyTypes".into(), detail.into())] } else { vec![] }
}
