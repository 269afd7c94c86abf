//! From what was read to what is told. Nothing here asks the cluster.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, TypeMeta},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    super::lead,
    api_key::{Credential, api_key},
    hardening::{Hardening, hardening},
    holds::{Held, Keeps, held, keeps},
    kinds::{Kind, What},
    known::{Extent, Known},
    namespace::{Namespace, namespace},
    network::{Network, full_name, network},
    network_policy::{Written, network_policy},
    pending::{Pending, pending},
    policy::{Policy, cluster_security_policy, security_policy},
    retention::{Retained, retention},
    terrain::{Inhabitant, Terrain, Workload, workload},
};
use crate::{
    admission::template_path,
    api::{ApiKey, ClusterLegalHold, ClusterSecurityPolicy, LegalHold, SecurityPolicy},
    hardening::Kept,
    network::{Needs, Resident, World},
};

/// Everything that is told of an object; the shape of `--output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    schema_version: u32,
    pub(super) object: Object,
    /// What to know before the rest.
    pub(super) notes: Vec<String>,
    /// Of a pod, or of what makes pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hardening: Option<Hardening>,
    /// Of a pod, or of one of a workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<Network>,
    /// Network intents that are not in force, and what they would change for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Vec<Pending>>,
    /// Of a SecurityPolicy or ClusterSecurityPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy>,
    /// Of a NetworkPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_policy: Option<Written>,
    /// Of an ApiKey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_key: Option<Credential>,
    /// Of a LegalHold or ClusterLegalHold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<Keeps>,
    /// Of a Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<Namespace>,
    /// RetentionPolicies that target it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retention: Option<Vec<Retained>>,
    /// Legal holds that keep it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) held_by: Vec<Held>,
    /// What could not be read, and why; what is told is told without it.
    pub(super) unread: Vec<String>,
}

/// The object.
#[derive(Debug, Serialize)]
pub(super) struct Object {
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// Explains an object by what is known at a time.
pub(super) fn explain(kind: &Kind, object: &DynamicObject, known: &Known, now: Timestamp) -> Explanation {
    let mut told = Explanation {
        schema_version: 1,
        object: Object { kind: kind.name.clone().into_owned(), namespace: object.namespace(), name: object.name_any() },
        notes: vec![],
        hardening: None,
        network: None,
        pending: None,
        policy: None,
        network_policy: None,
        api_key: None,
        hold: None,
        namespace: None,
        retention: None,
        held_by: vec![],
        unread: known.unread.clone(),
    };
    match kind.what {
        What::Pod | What::Template => told.of_pods(kind, object, known, now),
        What::Kept | What::Other => {}
        what => {
            let terrain = Terrain::new(known.namespaces.clone(), &known.pods, &known.network_policies);
            told.of_policy(what, object, known, &terrain, now);
        }
    }
    if kind.is_namespaced() {
        // Of policies and keys, it is told where there is something to tell.
        let is_asked = matches!(kind.what, What::Pod | What::Template | What::Kept | What::Other);
        let (retained, held) = (retention(known, kind, object, now), held(known, kind, object, now));
        told.retention = (is_asked || !retained.is_empty() || !held.is_empty()).then_some(retained);
        told.held_by = held;
    }
    told.notes.extend(known.away_since.map(lead::note));
    told
}

impl Explanation {
    fn of_pods(&mut self, kind: &Kind, object: &DynamicObject, known: &Known, now: Timestamp) {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        match kept(kind, object).map(|kept| hardening(known, (&namespace, &name), &kept, now)) {
            Some(Ok(hardening)) => self.hardening = Some(hardening),
            Some(Err(why)) => self.notes.push(format!("its pod can't be read: {why}")),
            None if kind.what == What::Pod => self.notes.push("it has finished: nothing judges it any more".into()),
            None => self.notes.push("it has no pod template".into()),
        }
        let mut pods = known.pods.clone();
        if kind.what == What::Pod {
            let made_by = workload(&object.metadata);
            if made_by.kind != "Pod" {
                self.notes.push(format!("made by {} {}", made_by.kind, made_by.name));
            }
            // It may have come after the list.
            let is_listed =
                pods.iter().any(|it| it.resident.pod.namespace == namespace && it.resident.pod.name == name);
            pods.extend(Inhabitant::of(object).filter(|_| !is_listed));
            let terrain = Terrain::new(known.namespaces.clone(), &pods, &known.network_policies);
            if let Some(place) = terrain.place(&namespace, &name) {
                self.of_place(known, &terrain, place);
            }
            return;
        }
        let own = Workload { namespace: namespace.clone(), name, kind: kind.name.clone().into_owned() };
        if !pods.iter().any(|it| it.workload == own)
            && let Some(stand_in) = stand_in(kind, object, &own)
        {
            let there = if known.seen.pods == Extent::Nothing { "could be read" } else { "are there" };
            self.notes.push(format!("no pods of it {there}: its network is told as of one that it would make"));
            pods.push(stand_in);
        }
        let terrain = Terrain::new(known.namespaces.clone(), &pods, &known.network_policies);
        let places = terrain.of_workload(&own);
        let Some(first) = places.first().copied() else { return };
        self.of_place(known, &terrain, first);
        self.tell_of_others(&terrain, &places);
    }

