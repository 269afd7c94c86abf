//! Telling people: conditions and events.

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;

use super::{Networks, Sight};
use crate::{
    api::{
        Finding, NetworkPreview,
        condition::{Conditions, Type},
    },
    cluster::events::Reason,
    network::{Answered, Standing, is_in_the_way, is_unmatched},
};

const POLICY_WIDENED: Reason = Reason::warning("PolicyWidened");
const PREVIEW_COMPUTED: Reason = Reason::normal("PreviewComputed");
const NAMED_PORT_AMBIGUOUS: Reason = Reason::warning("NamedPortAmbiguous");
pub(in super::super) const ENFORCE_REFUSED: &str = "EnforceRefused";

/// What status said before.
#[derive(Default)]
pub(in super::super) struct Before<'b> {
    /// Conditions.
    pub(in super::super) conditions: &'b [Condition],
    /// Whether they were about the spec as it is now.
    pub(in super::super) is_current: bool,
    /// Whether there was a preview.
    pub(in super::super) had_preview: bool,
    /// Findings.
    pub(in super::super) findings: &'b [Finding],
    /// Policies of others that allow more.
    pub(in super::super) widened_by: &'b [String],
}

impl Before<'_> {
    fn was_refused(&self) -> bool {
        self.conditions.iter().any(|it| it.type_ == Type::Programmed.as_str() && it.reason == ENFORCE_REFUSED)
    }
}

impl Networks {
    /// Events about what is new, and gauges.
    pub(in super::super) async fn tell<K: Resource<DynamicType = ()> + Debug>(
        &self,
        policy: &K,
        before: &Before<'_>,
        preview: Option<&NetworkPreview>,
        (findings, widened_by): (&[Finding], &[String]),
    ) {
        let events = &self.context.events;
        let new: Vec<&str> =
            widened_by.iter().filter(|it| !before.widened_by.contains(it)).map(String::as_str).collect();
        if !new.is_empty() {
            let note =
                format!("NetworkPolicies of others allow pods of this policy more than it does: {}", new.join(", "));
            events.publish(policy, POLICY_WIDENED, &note).await;
        }
        if let Some(NetworkPreview { newly_denied, newly_allowed, .. }) = preview
            && !(before.is_current && before.had_preview)
        {
            let note =
                format!("it would newly deny {newly_denied} pairs that can talk, and newly allow {newly_allowed}");
            events.publish(policy, PREVIEW_COMPUTED, &note).await;
        }
        let was_found = |found: &Finding| before.findings.iter().any(|it| it.id == found.id);
        for found in findings.iter().filter(|it| it.id.starts_with(NAMED_PORT_AMBIGUOUS.name) && !was_found(it)) {
            events.publish(policy, NAMED_PORT_AMBIGUOUS, &found.message).await;
        }
        let widened = i64::from(!widened_by.is_empty());
        let uid = policy.meta().uid.as_deref().unwrap_or_default();
        self.ledger.count(uid, preview.map_or(0, |it| it.newly_denied), widened);
    }

    /// Why Enforce is refused, if it would break something that was not acknowledged; with an event when that is new.
    pub(in super::super) async fn refusal<K: Resource<DynamicType = ()> + Debug>(
        &self,
        policy: &K,
        before: &Before<'_>,
        open: &[&str],
    ) -> Option<(&'static str, String)> {
        if open.is_empty() {
            return None;
        }
        let message = refusal(open);
        if !before.was_refused() {
            self.context.events.publish(policy, Reason::warning(ENFORCE_REFUSED), &message).await;
        }
        Some((ENFORCE_REFUSED, message))
    }
}

/// Those of some findings that are in the way and were not acknowledged, by id.
pub(in super::super) fn unacknowledged<'f>(breaks: &'f [Finding], acknowledged: &[String]) -> Vec<&'f str> {
    let ids = breaks.iter().filter(|found| is_in_the_way(found)).map(|found| found.id.as_str());
    ids.filter(|id| !acknowledged.iter().any(|it| it == id)).collect()
}

/// Some findings, first those that are in the way: where a list is cut, what is left to do must show.
pub(in super::super) fn open_first(mut breaks: Vec<Finding>, acknowledged: &[String]) -> Vec<Finding> {
    let acknowledged: BTreeSet<&str> = acknowledged.iter().map(String::as_str).collect();
    breaks.sort_by_key(|found| acknowledged.contains(found.id.as_str()) || !is_in_the_way(found));
    breaks
}

