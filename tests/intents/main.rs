//! Intents of the network: what is rendered of them, what it lets through, and what is told of it.
//! One program: each that is linked by itself takes seconds.

mod network;
mod network_breaks;
mod network_least;
mod network_reciprocal;
mod sample_intent;
mod traps;
