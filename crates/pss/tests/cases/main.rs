#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
//! Cases by hand. One program, and it runs before `corpus.rs`: `make mutants` builds and runs both a few hundred times.

mod catalogue;
mod excepted;
mod fixes;
mod reading;
mod reference;
