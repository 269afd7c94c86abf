//! API keys: the rotation machine against a model of the cluster, tokens of other systems, and the verifier's decision.
//! One program: each that is linked by itself takes seconds.

mod clock;
mod imported;
mod key_world;
mod rotation;
mod rotation_damage;
mod rotation_failures;
mod rotation_hooks;
mod verify;
