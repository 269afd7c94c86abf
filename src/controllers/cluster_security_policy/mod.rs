//! ClusterSecurityPolicy: says what is true of it. Webhook and floor do what it asks.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{Context, Hardened, Next, Reconciler, Triggers, floor, requested, scan::hardening_status};
use crate::{
    api::{
        ClusterSecurityPolicy, ClusterSecurityPolicyStatus, HardeningMode, HardeningStatus,
        condition::{Conditions, Type},
    },
    cluster::{Result, leader::Leadership, status},
    hardening::{ClusterWide, Requirement},
    runtime::{clock, tasks::Tasks},
};

/// The controller of ClusterSecurityPolicies.
pub struct ClusterSecurityPolicies {
    context: Context,
    hardened: Hardened,
}

impl ClusterSecurityPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(context: &Context, hardened: Hardened, mut leadership: Leadership, tasks: &mut Tasks) {
        let (root, _) = super::root::<ClusterSecurityPolicy>();
        let (all_tx, all) = watch::channel(0);
        let Hardened { in_force, scan } = hardened.clone();
        let (context, stopped) = (context.clone(), context.stopped.clone());
        let controller = Arc::new(Self { context: context.clone(), hardened });
        tasks.spawn(Self::NAME, async move {
            tokio::select! {
                () = async { leadership.acquired().await; floor::known(&in_force).await } => {}
                () = stopped.cancelled() => return Ok(()),
            }
            let (_one, one) = mpsc::unbounded_channel();
            // There are few of them: each change is told to all.
            let refloored = super::wake_all(in_force, &all_tx, &stopped);
            let counted = super::wake_all(scan, &all_tx, &stopped);
            tokio::try_join!(super::run(controller, context, root, Triggers { one, all }), refloored, counted)?;
            Ok(())
        });
    }

    fn status(&self, policy: &ClusterSecurityPolicy) -> ClusterSecurityPolicyStatus {
        let mut conditions = Conditions::of_generation(policy.metadata.generation);
        let mut hardening = None;
        match ClusterWide::try_from(policy) {
            Ok(asked) => {
                conditions.set(Type::Accepted, true, "Accepted", "");
                conditions.set(Type::Programmed, true, "Programmed", "");
                conditions.set(Type::Ready, true, "Ready", "");
                let name = policy.metadata.name.as_deref().unwrap_or_default();
                if asked.requirement.mode != HardeningMode::Disabled {
                    hardening = Some(self.hardening(policy, name, &asked.requirement, &mut conditions));
                }
            }
            Err(invalid) => {
                let why = invalid.to_string();
                conditions.set(Type::Accepted, false, "Invalid", why.as_str());
                conditions.stall("Invalid", &why);
            }
        }
        let old = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        ClusterSecurityPolicyStatus {
            observed_generation: policy.metadata.generation,
            last_handled_reconcile_at: requested(policy),
            conditions: conditions.carried_from(old, clock::now()),
            hardening,
        }
    }

    fn hardening(
        &self,
        policy: &ClusterSecurityPolicy,
        name: &str,
        asked: &Requirement,
        conditions: &mut Conditions,
    ) -> HardeningStatus {
        let enforcers = {
            let in_force = self.hardened.in_force.borrow();
            in_force.enforcers(asked, None, in_force.clusters.get(name) == Some(&asked.standard()))
        };
        let by = enforcers.map(|enforcers| {
            enforcers.tell(conditions);
            enforcers.by
        });
        let scan = self.hardened.scan.borrow().clone();
        let before = policy.status.as_ref().and_then(|status| status.hardening.as_ref());
        hardening_status(by.unwrap_or_default(), scan.as_ref().and_then(|it| it.wide.get(name)), before)
    }
}

impl Reconciler for ClusterSecurityPolicies {
    type Root = ClusterSecurityPolicy;
    const NAME: &'static str = "clustersecuritypolicy";

    async fn reconcile(&self, policy: &ClusterSecurityPolicy) -> Result<Next> {
        if policy.metadata.deletion_timestamp.is_none() {
            let wanted = self.status(policy);
            status::report(&self.context.client, policy, &wanted).await?;
        }
        Ok(Next::Change)
    }
}
