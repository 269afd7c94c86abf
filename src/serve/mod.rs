//! The servers: webhook, verifier, and metrics and health.

pub mod admin;
mod body;
mod connections;
pub mod tls;
pub mod verifier;
pub mod webhook;
