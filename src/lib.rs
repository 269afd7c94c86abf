//! Rampart: a Kubernetes operator and admission webhook.
//!
//! A line of code knows its room by one question: does it decide, or does it touch the world?
//!
//! Wire types: [`api`].
//!
//! Decide, pure, no client, clock, randomness or environment: [`policy`] (a SecurityPolicy, parsed
//! whole), [`hardening`] (what policies say of a pod), [`network`] (intent to NetworkPolicies),
//! [`keys`] (format and rotation), [`retention`] (plans and rails), [`admission`] (a review to its
//! answer), [`report`] (the posture of a cluster).
//!
//! Act, the only rooms that touch the world: [`cluster`] (every read and write of the API server),
//! [`controllers`] (a file a kind: observe, decide, apply, report), [`serve`] (webhook, verifier,
//! certificates, metrics and health), [`cli`] (the command line), [`runtime`] (clock, randomness, logs, readiness).
//!
//! Data goes one way: `main`, `runtime`, {`serve`, `controllers`}, an `api` type, a parsed domain type,
//! a decision, a plan, `cluster`, status and events.

pub mod admission;
pub mod api;
#[allow(clippy::disallowed_types, reason = "an acting room")]
pub mod cli;
#[allow(clippy::disallowed_types, reason = "an acting room")]
pub mod cluster;
#[allow(clippy::disallowed_types, reason = "an acting room")]
pub mod controllers;
pub mod hardening;
pub mod keys;
pub mod network;
pub mod policy;
pub mod report;
pub mod retention;
#[allow(clippy::disallowed_types, reason = "an acting room")]
pub mod runtime;
#[allow(clippy::disallowed_types, reason = "an acting room")]
pub mod serve;

/// API group of our own kinds.
pub const GROUP: &str = "rampart.dev";
