//! The servers: webhook, and metrics and health.

pub mod admin;
pub mod tls;
pub mod webhook;
