//! Legal holds: which are in force somewhere, and what the API server refuses for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use jiff::Timestamp;
use k8s_openapi::{
    ClusterResourceScope,
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        core::v1::Namespace,
    },
};
use kube::{
    Api, Client, CustomResourceExt, Resource, ResourceExt as _,
    api::ListParams,
    core::object::HasStatus,
    discovery::{self, Scope},
};
use serde::de::DeserializeOwned;

use super::{
    Error, Result,
    apply::{Kept, Outcome, delete_seen_in, keep_in},
    error::{call, found},
    pages,
};
use crate::{
    api::{
        ClusterLegalHold, HoldState, Invalid, LegalHold, LegalHoldStatus,
        labels::{HOLD, MANAGED_BY, MANAGER, OWNER_KIND, PART},
    },
    retention::{Hold, HoldKind, Holds, Refusal},
};

const FIELD_MANAGER: &str = "rampart-hold";

/// A kind of hold.
pub trait Holding:
    Resource<DynamicType = ()>
    + CustomResourceExt
    + HasStatus<Status = LegalHoldStatus>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Which.
    const KIND: HoldKind;
    /// Name of its controller.
    const CONTROLLER: &'static str;

    /// The hold.
    ///
    /// # Errors
    /// When the spec is none.
    fn hold(&self) -> std::result::Result<Hold, Invalid>;

    /// The hold as earlier builds read it, which let it name kinds that can't be held any more; `None` where it is none by
    /// their rules either. Nothing is made for one that is no hold now.
    fn before(&self) -> Option<Hold>;

    /// What it is now; `None` where it holds nothing any more, whichever build admitted it.
    fn unless_past(&self, now: Timestamp) -> Option<std::result::Result<Hold, Invalid>> {
        let read = self.hold();
        let is_past = match &read {
            Ok(hold) => self.is_over(hold, now),
            Err(_) => self.before().is_some_and(|hold| self.is_over(&hold, now)),
        };
        (!is_past).then_some(read)
    }

    /// Whether it was seen to end: by the clock of who asks, and by the controller, which has asked the API server's.
    fn is_over(&self, hold: &Hold, now: Timestamp) -> bool {
        let told = self.status().filter(|status| status.observed_generation == self.meta().generation);
        hold.has_ended(now) && told.is_some_and(|status| status.state == Some(HoldState::Expired))
    }
}

impl Holding for LegalHold {
    const KIND: HoldKind = HoldKind::LegalHold;
    const CONTROLLER: &'static str = "legalhold";

    fn hold(&self) -> std::result::Result<Hold, Invalid> {
        Hold::try_from(self)
    }

    fn before(&self) -> Option<Hold> {
        Hold::before(self)
    }
}

impl Holding for ClusterLegalHold {
    const KIND: HoldKind = HoldKind::ClusterLegalHold;
    const CONTROLLER: &'static str = "clusterlegalhold";

    fn hold(&self) -> std::result::Result<Hold, Invalid> {
        Hold::try_from(self)
    }

    fn before(&self) -> Option<Hold> {
        Hold::cluster_before(self)
    }
}

/// The holds that are in force in a namespace, asked of the API server now.
///
/// # Errors
/// When one of them, or the labels of the namespace, can't be read: then anything may be held.
pub async fn in_namespace(client: &Client, namespace: &str, now: Timestamp) -> Result<Holds> {
    read(client, namespace, now).await.map_err(|error| Error::Holds(Box::new(error)))
}

async fn read(client: &Client, namespace: &str, now: Timestamp) -> Result<Holds> {
    let mut holds = of_kind(&Api::<LegalHold>::namespaced(client.clone(), namespace), now).await?;
    let wide = of_kind(&Api::<ClusterLegalHold>::all(client.clone()), now).await?;
    let labels = if wide.is_empty() {
        BTreeMap::new()
    } else {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let read = call(|| format!("reading namespace {namespace}"), namespaces.get(namespace)).await?;
        read.metadata.labels.unwrap_or_default()
    };
    holds.extend(wide);
    Ok(Holds::of(holds, namespace, &labels))
}

async fn of_kind<K: Holding>(api: &Api<K>, now: Timestamp) -> Result<Vec<Hold>> {
    let (mut holds, mut unreadable) = (vec![], None);
    let kind = K::KIND.as_str();
    pages::each(api, ListParams::default(), &format!("{kind}s"), |object: K| match object.unless_past(now) {
        None => {}
        Some(Ok(hold)) => holds.push(hold),
        Some(Err(invalid)) => unreadable = Some(format!("{kind} {}: {invalid}", object.name_any())),
    })
    .await?;
    unreadable.map_or(Ok(holds), |why| Err(Error::Unexpected(why)))
}

