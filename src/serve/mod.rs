//! The servers: webhook, verifier, and metrics and health.

pub mod admin;
mod body;
mod connections;
mod pool;
pub mod tls;
pub mod verifier;
pub mod webhook;
