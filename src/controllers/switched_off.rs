//! What is said of policies that ask for what is switched off (`--disable`).

use crate::api::{
    HardeningMode, NetworkMode,
    condition::{Conditions, FEATURE_DISABLED, Type},
};

/// Parts of a spec for which something would be done, and whether it is.
pub(super) struct Parts {
    pub(super) hardening: (Option<HardeningMode>, bool),
    pub(super) network: (Option<NetworkMode>, bool),
}

/// Says that nothing comes of parts of a spec, until they go or their feature is on.
pub(super) fn tell(parts: &Parts, conditions: &mut Conditions) {
    let hardening = parts.hardening.0.is_some_and(|it| it != HardeningMode::Disabled) && !parts.hardening.1;
    let network = parts.network.0.is_some_and(|it| it != NetworkMode::Disabled) && !parts.network.1;
    let off: Vec<&str> =
        [("spec.hardening", hardening), ("spec.network", network)].iter().filter(|it| it.1).map(|it| it.0).collect();
    if !off.is_empty() && !conditions.is(Type::Stalled) {
        let message = format!(
            "nothing comes of {}: switched off for the whole cluster (features of the chart, --disable of the controller)",
            off.join(" and ")
        );
        conditions.stall(FEATURE_DISABLED, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(hardening: (Option<HardeningMode>, bool), network: (Option<NetworkMode>, bool)) -> Option<String> {
        let mut conditions = Conditions::default();
        conditions.set(Type::Ready, true, "Ready", "");
        tell(&Parts { hardening, network }, &mut conditions);
        assert_eq!(conditions.is(Type::Stalled), !conditions.is(Type::Ready));
        let list = conditions.carried_from(&[], jiff::Timestamp::UNIX_EPOCH);
        list.into_iter().find(|it| it.type_ == "Stalled").map(|it| it.message)
    }

    #[test]
    fn what_is_asked_for_and_off_is_named_and_nothing_else() {
        let (audit, preview) = (Some(HardeningMode::Audit), Some(NetworkMode::Preview));
        assert_eq!(told((audit, true), (preview, true)), None);
        assert_eq!(told((None, false), (Some(NetworkMode::Disabled), false)), None);
        assert_eq!(told((Some(HardeningMode::Disabled), false), (None, false)), None);
        let named =
            |told: Option<String>| ["spec.hardening", "spec.network"].map(|it| told.as_ref().unwrap().contains(it));
        assert_eq!(named(told((audit, false), (preview, true))), [true, false]);
        assert_eq!(named(told((audit, true), (preview, false))), [false, true]);
        assert_eq!(named(told((audit, false), (preview, false))), [true, true]);
    }

    #[test]
    fn what_is_refused_for_another_reason_is_told_with_that_reason() {
        let mut conditions = Conditions::default();
        conditions.stall("Invalid", "why");
        tell(&Parts { hardening: (None, true), network: (Some(NetworkMode::Enforce), false) }, &mut conditions);
        let list = conditions.carried_from(&[], jiff::Timestamp::UNIX_EPOCH);
        assert!(list.iter().all(|it| it.reason == "Invalid"), "{list:?}");
    }
}
