//! Whose NetworkPolicies are: labels alone prove nothing, since everybody who may write one may write them.

use std::{fmt::Debug, sync::OnceLock};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Resource, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Owning as _, index::Live};
use crate::{
    api::{ClusterSecurityPolicy, SecurityPolicy, labels::OWNER_UID},
    cluster::owner::owner_of,
    controllers::Roots,
};

/// The policies that there are of each kind, as its controller sees them.
#[derive(Default)]
pub(in super::super) struct Owners {
    pub(in super::super) own: OnceLock<Roots<SecurityPolicy>>,
    pub(in super::super) wide: OnceLock<Roots<ClusterSecurityPolicy>>,
}

impl Owners {
    /// Whether somebody else made it. What was ours once stays so when its policy goes: it is pruned, or held.
    pub(super) fn is_foreign(&self, live: &Live) -> bool {
        if live.is_ours() {
            return false;
        }
        match self.made(&live.object) {
            Some(true) => {
                live.remember();
                false
            }
            Some(false) => true,
            // Those who are known soon are believed until then.
            None => false,
        }
    }

    /// Whether the policy that it was made for is there, or was when somebody looked.
    pub(super) fn vouch_for(&self, live: &Live) -> bool {
        !self.is_foreign(live) && live.is_ours()
    }

    /// Whether a policy is there that it was made for, in its very namespace or of the whole cluster; `None` where that
    /// is not known yet.
    fn made(&self, policy: &NetworkPolicy) -> Option<bool> {
        let Some((kind, name)) = owner_of(policy) else { return Some(false) };
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let uid = policy.labels().get(OWNER_UID).map(String::as_str).unwrap_or_default();
        if kind == SecurityPolicy::KIND {
            has(&self.own, (namespace, name), uid)
        } else if kind == ClusterSecurityPolicy::KIND {
            has(&self.wide, (namespace, name), uid)
        } else {
            Some(false)
        }
    }
}

fn has<K>(roots: &OnceLock<Roots<K>>, (namespace, name): (&str, &str), uid: &str) -> Option<bool>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    roots.get().filter(|roots| roots.are_listed()).map(|roots| roots.has((namespace, name), uid))
}

/// Wakes all once the policies of the other kind have been listed, unless they are: whoever was believed until then is
/// looked at again.
pub(in super::super) async fn wake_once_listed<K>(
    roots: Option<&Roots<K>>,
    all: &watch::Sender<u64>,
    stopped: &CancellationToken,
) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    if let Some(roots) = roots.filter(|roots| !roots.are_listed()) {
        tokio::select! {
            listed = roots.were_listed() => if listed { all.send_modify(|count| *count += 1) },
            () = stopped.cancelled() => {}
        }
    }
    stopped.cancelled().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::{core::DeserializeGuard, runtime::watcher::Event};
    use serde_json::json;

    use super::*;
    use crate::controllers::root;

    /// A NetworkPolicy of this name and namespace, whose labels say that it was made for the SecurityPolicy `web`.
    fn labelled(namespace: &str, name: &str, uid: &str) -> Arc<Live> {
        let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "SecurityPolicy",
            "rampart.dev/owner-name": "web", "rampart.dev/owner-uid": uid});
        let policy = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}});
        Live::new(serde_json::from_value(policy).unwrap())
    }

    #[test]
    fn only_what_a_policy_that_is_there_was_made_for_is_ours() {
        let (mut root, roots) = root::<SecurityPolicy>();
        let owners = Owners::default();
        let ours = || labelled("shop", "rampart-web-01234567", "0123456789");
        let _ = owners.own.set(roots);
        assert!(!owners.is_foreign(&ours()), "nobody is known yet");
        let web = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "0123456789"}, "spec": {}});
        let web = DeserializeGuard(Ok(serde_json::from_value(web).unwrap()));
        for event in [Event::Init, Event::InitApply(web.clone()), Event::InitDone] {
            root.writer.apply_watcher_event(&event);
        }
        let kept = ours();
        assert!(!owners.is_foreign(&kept));
        for (namespace, name, uid) in [
            ("books", "rampart-web-01234567", "0123456789"),
            ("shop", "rampart-web-89abcdef", "89abcdef01"),
            ("shop", "open", "0123456789"),
        ] {
            assert!(owners.is_foreign(&labelled(namespace, name, uid)), "{namespace}/{name}");
        }
        root.writer.apply_watcher_event(&Event::Delete(web));
        assert!(!owners.is_foreign(&kept), "it is pruned soon");
        assert!(owners.is_foreign(&ours()), "one that nobody saw before");
    }
}
