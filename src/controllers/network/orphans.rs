//! NetworkPolicies whose owner is gone.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{CustomResourceExt, Resource, ResourceExt as _};

use super::{Networks, index::Live};
use crate::{
    api::{ClusterSecurityPolicy, SecurityPolicy, labels::OWNER_UID},
    cluster::{Result, apply::delete_seen, owner::is_managed},
    controllers::{
        Roots,
        pruning::{Look, Lost, Orphanage},
    },
};

/// A kind of policy that NetworkPolicies are made for.
pub(in super::super) trait Owning:
    Resource<DynamicType = ()> + CustomResourceExt + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// Its name.
    const KIND: &'static str;
}

impl Owning for SecurityPolicy {
    const KIND: &'static str = "SecurityPolicy";
}

impl Owning for ClusterSecurityPolicy {
    const KIND: &'static str = "ClusterSecurityPolicy";
}

/// NetworkPolicies of a kind of policy whose owner is gone.
pub(in super::super) struct Orphans<K: Owning> {
    pub(in super::super) networks: Networks,
    pub(in super::super) roots: Roots<K>,
}

impl<K: Owning> Orphanage for Orphans<K> {
    type Owner = K;
    type Orphan = Arc<Live>;
    const OWNER: &'static str = K::KIND;

    fn owners(&self) -> &Roots<K> {
        &self.roots
    }

    async fn orphans(&self, _: Look) -> Result<Vec<Lost<Arc<Live>>>> {
        let owners = self.roots.places();
        let labelled = self.networks.index.filter(|policy| is_managed(policy.labels(), K::KIND));
        // Anybody may write the labels, and must neither have the brake hold what others lost, nor be counted by who confirms.
        let (ours, others): (Vec<_>, Vec<_>) = labelled.into_iter().partition(|policy| policy.was_applied);
        let mut strangers = others.iter().filter(|policy| is_lost(&policy.object, &owners));
        if let Some(policy) = strangers.next() {
            let (metadata, more) = (&policy.object.metadata, strangers.count());
            tracing::warn!(
                owner = K::KIND,
                namespace = metadata.namespace,
                name = metadata.name,
                more,
                "a NetworkPolicy has the labels of one whose owner is gone, and was written by somebody else: it is left alone"
            );
        }
        // Of what lost its policy while nobody looked, only the name of a manager says that it is ours, and anybody may
        // take that: these are counted by themselves, and hold no others.
        let all = ours.len();
        let (seen, said): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|policy| self.networks.owners.vouch_for(policy));
        let all_seen = seen.len();
        let lost = |policies: Vec<Arc<Live>>| -> Vec<Arc<Live>> {
            policies.into_iter().filter(|policy| is_lost(&policy.object, &owners)).collect()
        };
        Ok(vec![Lost::alone(Self::OWNER, lost(seen), all_seen), Lost::alone(Self::OWNER, lost(said), all)])
    }

    fn metadata<'a>(&self, orphan: &'a Arc<Live>) -> &'a ObjectMeta {
        &orphan.object.metadata
    }

    fn is_orphan(&self, orphan: &Arc<Live>) -> bool {
        is_lost(&orphan.object, &self.roots.places())
    }

    async fn remove(&self, orphan: &Arc<Live>) -> Result<()> {
        delete_seen(&self.networks.context.client, &orphan.object).await?;
        self.networks.index.deleted(&orphan.object);
        Ok(())
    }
}

