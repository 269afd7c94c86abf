//! What was applied is what is there.

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use rampart_e2e::{Operator, fixtures, wait};
use serde_json::{Value, json};

use super::{MANAGER, Stage, charted, name};

impl Stage {
    /// Of both forms of installation, and of each sample.
    pub(super) async fn nothing_differs(&self) -> Result<()> {
        let charted = charted(&self.webhook.webhook_url())?;
        let mut asked = vec![];
        for (what, objects) in [("install.yaml", &self.installed), ("the chart", &charted), ("a sample", &self.samples)]
        {
            for object in objects {
                let doing = || format!("{what}: {} {}", object["kind"], object["metadata"]["name"]);
                asked.push(self.applied_again(object).await.with_context(doing)?);
            }
        }
        for (asked, told) in asked.iter().zip(self.judges.differences(&asked)?) {
            let none = json!({"clientSide": null, "serverSide": null});
            ensure!(told == none, "{}: Argo CD: {told}", asked["config"]["kind"]);
        }
        Ok(())
    }

    /// Nor does what a controller does when it starts among what it made before.
    pub(super) async fn nothing_differs_after_a_restart(&self, controller: Operator) -> Result<()> {
        let ports = controller.kill()?;
        let controller = self.start("controller", ports).await?;
        self.nothing_differs().await?;
        controller.stop().await.map(drop)
    }

    /// What is there, and what would be if it were applied again: the same.
    async fn applied_again(&self, applied: &Value) -> Result<Value> {
        let api = fixtures::api_of(&self.client, applied).await?;
        let params = PatchParams { dry_run: true, ..PatchParams::apply(MANAGER) };
        // Between the two calls a status may change.
        wait::until("a dry run to change nothing", wait::SOON, || async {
            let live = serde_json::to_value(api.get(name(applied)?).await?)?;
            let predicted = serde_json::to_value(api.patch(name(applied)?, &params, &Patch::Apply(applied)).await?)?;
            let (one, other) = (without_bookkeeping(&live), without_bookkeeping(&predicted));
            ensure!(one == other, "is {one}\nwould be {other}");
            Ok(json!({"config": applied, "live": live, "predicted": predicted}))
        })
        .await
    }
}

fn without_bookkeeping(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["managedFields", "resourceVersion"] {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove(field);
        }
    }
    object
}