fn refusal(open: &[&str]) -> String {
    format!(
        "it would break {}, told in status.network.findings: allow what they need, or list their ids in \
         spec.network.acknowledge",
        first_five(open)
    )
}

fn first_five(names: &[&str]) -> String {
    let told = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().checked_sub(5).filter(|more| *more > 0).map(|more| format!(" and {more} more"));
    format!("{told}{}", more.unwrap_or_default())
}

/// Sets the conditions that tell how pods stand, and who may widen what is asked.
pub(in super::super) fn conditions_of(
    standing: &Standing,
    sight: &Sight,
    widened_by: &[String],
    conditions: &mut Conditions,
) {
    conditions.set(Type::Rendered, true, "Rendered", "");
    conditions.set(Type::Analyzed, true, "Analyzed", "");
    if !widened_by.is_empty() {
        let message = format!("NetworkPolicies of others allow more: {}", widened_by.join(", "));
        conditions.set(Type::WidenedByOthers, true, "ForeignPolicies", message);
    }
    answered(conditions, Type::DnsReachable, standing.dns, "can't resolve names", "entity: DNS");
    answered(
        conditions,
        Type::ApiServerReachable,
        standing.api_server,
        "can't reach the API server",
        "entity: APIServer",
    );
    let is_open = standing.isolated.egress == 0;
    if conditions.is(Type::ApiServerReachable) && !is_open && is_unmatched(&sight.facts, &sight.population) {
        let why = "the API server is at the address of a node, which Cilium matches only with policyCIDRMatchMode: nodes: \
                   with that, pods reach it by `entity: APIServer`, and it calls them by `entity: Webhooks`";
        conditions.unknown(Type::ApiServerReachable, "NodesUnmatched", why);
    }
    match sight.around.enforcer().or(sight.population.enforcer) {
        Some(name) => conditions.set(Type::EnforcerDetected, true, "Found", format!("{name} is there")),
        None => conditions.set(
            Type::EnforcerDetected,
            false,
            "NoneFound",
            "no network plug-in that is known to enforce NetworkPolicies was found: they may be without effect",
        ),
    };
}

/// Cuts a list to the length that status holds; returns how many more there were.
pub(in super::super) fn cut<T>(list: &mut Vec<T>, most: usize) -> Option<u32> {
    let more = list.len().checked_sub(most).filter(|more| *more > 0)?;
    list.truncate(most);
    Some(u32::try_from(more).unwrap_or(u32::MAX))
}

/// Sets the conditions of what is in force, and names rules of which less is.
pub(in super::super) fn programmed(what: &str, unmet: &BTreeSet<String>, conditions: &mut Conditions) {
    if unmet.is_empty() {
        conditions.set(Type::Programmed, true, "Programmed", format!("{what} are as rendered"));
        conditions.set(Type::Ready, true, "Ready", "");
        return;
    }
    let rules: Vec<&str> = unmet.iter().map(String::as_str).collect();
    let message = format!(
        "{what} are as rendered, with less than these rules say: {}; status.network.findings tells why",
        first_five(&rules)
    );
    conditions.set(Type::Programmed, true, "PartiallyProgrammed", message.as_str());
    conditions.set(Type::Ready, true, "PartiallyProgrammed", message);
}

/// Sets the conditions of what is only previewed.
pub(in super::super) fn previewed(conditions: &mut Conditions) {
    let why = "the mode is Preview: status.network.preview tells what Enforce would change";
    conditions.set(Type::Programmed, false, "Preview", why);
    conditions.set(Type::Ready, true, "Preview", "");
}

/// What the network part of a policy alone says.
const SEEN: [Type; 6] = [
    Type::Rendered,
    Type::Analyzed,
    Type::WidenedByOthers,
    Type::DnsReachable,
    Type::ApiServerReachable,
    Type::EnforcerDetected,
];

/// Takes over what the network part said last.
pub(in super::super) fn keep_seen(last: &[Condition], conditions: &mut Conditions) {
    for kept in last.iter().filter(|it| SEEN.iter().any(|kind| kind.as_str() == it.type_)) {
        conditions.keep(kept);
    }
}

/// Sets the conditions of what could not be brought about so far and is tried again, and why; what was seen last stays.
pub(in super::super) fn failing(last: &[Condition], reason: &str, message: &str, conditions: &mut Conditions) {
    keep_seen(last, conditions);
    conditions.set(Type::Accepted, true, "Accepted", "");
    conditions.wait(reason, message);
}

