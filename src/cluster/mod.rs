//! Every read and write of the API server.

pub mod adoption_secret;
pub mod apply;
pub mod client;
pub mod error;
pub mod events;
pub mod follow;
pub mod holds;
pub mod impersonate;
pub mod kept_secrets;
mod key_import;
pub mod key_index;
pub mod key_jobs;
pub mod key_records;
pub mod key_store;
pub mod leader;
mod managers;
mod metadata_list;
pub mod open_reports;
pub mod own_writes;
pub mod owned_names;
pub mod owner;
pub mod pages;
pub mod pause;
pub mod pods;
pub mod policy_index;
pub mod prune;
mod relabelled;
pub mod retained;
pub mod retention_reports;
pub mod server_clock;
pub mod slim;
pub mod status;
pub mod verifier_report;
pub mod verifiers;
pub mod workloads;

pub use error::{Class, Error, Result};
