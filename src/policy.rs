//! A SecurityPolicy, parsed whole.

use crate::{
    api::{Invalid, SecurityPolicy},
    hardening::Requirement,
    network::Intent,
};

/// Reads a policy whole; webhook, controller and index all do it here.
///
/// # Errors
/// At the first field that is not accepted.
pub fn parse(policy: &SecurityPolicy) -> Result<(Option<Requirement>, Option<Intent>), Invalid> {
    let hardening = policy.spec.hardening.as_ref().map(Requirement::try_from).transpose()?;
    let network = policy.spec.network.as_ref().map(Intent::try_from).transpose()?;
    Ok((hardening, network))
}