/// Why the API server serves no such kind, as a hold names it; `None` where it does.
///
/// # Errors
/// When a call fails.
pub async fn unserved(client: &Client, hold: &Hold) -> Result<Option<String>> {
    let groups: BTreeSet<&str> = hold.resources.iter().map(|(group, _)| group.as_str()).collect();
    let mut served: BTreeMap<String, Scope> = BTreeMap::new();
    for group in groups {
        let doing = || format!("looking up the API group {group:?}");
        let known = match call(doing, discovery::group(client, group)).await {
            Ok(known) => known,
            Err(Error::Api { source, .. }) if matches!(*source, kube::Error::Discovery(_)) => continue,
            Err(error) if error.code() == Some(404) => continue,
            Err(error) => return Err(error),
        };
        let versions: Vec<String> = known.versions().map(ToOwned::to_owned).collect();
        let all = versions.iter().flat_map(|version| known.versioned_resources(version));
        served.extend(all.map(|(it, has)| (format!("{}/{}", it.group, it.plural), has.scope)));
    }
    let missing =
        hold.resources.iter().find_map(|(group, plural)| match (served.get(&format!("{group}/{plural}")), hold.kind) {
            (None, _) => Some(format!("the API server serves no {plural:?} in group {group:?}: write the plural")),
            (Some(Scope::Cluster), HoldKind::LegalHold) => {
                Some(format!("{plural} stand in no namespace: only a ClusterLegalHold holds them"))
            }
            _ => None,
        });
    Ok(missing)
}

/// What the API server refuses for a hold, as it was found.
pub struct Live {
    policy: Option<ValidatingAdmissionPolicy>,
    binding: Option<ValidatingAdmissionPolicyBinding>,
}

impl Live {
    /// Reads it by name.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn read(client: &Client, name: &str) -> Result<Self> {
        let (policies, bindings) = (Api::all(client.clone()), Api::all(client.clone()));
        Ok(Self {
            policy: found(call(|| format!("reading the admission policy {name}"), policies.get(name)).await)?,
            binding: found(call(|| format!("reading the binding {name}"), bindings.get(name)).await)?,
        })
    }

    /// Whether it is there and in force.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.policy.is_some() && self.binding.is_some()
    }

    /// Makes it what is wanted, and tells what that took. The names hold the hold's UID, so nobody else's object has
    /// one by chance; and what has lost its labels is still ours.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn put(&self, client: &Client, wanted: &Refusal) -> Result<[Outcome; 2]> {
        let (policies, bindings) = (Api::all(client.clone()), Api::all(client.clone()));
        let one = keep_in(&policies, FIELD_MANAGER, |_| true, &wanted.policy, self.policy.as_ref()).await?;
        let other = keep_in(&bindings, FIELD_MANAGER, |_| true, &wanted.binding, self.binding.as_ref()).await?;
        Ok([one.1, other.1])
    }

    /// Takes it back, the binding first: a policy without one refuses nothing. Returns whether there was any.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn remove(&self, client: &Client) -> Result<bool> {
        if let Some(binding) = &self.binding {
            delete_seen_in(&Api::all(client.clone()), binding).await?;
        }
        if let Some(policy) = &self.policy {
            delete_seen_in(&Api::all(client.clone()), policy).await?;
        }
        Ok(self.binding.is_some() || self.policy.is_some())
    }
}

/// Selects what was made for holds of a kind.
#[must_use]
pub fn made_for(kind: HoldKind) -> String {
    format!("{MANAGED_BY}={MANAGER},{PART}={HOLD},{OWNER_KIND}={}", kind.as_str())
}

/// Metadata of the admission policies, or of the bindings, that were made for holds of a kind.
///
/// # Errors
/// When a call fails.
pub async fn made<K>(client: &Client, kind: HoldKind) -> Result<Vec<kube::api::ObjectMeta>>
where
    K: Kept + Resource<Scope = ClusterResourceScope>,
{
    let (api, mut made) = (Api::<K>::all(client.clone()), vec![]);
    let params = ListParams::default().labels(&made_for(kind));
    pages::each(&api, params, "what is refused for holds", |it: K| made.push(it.meta().clone())).await?;
    Ok(made)
}
