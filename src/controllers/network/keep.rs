//! Writing what a policy becomes, and putting back what others change.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
    time::{Duration, Instant},
};

use kube::{Resource, ResourceExt as _};

use super::{Networks, Sight, part::Part};
use crate::{
    cluster::{
        Error, Result,
        apply::{Outcome, delete_seen, is_as_wanted, keep},
        events::Reason,
    },
    network::Intent,
    runtime::metrics::KindLabel,
};

pub(super) const MANAGER: &str = "rampart-network";
const DRIFT_REVERTED: Reason = Reason::warning("DriftReverted");
const API_SERVER_MOVED: Reason = Reason::normal("ApiServerEndpointsChanged");

/// What came of a part.
pub(in super::super) enum Kept {
    /// The cluster holds these, by name.
    Programmed(Vec<String>),
    /// A name is taken by somebody else's object.
    Conflicted(String),
    /// The API server does not take it, as where a quota is used up, or stores it otherwise; or lets something not go, as
    /// where it is held.
    Refused(String),
}

/// When to try again what was refused: nobody tells when it would be taken.
pub(in super::super) const REFUSED_AGAIN: Duration = Duration::from_mins(1);

impl Networks {
    /// Makes the cluster hold what a part wants.
    pub(in super::super) async fn program<K: Resource<DynamicType = ()> + Debug>(
        &self,
        policy: &K,
        part: &Part,
    ) -> Result<Kept> {
        // After a restart nobody knows what was wanted, and a change of the cluster must not be called drift.
        let is_drift = self.is_known(part);
        if !is_drift {
            // What is written now may not come to its end, and then nothing of before is kept.
            self.leave(part);
        }
        let (mut names, mut altered) = (vec![], None);
        for wanted in &part.wanted {
            let name = wanted.name_any();
            let live = part.live.get(&name).map(|live| &live.object);
            let _writing = self.index.writing(wanted);
            match keep(&self.context.client, MANAGER, &part.owner, wanted, live).await {
                Ok((_, Outcome::Unchanged)) => {}
                Ok((kept, outcome)) => {
                    let is_stored = is_as_wanted(&kept, wanted);
                    self.index.wrote(kept);
                    if !is_stored {
                        // It is in force all the same: what belongs to it is written, too.
                        altered = altered.or(Some(otherwise(&name)));
                        continue;
                    }
                    self.context.metrics.network_rendered.inc();
                    if is_drift {
                        self.tell_of_drift(policy, &name, outcome).await;
                    }
                }
                Err(error @ Error::Foreign { .. }) => return Ok(Kept::Conflicted(partly(&names, part, &error))),
                Err(error) if error.is_refusal() => return Ok(Kept::Refused(partly(&names, part, &error))),
                Err(error) => return Err(error),
            }
            names.push(name);
        }
        let removed = self.remove_stale(part).await?;
        if altered.is_none() {
            self.ledger.render(&part.owner.uid, &part.owner.namespace, Some(part.fingerprint()));
        }
        Ok(match (altered, removed) {
            (Some(why), _) | (None, Kept::Refused(why)) => Kept::Refused(partly(&names, part, &why)),
            _ => Kept::Programmed(names),
        })
    }