/// Sets the conditions of what can't be in force, and why; `is_accepted` where it is not for the spec alone.
pub(in super::super) fn stalled(conditions: &mut Conditions, is_accepted: bool, reason: &str, message: &str) {
    let (why, what) = if is_accepted { ("Accepted", "") } else { (reason, message) };
    conditions.set(Type::Accepted, is_accepted, why, what);
    conditions.stall(reason, message);
}

fn answered(conditions: &mut Conditions, kind: Type, of: Option<Answered>, problem: &str, peer: &str) {
    let Some(Answered { asking, cut_off }) = of.filter(|it| it.asking > 0) else { return };
    if cut_off == 0 {
        conditions.set(kind, true, "Allowed", "");
        return;
    }
    let message = format!("{cut_off} of {asking} pods {problem}: allow egress to `{peer}`");
    conditions.set(kind, false, "Denied", message);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        api::Isolated,
        network::{Facts, Population, Resident, unmet},
    };

    #[test]
    fn rules_of_which_less_is_rendered_are_named() {
        let found = |id: &str| Finding { id: id.into(), message: String::new() };
        let told = |findings: &[Finding]| {
            let mut conditions = Conditions::of_generation(Some(1));
            programmed("2 NetworkPolicies", &unmet(findings), &mut conditions);
            let ready = conditions.carried_from(&[], jiff::Timestamp::UNIX_EPOCH).swap_remove(1);
            (ready.status, ready.reason, ready.message)
        };
        let open = found("OpenToAll/shop/all");
        assert_eq!(told(std::slice::from_ref(&open)).1, "Ready");
        let (status, reason, message) = told(&[
            found("ServiceUnknown/shop/db"),
            open,
            found("Clamped/shop/out"),
            found("NamedPortUnknown/shop/db"),
        ]);
        assert_eq!((status.as_str(), reason.as_str()), ("True", "PartiallyProgrammed"));
        assert!(message.starts_with("2 NetworkPolicies are as rendered, with less than these rules say: db, out;"));
    }

    #[test]
    fn an_api_server_on_a_node_is_not_told_to_be_reached_through_cilium() {
        let told = |label: &str, isolated: i64| {
            let metadata = json!({"namespace": "kube-system", "name": "agent", "labels": {"k8s-app": label}});
            let agent = json!({"spec": {"hostNetwork": true}, "status": {"podIP": "192.0.2.1"}});
            let agent = Resident::of(&serde_json::from_value(metadata).unwrap(), &agent).unwrap();
            let sight = Sight {
                population: Arc::new(Population::new(vec![], [agent].into_iter())),
                facts: Facts { api_endpoints: [("192.0.2.1".parse().unwrap(), 6443)].into(), ..Facts::default() },
                around: Arc::default(),
            };
            let api_server = Some(Answered { asking: 1, cut_off: 0 });
            let isolated = Isolated { ingress: 0, egress: isolated };
            let standing = Standing { isolated, api_server, ..Standing::default() };
            let mut conditions = Conditions::of_generation(Some(1));
            conditions_of(&standing, &sight, &[], &mut conditions);
            let conditions = conditions.carried_from(&[], jiff::Timestamp::UNIX_EPOCH);
            let found = conditions.into_iter().find(|it| it.type_ == "ApiServerReachable").unwrap();
            (found.status, found.reason)
        };
        let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(told("cilium", 1), is("Unknown", "NodesUnmatched"));
        assert_eq!(told("cilium", 0), is("True", "Allowed"), "nothing isolates it");
        assert_eq!(told("calico-node", 1), is("True", "Allowed"));
    }

    #[test]
    fn what_is_cut_is_counted() {
        let cut = |length: usize| {
            let mut list = vec![0; length];
            (cut(&mut list, 3), list.len())
        };
        assert_eq!([cut(0), cut(3), cut(5)], [(None, 0), (None, 3), (Some(2), 3)]);
    }

    #[test]
    fn what_is_left_to_acknowledge_comes_first() {
        let found = |id: &str| Finding { id: id.into(), message: String::new() };
        let all = Vec::from(["ScrapeUncertain/n/a", "a", "b", "c", "d"].map(found));
        let acknowledged = ["a".to_owned(), "c".to_owned()];
        assert_eq!(unacknowledged(&all, &acknowledged), ["b", "d"], "what is only told is not in the way");
        let listed = open_first(all, &acknowledged);
        let listed: Vec<&str> = listed.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(listed, ["b", "d", "ScrapeUncertain/n/a", "a", "c"]);
    }
}
