//! A real control plane for the demo and the tests: etcd, kube-apiserver, kube-controller-manager,
//! kube-scheduler and kwok, built from Go modules and started as plain processes, without root,
//! images or a container engine.
//!
//! - [`binaries`] builds the programs once, into a cache outside the repository;
//! - [`control_plane`] starts and stops instances on free ports; [`leftovers`] clears what a killed
//!   harness left behind;
//! - [`node`] is a real node beside it, with Calico, where this is root;
//! - [`operator`] runs Rampart as a process beside it, as its own service account, and [`verifier`] a verifier;
//! - [`chart`] renders and installs the Helm chart, and [`alerts`] has promtool judge its alerts;
//! - [`conform`] has kubeconform judge manifests, by [`schemas`] of the API server's own;
//! - [`image`] packs Rampart's image;
//! - [`envoy`] is a real Envoy before verifiers, where there is one;
//! - [`proxy`] sits between the two and injects faults; [`audit`] counts what was written, and [`witness`] what
//!   Rampart's accounts asked for in a whole run;
//! - [`null_webhook`] admits whatever it is asked, and [`cores`] pins processes: figures need both;
//! - [`wait`] waits for a condition with a deadline, which is the only way a test waits.

pub mod alerts;
pub mod audit;
pub mod chart;
pub mod conform;
pub mod control_plane;
pub mod cores;
pub mod envoy;
pub mod faketime;
pub mod fixtures;
pub mod image;
pub mod judges;
pub mod leftovers;
pub mod metrics;
pub mod node;
pub mod null_webhook;
pub mod operator;
pub mod pki;
pub mod pods;
pub mod ports;
pub mod proxy;
pub mod schemas;
pub mod stories;
pub mod table;
pub mod verifier;
pub mod wait;
pub mod witness;

pub use control_plane::{ControlPlane, Options};
pub use envoy::Envoy;
pub use node::Node;
pub use operator::Operator;
pub use rampart_programs::binaries;
pub use verifier::Verifier;

/// Seed of random tests: `RAMPART_SEED`, or a new one. It is printed, so that a failure can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("RAMPART_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("RAMPART_SEED={seed}");
    seed
}