/// Whether the policy that an object names as its owner is none of these, or one of another namespace.
fn is_lost(policy: &NetworkPolicy, owners: &BTreeMap<String, Option<String>>) -> bool {
    let place = policy.labels().get(OWNER_UID).and_then(|uid| owners.get(uid));
    place.is_none_or(|place| place.is_some() && *place != policy.metadata.namespace)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::{Client, client::Body, core::DeserializeGuard, runtime::watcher::Event};
    use serde_json::json;

    use super::{super::keep::MANAGER, *};
    use crate::{
        cluster::policy_index::PolicyIndex,
        controllers::{Context, Residents, root},
    };

    fn networks() -> Networks {
        let answer = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let context = Context::of_client(Client::new(tower::service_fn(answer), "default"));
        let policies = PolicyIndex::default();
        Networks::off(&context, Residents::new(policies.clone()), policies)
    }

    /// A NetworkPolicy that a manager applied, and whose labels say that it was made for the SecurityPolicy `web`.
    fn applied(manager: &str, (namespace, name): (&str, &str), uid: &str) -> NetworkPolicy {
        let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "SecurityPolicy",
            "rampart.dev/owner-name": "web", "rampart.dev/owner-uid": uid});
        let policy = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels, "resourceVersion": "1",
            "managedFields": [{"manager": manager, "operation": "Apply"}]}});
        serde_json::from_value(policy).unwrap()
    }

    fn names(policies: &[Arc<Live>]) -> Vec<String> {
        policies.iter().map(|it| it.object.name_any()).collect()
    }

    #[tokio::test]
    async fn what_somebody_else_wrote_is_neither_counted_nor_pruned() {
        let networks = networks();
        for (name, manager) in [("rampart-web-01234567", MANAGER), ("rampart-web-01234567-copy", "kubectl")] {
            networks.index.take(Event::Apply(applied(manager, ("shop", name), "0123456789")));
        }
        let (_root, roots) = root::<SecurityPolicy>();
        let lost = Orphans { networks, roots }.orphans(Look::AtAll).await.unwrap();
        let [_, lost] = lost.as_slice() else { panic!("{} groups", lost.len()) };
        assert_eq!((names(&lost.counted), lost.all), (vec!["rampart-web-01234567".to_owned()], 1));
        assert!(lost.counted.iter().all(|it| it.object.metadata.managed_fields.is_none()), "nobody asks for them");
    }

    #[tokio::test]
    async fn who_takes_the_name_of_our_manager_holds_nothing_that_was_seen_with_its_policy() {
        let ((mut root, roots), networks) = (root::<SecurityPolicy>(), networks());
        let _ = networks.owners.own.set(roots.clone());
        let index = networks.index.clone();
        let web = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "0123456789"}, "spec": {}});
        let web = DeserializeGuard(Ok(serde_json::from_value(web).unwrap()));
        for event in [Event::Init, Event::InitApply(web.clone()), Event::InitDone] {
            root.writer.apply_watcher_event(&event);
        }
        index.take(Event::Apply(applied(MANAGER, ("shop", "rampart-web-01234567"), "0123456789")));
        let orphans = Orphans { networks, roots };
        let lost = orphans.orphans(Look::AtNews).await.unwrap();
        assert!(lost.iter().all(|lost| lost.counted.is_empty()), "its policy is there");
        for number in 0..9 {
            let name = format!("rampart-web-{number}");
            index.take(Event::Apply(applied(MANAGER, ("books", &name), &number.to_string())));
        }
        root.writer.apply_watcher_event(&Event::Delete(web));
        let lost = orphans.orphans(Look::AtNews).await.unwrap();
        let [seen, said] = lost.as_slice() else { panic!("{} groups", lost.len()) };
        assert_eq!((names(&seen.counted), seen.all), (vec!["rampart-web-01234567".to_owned()], 1));
        assert_eq!((said.counted.len(), said.all), (9, 10));
    }

    #[test]
    fn an_object_of_another_namespace_than_its_owner_is_lost() {
        let owners = [("a", Some("shop")), ("b", None)];
        let owners: BTreeMap<String, Option<String>> =
            owners.map(|(uid, namespace)| (uid.to_owned(), namespace.map(str::to_owned))).into();
        let lost = |uid: &str, namespace: &str| {
            let policy =
                json!({"metadata": {"name": "p", "namespace": namespace, "labels": {"rampart.dev/owner-uid": uid}}});
            is_lost(&serde_json::from_value(policy).unwrap(), &owners)
        };
        assert_eq!((lost("a", "shop"), lost("b", "shop"), lost("b", "books")), (false, false, false));
        assert_eq!((lost("a", "books"), lost("c", "shop")), (true, true));
    }
}