    /// Removes what is no longer rendered; what is refused keeps nothing else.
    pub(in super::super) async fn remove_stale(&self, part: &Part) -> Result<Kept> {
        if part.wanted.is_empty() {
            self.leave(part);
        }
        let mut refused = None;
        for stale in part.stale() {
            match delete_seen(&self.context.client, stale).await {
                Ok(()) => self.index.deleted(stale),
                Err(error) if error.is_refusal() => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(refused.map_or_else(|| Kept::Programmed(vec![]), |error| Kept::Refused(error.to_string())))
    }

    /// Whether what a part wants was kept until now, by this process: what there is otherwise was changed by others, and
    /// what that breaks was decided then.
    pub(in super::super) fn is_known(&self, part: &Part) -> bool {
        self.ledger.is_known(&part.owner.uid, &part.owner.namespace, part.fingerprint())
    }

    /// Forgets what was kept in the namespace of a part: what there is stays, and nothing keeps it.
    pub(in super::super) fn leave(&self, part: &Part) {
        self.ledger.render(&part.owner.uid, &part.owner.namespace, None);
    }

    /// As [`Networks::leave`], in all namespaces of a policy.
    pub(in super::super) fn freeze(&self, uid: &str) {
        self.ledger.freeze(uid);
    }

    async fn tell_of_drift<K: Resource<DynamicType = ()> + Debug>(&self, policy: &K, name: &str, outcome: Outcome) {
        self.context.metrics.drift_reverted.get_or_create(&KindLabel { kind: "NetworkPolicy" }).inc();
        let what = if outcome == Outcome::Created { "deleted" } else { "changed" };
        let note = format!("NetworkPolicy {name} was {what} by another hand and has been put back");
        self.context.events.publish(policy, DRIFT_REVERTED, &note).await;
    }

    /// An event when a policy that names the API server is rendered anew because that has moved.
    pub(in super::super) async fn tell_of_api_server<K: Resource<DynamicType = ()> + Debug>(
        &self,
        policy: &K,
        intent: &Intent,
        sight: &Sight,
    ) {
        let uid = policy.meta().uid.clone().unwrap_or_default();
        let now = &sight.facts.api_endpoints;
        if self.ledger.has_moved(&uid, intent.names_api_server().then_some(now)) {
            let at = now.iter().map(|(address, port)| format!("{address}:{port}")).collect::<Vec<_>>().join(", ");
            let note = format!("the API server is at {at} now: the NetworkPolicies that name it follow");
            self.context.events.publish(policy, API_SERVER_MOVED, &note).await;
        }
    }

    /// Whether a policy is of another generation than when this was last asked.
    pub(in super::super) fn is_news(&self, uid: &str, generation: Option<i64>) -> bool {
        self.ledger.is_news(uid, generation)
    }

    /// Notes that the status of a policy was written.
    pub(in super::super) fn told(&self, uid: &str) {
        self.ledger.tell(uid, Instant::now());
    }

    /// How long other counts of a policy have to wait, if its status was written a moment ago.
    pub(in super::super) fn told_a_moment_ago(&self, uid: &str) -> Option<Duration> {
        self.ledger.hold(uid, Instant::now())
    }

    /// Forgets all policies but these.
    pub(in super::super) fn forget_others(&self, uids: &BTreeSet<String>) {
        self.ledger.forget_others(uids);
    }
}

/// Of what is not as it was written, twice: to write it again at once would not help.
fn otherwise(name: &str) -> String {
    format!(
        "NetworkPolicy {name} is stored otherwise than it is written, most likely by an admission webhook: have that leave \
         alone what has the label app.kubernetes.io/managed-by: rampart"
    )
}

/// Why not all of a part was written. What was stays in force.
fn partly(names: &[String], part: &Part, why: &impl Display) -> String {
    match (names.len(), part.wanted.len()) {
        (0, _) => why.to_string(),
        (written, all) => format!("{written} of {all} NetworkPolicies are as rendered; {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use kube::{Client, client::Body};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::SecurityPolicy,
        cluster::{owner::Owner, policy_index::PolicyIndex},
        controllers::{Context, Residents},
    };

    fn networks_of(client: Client) -> Networks {
        let (context, policies) = (Context::of_client(client), PolicyIndex::default());
        Networks::off(&context, Residents::new(policies.clone()), policies)
    }

    /// A NetworkPolicy that is held.
    const HELD: &str = "rampart-web-01234567-a";

    /// Where everything may be deleted but what is held.
    fn networks() -> Networks {
        let answer = |request: Request<Body>| {
            let (code, json) = if request.uri().path().ends_with(HELD) {
                (403_u16, json!({"status": "Failure", "message": "it is held", "reason": "Forbidden", "code": 403}))
            } else {
                (200, json!({"kind": "Status", "status": "Success", "message": "", "reason": "", "code": 200}))
            };
            let answer = Response::builder().status(code).body(Body::from(json.to_string().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        };
        networks_of(Client::new(tower::service_fn(answer), "default"))
    }

    fn owner() -> Owner {
        let [kind, namespace, name, uid] = ["SecurityPolicy", "shop", "web", "0123456789"].map(str::to_owned);
        Owner { kind, namespace, name, uid }
    }

    /// A NetworkPolicy whose labels say that it was made for an owner, which a manager applied.
    fn labelled(owner: &Owner, name: &str, manager: &str) -> NetworkPolicy {
        let policy = json!({"metadata": {"name": name, "namespace": "shop", "labels": owner.labels(),
            "resourceVersion": "1", "managedFields": [{"manager": manager, "operation": "Apply"}]}});
        serde_json::from_value(policy).unwrap()
    }

    fn left(networks: &Networks) -> Vec<String> {
        networks.index.in_namespace("shop").into_keys().collect()
    }

    #[tokio::test]
    async fn what_may_not_go_is_told_and_keeps_nothing_else() {
        let networks = networks();
        for name in [HELD, "rampart-web-01234567-b"] {
            networks.index.wrote(labelled(&owner(), name, MANAGER));
        }
        assert_eq!(left(&networks).len(), 2);
        let kept = networks.remove_stale(&networks.nothing(owner())).await.unwrap();
        assert!(matches!(kept, Kept::Refused(why) if why.contains(HELD) && why.ends_with("it is held")));
        assert_eq!(left(&networks), [HELD]);
    }

    #[tokio::test]
    async fn a_copy_under_another_name_stays_and_what_was_restored_goes() {
        let networks = networks();
        let predecessor = Owner { uid: "89abcdef01".into(), ..owner() };
        networks.index.wrote(labelled(&owner(), "copy", "kubectl"));
        networks.index.wrote(labelled(&predecessor, "rampart-web-89abcdef", "restore"));
        networks.index.wrote(labelled(&predecessor, "relabelled", MANAGER));
        networks.remove_stale(&networks.nothing(owner())).await.unwrap();
        assert_eq!(left(&networks), ["copy"]);
    }

    #[tokio::test]
    async fn what_a_webhook_changes_is_not_programmed_and_no_drift() {
        let changing = |request: Request<Body>| async move {
            let written = request.into_body().collect_bytes().await.unwrap();
            let mut stored: Value = serde_json::from_slice(&written).unwrap();
            stored["metadata"]["resourceVersion"] = json!("1");
            stored["spec"]["egress"] = json!([{}]);
            Ok::<_, Infallible>(Response::new(Body::from(stored.to_string().into_bytes())))
        };
        let networks = networks_of(Client::new(tower::service_fn(changing), "default"));
        let web = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "0123456789"}, "spec": {}});
        let web: SecurityPolicy = serde_json::from_value(web).unwrap();
        let closed = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": []});
        let mut wanted = labelled(&owner(), "rampart-web-01234567", MANAGER);
        wanted.spec = serde_json::from_value(closed).unwrap();
        let part = Part { wanted: vec![wanted], ..networks.nothing(owner()) };
        networks.ledger.render(&part.owner.uid, "shop", Some(part.fingerprint()));
        let kept = networks.program(&web, &part).await.unwrap();
        assert!(matches!(kept, Kept::Refused(why) if why.contains("rampart-web-01234567 is stored otherwise")));
        assert_eq!(left(&networks), ["rampart-web-01234567"], "what there is is known");
        let kind = KindLabel { kind: "NetworkPolicy" };
        assert_eq!(networks.context.metrics.drift_reverted.get_or_create(&kind).get(), 0);
    }
}
