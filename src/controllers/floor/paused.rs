//! The pause, as the floor finds it.

use kube::ResourceExt as _;

use super::Floors;
use crate::{
    cluster::{
        Result,
        events::Reason,
        pause::{self, Pause},
    },
    runtime::clock,
};

const RESUMED: Reason = Reason::normal("EnforcementResumed");
const IGNORED: Reason = Reason::warning("PauseIgnored");

impl Floors {
    /// The pause that holds; one that is over is cleared away.
    pub(super) async fn paused(&self) -> Result<Option<Pause>> {
        let Some(object) = pause::object(&self.context.client, &self.install_namespace).await? else {
            return Ok(None);
        };
        let Some(pause) = Pause::read(&object) else {
            let version = object.resource_version();
            let told = std::mem::replace(&mut *self.ignored.lock(), version.clone());
            if told != version {
                self.context.events.publish(&object, IGNORED, pause::IGNORED).await;
            }
            return Ok(None);
        };
        if pause::holds(Some(&pause), clock::now()) {
            return Ok(Some(pause));
        }
        if let Err(error) = pause::remove(&self.context.client, &self.install_namespace, Some(&object)).await {
            // It is over all the same.
            tracing::warn!(%error, "the ConfigMap of a pause that is over could not be removed");
            return Ok(None);
        }
        tracing::info!(until = %pause.until, reason = pause.reason, "the pause is over: hardening is enforced again");
        self.context.events.publish(&object, RESUMED, "the pause is over: hardening is enforced again").await;
        Ok(None)
    }
}