    fn of_place(&mut self, known: &Known, terrain: &Terrain<'_>, place: usize) {
        if known.seen.network_policies == Extent::Nothing {
            self.notes.push("NetworkPolicies could not be read: who reaches it is not known".into());
            return;
        }
        let mut told = network(terrain, place);
        if known.seen.network_policies == Extent::Own {
            told.notes.push("NetworkPolicies of other namespaces could not be read, and may deny more there".into());
        }
        match known.seen.pods {
            Extent::Whole => {}
            Extent::Own => told.notes.push("pods of other namespaces could not be read, and are not told".into()),
            Extent::Nothing => told.notes.push("other pods could not be read, and are not told".into()),
        }
        self.network = Some(told);
        self.pending = Some(pending(known, terrain, place));
    }

    /// The pods of a workload need not be selected alike.
    fn tell_of_others(&mut self, terrain: &Terrain<'_>, places: &[usize]) {
        let selecting = |place: usize| -> BTreeSet<String> {
            let all = terrain.policies.iter().zip(&terrain.names);
            let selecting = all.filter(|(policy, _)| terrain.selected(policy).contains(&place));
            selecting.map(|(_, named)| full_name(named)).collect()
        };
        let classes: BTreeSet<Option<usize>> =
            places.iter().map(|place| terrain.population.index.class_of(*place)).collect();
        let one_of = |class: &Option<usize>| {
            places.iter().copied().find(|place| terrain.population.index.class_of(*place) == *class)
        };
        let selected: BTreeSet<BTreeSet<String>> = classes.iter().filter_map(one_of).map(selecting).collect();
        let first = places.first().and_then(|place| terrain.pods().get(*place)).map(|pod| pod.name.clone());
        if let Some(first) = first.filter(|_| selected.len() > 1) {
            self.notes.push(format!(
                "NetworkPolicies select its {} pods differently: its network is told as of {first}; ask for pods by name",
                places.len()
            ));
        }
    }

    /// An object as what it is; that it has not the shape of its kind is told.
    fn parsed<K>(&mut self, object: &DynamicObject) -> Option<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let parsed = object.clone().try_parse::<K>();
        parsed.map_err(|error| self.notes.push(format!("it can't be read: {error}"))).ok()
    }

    fn of_policy(&mut self, what: What, object: &DynamicObject, known: &Known, terrain: &Terrain<'_>, now: Timestamp) {
        match what {
            What::Namespace => self.namespace = Some(namespace(&object.name_any(), known, terrain, now)),
            What::NetworkPolicy => {
                let policy = self.parsed::<NetworkPolicy>(object);
                self.network_policy = policy.map(|it| network_policy(&it, known, terrain));
            }
            What::SecurityPolicy => {
                let policy = self.parsed::<SecurityPolicy>(object);
                self.policy = policy.map(|it| security_policy(&it, known, terrain));
            }
            What::ClusterSecurityPolicy => {
                let policy = self.parsed::<ClusterSecurityPolicy>(object);
                self.policy = policy.map(|it| cluster_security_policy(&it, known, terrain));
            }
            What::ApiKey => self.api_key = self.parsed::<ApiKey>(object).map(|it| api_key(&it, known)),
            What::LegalHold => {
                let hold = self.parsed::<LegalHold>(object);
                self.hold = hold.map(|it| keeps(&it, &it.spec.terms, known));
            }
            What::ClusterLegalHold => {
                let hold = self.parsed::<ClusterLegalHold>(object);
                self.hold = hold.map(|it| keeps(&it, &it.spec.terms, known));
            }
            What::Pod | What::Template | What::Kept | What::Other => {}
        }
    }
}

/// The pod in an object, as hardening judges it; `None` for one that has finished, or where there is none.
fn kept(kind: &Kind, object: &DynamicObject) -> Option<Kept> {
    if kind.what == What::Pod {
        return Kept::of(&object.metadata, object.data.clone());
    }
    let path = template_path(kind.group(), &kind.name)?;
    let template = path.iter().try_fold(&object.data, |value, key| value.get(*key))?;
    let mut metadata = object.metadata.clone();
    let written = template.get("metadata").cloned().unwrap_or_default();
    let written: kube::api::ObjectMeta = serde_json::from_value(written).ok()?;
    (metadata.labels, metadata.annotations) = (written.labels, written.annotations);
    Kept::of(&metadata, json!({"spec": template.get("spec")}))
}

/// A pod that a workload would make.
fn stand_in(kind: &Kind, object: &DynamicObject, own: &Workload) -> Option<Inhabitant> {
    let ApiResource { api_version, kind, .. } = kind.resource();
    let typed = DynamicObject { types: Some(TypeMeta { api_version, kind }), ..object.clone() };
    let wire = serde_json::to_value(typed).ok()?;
    let mut world = World::default();
    world.add(&wire, &own.namespace).ok()?;
    let pod = world.pods.into_iter().next()?;
    Some(Inhabitant { resident: Resident { pod, needs: Needs::default() }, workload: own.clone() })
}
