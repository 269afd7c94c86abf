//! Whether the operator's clock is one that ends and rotations can be told by.

use jiff::SignedDuration;

use super::ApiKeys;
use crate::{
    cluster::{
        Result,
        server_clock::{MOST_SKEW, in_words, skew},
    },
    keys::{Observed, Spec, is_of_clock, is_of_time},
    runtime::clock,
};

impl ApiKeys {
    /// Asks the API server what time it is before anything is done that the time alone brings: by a clock that was set
    /// ahead, every key would be rotated, or destroyed. And before each end that is counted from now: a clock may be set
    /// while a key is visited. At all other times nobody asks.
    pub(super) async fn check_clock(&self, spec: &Spec, seen: &mut Observed) -> Result<()> {
        let now = clock::now();
        if !is_of_clock(spec, seen, now) {
            return Ok(());
        }
        let waits = seen.clock_suspect.is_some() || is_of_time(spec, seen, now);
        let skew = skew(&self.context.client).await?;
        let is_off = skew.abs() > MOST_SKEW;
        // What somebody asked for is done all the same, and a status has nothing to tell of.
        if is_off && !waits {
            let (namespace, name, off) = (&spec.namespace, &spec.name, in_words(skew));
            tracing::warn!(namespace, name, off, "our clock is wrong: an overlap is counted by the API server's");
        }
        seen.skew = counted(skew);
        seen.clock_suspect = (is_off && waits).then(|| in_words(skew));
        Ok(())
    }
}

/// The skew as far as ends are counted by it: a clock that is trusted tells when they have come, too, and one that is a
/// little ahead would make every overlap so much shorter.
fn counted(skew: SignedDuration) -> SignedDuration {
    if skew.is_positive() && skew <= MOST_SKEW { SignedDuration::ZERO } else { skew }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_clock_that_is_trusted_makes_an_overlap_shorter() {
        let counted = |seconds| counted(SignedDuration::from_secs(seconds)).as_secs();
        assert_eq!([0, 1, 90, 120].map(counted), [0; 4], "a little ahead");
        assert_eq!([121, 86_400, -1, -90, -3600].map(counted), [121, 86_400, -1, -90, -3600]);
    }
}
