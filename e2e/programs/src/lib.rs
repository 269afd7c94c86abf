//! Programs of other people, built of their Go modules: those that tests and demo start, and those that judge what Rampart
//! says. Each is built once, into a cache outside the repository, by whoever is the first to need it.

pub mod binaries;
mod fetch;
pub mod judges;
mod progress;
