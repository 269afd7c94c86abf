//! Retention: what is too old, what protects it, and what may be deleted now.
//!
//! Nothing but `hold` knows what an item is: a Kubernetes object today, a row or a file later.

mod acts;
mod age;
pub mod annotation;
pub mod chain;
mod decision;
pub mod evidence;
mod gone;
mod grace;
mod hold;
mod implied;
mod item;
mod kept;
mod named;
pub mod open;
mod plan;
pub mod rollup;
mod spec;

pub use acts::{Act, Permit};
pub use decision::Decision;
pub use gone::{Gone, waited_for};
pub use hold::{Hold, HoldKind, Holds, Refusal, refusals};
pub use implied::{implied, is_as_named};
pub use item::{Expiry, Item, Mark, Protection};
pub use kept::kept_alone;
pub use named::{Named, named};
pub use open::Open;
pub use plan::{Breaker, Plan, Planned, Target, plan, plan_while_open};
pub use spec::{Caps, Spec, TargetSpec};
