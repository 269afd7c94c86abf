//! Who reaches whom under a set of Kubernetes NetworkPolicies, and which of them decides.
//!
//! ```
//! use rampart_reach::{Analysis, End, Index, IpBlocks, Pod, Policy, Protocol};
//!
//! let pods: Vec<Pod> = serde_json::from_str(r#"[
//!     {"namespace": "shop", "name": "web", "labels": {"app": "web"}},
//!     {"namespace": "shop", "name": "db", "labels": {"app": "db"}}]"#)?;
//! let deny: Policy = serde_json::from_str(r#"{"metadata": {"namespace": "shop", "name": "deny"},
//!     "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}}"#)?;
//! let index = Index::new(&[], pods, IpBlocks::External);
//! let analysis = Analysis::new(&index, &[deny]);
//! let port = (Protocol::TCP, 5432);
//! assert!(!analysis.verdict(End::Pod(0), End::Pod(1), port).allowed);
//! assert!(analysis.verdict(End::Pod(1), End::Pod(0), port).allowed);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! It decides as `networking.k8s.io/v1` documents it: policies only add what is allowed; what none isolates is open;
//! both ends must allow; a pod always reaches itself; pods in the network of their node are selected by nobody, and
//! only an `ipBlock` with one of their known addresses is about them. On which node a pod runs is not asked: a pod and
//! its own node always reach each other, whatever is said here of pods in that node's network.
//! What it costs grows with the number of classes of pods (same namespace, labels and ports), not with that of pods,
//! nor with that of pairs.
//!
//! [`covers`] and [`disjoint`] are other questions: whether one label selector selects at least the pods of another, or
//! none of them.

mod analysis;
mod cluster;
mod compile;
mod cuts;
mod difference;
mod index;
mod lists;
mod policy;
mod selector;
mod wire;

pub use analysis::{Analysis, Decided, Direction, Reach, Verdict};
pub use cluster::{ContainerPort, End, IpBlocks, Namespace, Pod};
pub use cuts::{AddressRange, Cuts, PortRange};
pub use difference::{Change, Difference, Flow, Flows, Place, Totals};
pub use index::Index;
pub use policy::{Invalid, Peer, Policy, Ports, Protocol, Rule, Which};
pub use selector::{NAMESPACE_NAME, Operator, Requirement, Selector, covers, disjoint};
pub use wire::{Expression, LabelSelector};
