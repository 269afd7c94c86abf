//! The end of keys: when it is in force, and that it is for ever.

use crate::Tests;

pub(crate) fn tests(_: &mut Tests) {}
