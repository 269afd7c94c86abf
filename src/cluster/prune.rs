//! The prune brake: what happens to objects whose owner is gone.
//!
//! An owner that was deleted takes what was made for it along. But when a CRD is deleted, every owner
//! of its kind is gone at once, and nobody meant the NetworkPolicies and credentials to go too.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt as _};

use super::{
    Result,
    error::{call, found},
};

/// What is known of a CRD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrdState {
    /// Missing or on its way out.
    Gone,
    /// There since.
    Since(Timestamp),
}

/// What to do about orphans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Prune all of them.
    Prune,
    /// Prune none, for this reason, until somebody confirms.
    Hold(&'static str),
}

/// What somebody confirmed, on the Lease: `KIND=COUNT` for one kind, or several with commas between
/// them; a bare count is for every kind of which exactly so many are held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmation {
    of_any: Option<usize>,
    of_kind: BTreeMap<String, usize>,
}

impl Confirmation {
    /// Reads the annotation; what is no count confirms nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut confirmation = Self::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => confirmation.of_any = part.parse().ok().or(confirmation.of_any),
                Some((kind, count)) => {
                    confirmation.of_kind.extend(count.trim().parse().map(|count| (kind.trim().to_owned(), count)));
                }
            }
        }
        confirmation
    }

    /// How many objects of a kind may go.
    #[must_use]
    pub fn of(&self, kind: &str) -> Option<usize> {
        self.of_kind.get(kind).copied().or(self.of_any)
    }
}

/// Decides about orphans, given when each was created, how many objects there are in all, and how many
/// may go because somebody confirmed it.
#[must_use]
pub fn decide(orphans: &[Timestamp], all: usize, crd: CrdState, confirmed: Option<usize>) -> Verdict {
    let CrdState::Since(created) = crd else {
        return Verdict::Hold("the custom resource definition is missing or being deleted");
    };
    // Exactly as many: what was confirmed is what the log named, not whatever comes to be held later.
    if confirmed == Some(orphans.len()) {
        return Verdict::Prune;
    }
    if orphans.iter().any(|orphan| *orphan < created) {
        return Verdict::Hold("the custom resource definition was deleted and made anew since");
    }
    if orphans.len() > (all / 10).max(5) {
        return Verdict::Hold("more than 5 objects and more than 10 percent would go at once");
    }
    Verdict::Prune
}

/// Looks a CRD up.
///
/// # Errors
/// When the call fails.
pub async fn crd_state(client: &Client, name: &str) -> Result<CrdState> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = found(call(|| format!("reading the custom resource definition {name}"), api.get(name)).await)?;
    let live = crd.filter(|crd| crd.metadata.deletion_timestamp.is_none());
    Ok(live.and_then(|crd| crd.creation_timestamp()).map_or(CrdState::Gone, |created| CrdState::Since(created.0)))
}

/// Owners that are there, by UID; an object whose label names none of them is an orphan.
#[must_use]
pub fn is_orphan(labels: &BTreeMap<String, String>, owners: &BTreeSet<String>) -> bool {
    labels.get(crate::api::labels::OWNER_UID).is_none_or(|uid| !owners.contains(uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const CRD: i64 = 100;

    fn verdict(orphans: usize, all: usize, confirmed: Option<usize>) -> Verdict {
        decide(&vec![at(CRD + 1); orphans], all, CrdState::Since(at(CRD)), confirmed)
    }

    #[test]
    fn a_confirmation_is_of_a_kind_or_of_a_count() {
        let of = |text: &str, kind: &str| Confirmation::parse(text).of(kind);
        assert_eq!(
            (of("3", "ApiKey"), of("ApiKey=3", "ApiKey"), of("ApiKey=3", "SecurityPolicy")),
            (Some(3), Some(3), None)
        );
        assert_eq!(of("ApiKey = 3, SecurityPolicy=4", "SecurityPolicy"), Some(4));
        assert_eq!(
            (of("", "ApiKey"), of("all", "ApiKey"), of("ApiKey=all", "ApiKey"), of("-1", "ApiKey")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_few_orphans_go() {
        assert_eq!(verdict(5, 5, None), Verdict::Prune);
        assert_eq!(verdict(100, 1000, None), Verdict::Prune);
    }

    #[test]
    fn many_at_once_wait_for_a_confirmation_of_as_many() {
        assert!(matches!(verdict(6, 6, None), Verdict::Hold(_)));
        assert!(matches!(verdict(101, 1000, None), Verdict::Hold(_)));
        assert!(matches!(verdict(6, 6, Some(5)), Verdict::Hold(_)));
        assert!(matches!(verdict(6, 6, Some(7)), Verdict::Hold(_)));
        assert_eq!(verdict(6, 6, Some(6)), Verdict::Prune);
    }

    #[test]
    fn without_its_crd_nothing_goes_even_if_confirmed() {
        assert!(matches!(decide(&[at(1)], 1, CrdState::Gone, Some(9)), Verdict::Hold(_)));
    }

    #[test]
    fn what_is_older_than_its_crd_lost_its_owner_with_the_crd_before() {
        let orphans = [at(CRD - 1)];
        assert!(matches!(decide(&orphans, 1, CrdState::Since(at(CRD)), None), Verdict::Hold(_)));
        assert_eq!(decide(&orphans, 1, CrdState::Since(at(CRD)), Some(1)), Verdict::Prune);
    }
}
