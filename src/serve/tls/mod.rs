//! TLS of the webhook: a CA of its own in one Secret that all replicas share, a leaf in the memory of
//! each, and the bundle that the API server trusts.

mod authority;
mod keeper;
mod server;

pub use keeper::{Keeper, Names, SECRET};
pub use server::{Leaf, server_config};
