//! ClusterSecurityPolicy: says what is true of it. Webhook and floor do what it asks.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{
    Context, Next, Reconciler, Triggers,
    floor::{self, InForce},
    requested,
};
use crate::{
    api::{
        ClusterSecurityPolicy, ClusterSecurityPolicyStatus, HardeningStatus,
        condition::{Conditions, Type},
    },
    cluster::{Result, leader::Leadership, status},
    hardening::ClusterWide,
    runtime::{clock, tasks::Tasks},
};

/// The controller of ClusterSecurityPolicies.
pub struct ClusterSecurityPolicies {
    context: Context,
    in_force: watch::Receiver<InForce>,
}

impl ClusterSecurityPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(context: &Context, in_force: watch::Receiver<InForce>, mut leadership: Leadership, tasks: &mut Tasks) {
        let (root, _) = super::root::<ClusterSecurityPolicy>();
        let (all_tx, all) = watch::channel(0);
        let (context, mut changes) = (context.clone(), in_force.clone());
        let stopped = context.stopped.clone();
        let controller = Arc::new(Self { context: context.clone(), in_force });
        tasks.spawn(Self::NAME, async move {
            tokio::select! {
                () = async { leadership.acquired().await; floor::known(&changes).await } => {}
                () = stopped.cancelled() => return Ok(()),
            }
            let (_one, one) = mpsc::unbounded_channel();
            // There are few of them: each change of what is in force is told to all.
            let waking = async {
                while changes.changed().await.is_ok() {
                    all_tx.send_modify(|count| *count += 1);
                }
                stopped.cancelled().await;
                Ok(())
            };
            tokio::try_join!(super::run(controller, context, root, Triggers { one, all }), waking)?;
            Ok(())
        });
    }

    fn status(policy: &ClusterSecurityPolicy, in_force: &InForce) -> ClusterSecurityPolicyStatus {
        let mut conditions = Conditions::of_generation(policy.metadata.generation);
        let mut hardening = None;
        match ClusterWide::try_from(policy) {
            Ok(asked) => {
                conditions.set(Type::Accepted, true, "Accepted", "");
                conditions.set(Type::Programmed, true, "Programmed", "");
                conditions.set(Type::Ready, true, "Ready", "");
                let name = policy.metadata.name.as_deref().unwrap_or_default();
                let floor = in_force.clusters.get(name) == Some(&asked.requirement.standard());
                let enforcers = in_force.enforcers(&asked.requirement, floor);
                if let Some(enforcers) = enforcers {
                    enforcers.tell(&mut conditions);
                    hardening = Some(HardeningStatus { enforced_by: enforcers.by });
                }
            }
            Err(invalid) => {
                let why = invalid.to_string();
                conditions.set(Type::Accepted, false, "Invalid", why.as_str());
                conditions.set(Type::Programmed, false, "Invalid", why.as_str());
                conditions.set(Type::Ready, false, "Invalid", why.as_str());
                conditions.set(Type::Stalled, true, "Invalid", why);
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
}

impl Reconciler for ClusterSecurityPolicies {
    type Root = ClusterSecurityPolicy;
    const NAME: &'static str = "clustersecuritypolicy";

    async fn reconcile(&self, policy: &ClusterSecurityPolicy) -> Result<Next> {
        if policy.metadata.deletion_timestamp.is_none() {
            let wanted = Self::status(policy, &self.in_force.borrow());
            status::report(&self.context.client, policy, &wanted).await?;
        }
        Ok(Next::Change)
    }
}
