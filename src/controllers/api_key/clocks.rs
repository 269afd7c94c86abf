//! Whether the operator's clock is one that ends and rotations can be told by.

use super::ApiKeys;
use crate::{
    cluster::{
        Result,
        server_clock::{MOST_SKEW, in_words, skew},
    },
    keys::{Observed, Spec, is_of_time},
    runtime::clock,
};

impl ApiKeys {
    /// Asks the API server what time it is before anything is done that the time alone brings: by a clock that was set
    /// ahead, every key would be rotated, or destroyed. At all other times nobody asks.
    pub(super) async fn check_clock(&self, spec: &Spec, seen: &mut Observed) -> Result<()> {
        if is_of_time(spec, seen, clock::now()) {
            let skew = skew(&self.context.client).await?;
            seen.clock_suspect = (skew.abs() > MOST_SKEW).then(|| in_words(skew));
        }
        Ok(())
    }
}
