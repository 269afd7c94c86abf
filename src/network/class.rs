//! What the class of some data asks of the network of the pods that hold it.

use super::{Intent, Peer};
use crate::api::{DataClass, Direction, Invalid};

/// Checks that an intent isolates at least what a class asks; `intent` is `None` where there is none, or it is
/// disabled. Confidential and Restricted are deny by default.
///
/// # Errors
/// At the first field that is weaker than the class.
pub fn meets(class: Option<DataClass>, intent: Option<&Intent>) -> Result<(), Invalid> {
    let Some(class) = class.filter(|class| class.is_isolated()) else { return Ok(()) };
    let weak = |field: String, problem: &str| Err(Invalid::at(field, format!("{problem}: dataClass is {class:?}")));
    let Some(intent) = intent else {
        return weak("spec.network".into(), "must isolate Ingress and Egress, in a mode other than Disabled");
    };
    if ![Direction::Ingress, Direction::Egress].iter().all(|it| intent.isolate.contains(it)) {
        return weak("spec.network.isolate".into(), "must list Ingress and Egress");
    }
    for (direction, rules) in [("ingress", &intent.ingress), ("egress", &intent.egress)] {
        if let Some(open) = rules.iter().find(|rule| rule.peers.contains(&Peer::Any)) {
            let field = format!("spec.network.{direction}[{}].peers", open.name);
            return weak(field, "must not be open to everybody (`any: true`)");
        }
    }
    Ok(())
}
