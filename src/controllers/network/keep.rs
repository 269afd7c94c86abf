//! Writing what a policy becomes, and putting back what others change.

use std::{collections::BTreeSet, fmt::Debug, time::Duration};

use kube::{Resource, ResourceExt as _};

use super::{Networks, Sight, part::Part};
use crate::{
    cluster::{
        Error, Result,
        apply::{Outcome, delete_seen, keep},
        events::Reason,
    },
    network::Intent,
    runtime::metrics::KindLabel,
};

const MANAGER: &str = "rampart-network";
const DRIFT_REVERTED: Reason = Reason::warning("DriftReverted");
const API_SERVER_MOVED: Reason = Reason::normal("ApiServerEndpointsChanged");

/// What came of a part.
pub(in super::super) enum Kept {
    /// The cluster holds these, by name.
    Programmed(Vec<String>),
    /// A name is taken by somebody else's object.
    Conflicted(String),
    /// The API server takes none of it, as where a quota is used up.
    Refused(String),
}

/// The reason of that in conditions, and when to try again: nobody tells when it would be taken.
pub(in super::super) const WRITE_REFUSED: &str = "WriteRefused";
pub(in super::super) const REFUSED_AGAIN: Duration = Duration::from_mins(1);

impl Networks {
    /// Makes the cluster hold what a part wants. `was_programmed`: what there is otherwise was changed by others, unless
    /// something else is wanted than before.
    pub(in super::super) async fn program<K: Resource<DynamicType = ()> + Debug>(
        &self,
        policy: &K,
        part: &Part,
        was_programmed: bool,
    ) -> Result<Kept> {
        let (uid, namespace, fingerprint) = (&part.owner.uid, &part.owner.namespace, part.fingerprint());
        // After a restart nobody knows what was wanted, and a change of the cluster must not be called drift.
        let is_drift = was_programmed && self.ledger.is_known(uid, namespace, fingerprint);
        let mut names = vec![];
        for wanted in &part.wanted {
            let name = wanted.name_any();
            let live = part.live.get(&name).map(|live| &live.object);
            let _writing = self.index.writing(wanted);
            match keep(&self.context.client, MANAGER, &part.owner, wanted, live).await {
                Ok((_, Outcome::Unchanged)) => {}
                Ok((kept, outcome)) => {
                    self.index.wrote(kept);
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
        self.ledger.render(uid, namespace, Some(fingerprint));
        self.remove_stale(part).await?;
        Ok(Kept::Programmed(names))
    }

    /// Removes what is no longer rendered.
    pub(in super::super) async fn remove_stale(&self, part: &Part) -> Result<()> {
        if part.wanted.is_empty() {
            self.ledger.render(&part.owner.uid, &part.owner.namespace, None);
        }
        for stale in part.stale() {
            delete_seen(&self.context.client, stale).await?;
            self.index.deleted(stale);
        }
        Ok(())
    }

    /// Whether what a part wants was wanted before, by this process. What that breaks was decided then.
    pub(in super::super) fn is_known(&self, part: &Part) -> bool {
        self.ledger.is_known(&part.owner.uid, &part.owner.namespace, part.fingerprint())
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

    /// Forgets all policies but these.
    pub(in super::super) fn forget_others(&self, uids: &BTreeSet<String>) {
        self.ledger.forget_others(uids);
    }
}

/// Why not all of a part was written. What was stays in force.
fn partly(names: &[String], part: &Part, why: &Error) -> String {
    match (names.len(), part.wanted.len()) {
        (0, _) => why.to_string(),
        (written, all) => format!("{written} of {all} NetworkPolicies are as rendered; {why}"),
    }
}
