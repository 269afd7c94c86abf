//! Each kind in each state.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use super::{Stage, apply, judges::Verdict, name};

/// Where what is stalled lives: it has no label that lets retention in, nor is it among those of the exceptions.
const ASTRAY: &str = "astray";

impl Stage {
    /// What the judges say of each object: Argo CD, kstatus (which Flux' fork of it agrees with), Flux by expression.
    fn say(&self, objects: &[Value], [argocd, kstatus, expressions]: [&str; 3]) -> Result<()> {
        let wanted = Verdict {
            argocd: argocd.into(),
            kstatus: kstatus.into(),
            flux: kstatus.into(),
            expressions: expressions.into(),
        };
        for (object, told) in objects.iter().zip(self.judges.health(objects)?) {
            ensure!(told == wanted, "{}: wanted {wanted:?}, is {told:?}: {object}", object["kind"]);
        }
        Ok(())
    }

    /// Live objects, when something is true of each.
    async fn when(&self, objects: &[Value], what: &str, is_true: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let mut all = vec![];
        for object in objects {
            let live = wait::until(what, wait::SOON, || async {
                let live = self.live(object).await?;
                ensure!(is_true(&live), "{}: {}", live["kind"], live["status"]);
                Ok(live)
            });
            all.push(live.await?);
        }
        Ok(all)
    }

    fn every_own(&self) -> Vec<Value> {
        self.own().cloned().collect()
    }

    /// kstatus takes what has no conditions for done, so that a default is there until the first visit.
    pub(super) async fn never_visited(&self) -> Result<()> {
        let live = self.when(&self.every_own(), "what was made", |_| true).await?;
        self.say(&live, ["Progressing", "InProgress", "InProgress"])
    }

    pub(super) async fn healthy(&self) -> Result<()> {
        let is_well = |live: &Value| was_seen(live) && has(live, "Ready", "True") && !has(live, "Reconciling", "True");
        let live = self.when(&self.every_own(), "it to be well", is_well).await?;
        self.say(&live, ["Healthy", "Current", "Current"])
    }

    pub(super) async fn stalled(&self) -> Result<()> {
        fixtures::namespace(&self.client, ASTRAY, json!({})).await?;
        let conflicted = [self.sample("SecurityPolicy")?, self.sample("ClusterSecurityPolicy")?].map(astray);
        for policy in &conflicted {
            self.conflict(policy).await?;
        }
        let with = |kind: &str, path: &str, value: Value| -> Result<Value> {
            let mut object = astray(self.sample(kind)?);
            *object.pointer_mut(path).with_context(|| format!("{kind} has no {path}"))? = value;
            Ok(object)
        };
        let typo = || json!([{"resource": "configmap"}]);
        let mut revoked = astray(self.sample("ApiKey")?);
        revoked["spec"]["revocation"] = json!({"reason": "Leaked"});
        let others = [
            revoked,
            with("LegalHold", "/spec/resources", typo())?,
            with("ClusterLegalHold", "/spec/resources", typo())?,
            astray(self.sample("PolicyException")?),
            astray(self.sample("RetentionPolicy")?),
        ];
        for object in &others {
            apply(&self.client, object).await?;
        }
        let objects = [&conflicted[..], &others[..]].concat();
        let kinds: BTreeSet<&str> = self.own().filter_map(|object| object["kind"].as_str()).collect();
        ensure!(objects.len() == kinds.len(), "a kind is missing: {kinds:?}");
        let live = self.when(&objects, "it to stall", |live| was_seen(live) && has(live, "Stalled", "True")).await?;
        self.say(&live, ["Degraded", "Failed", "Failed"])
    }

    /// A policy that wants a name which somebody else has.
    async fn conflict(&self, policy: &Value) -> Result<()> {
        let mut policy = policy.clone();
        policy["spec"]["network"]["mode"] = "Enforce".into();
        policy["spec"]["suspend"] = true.into();
        apply(&self.client, &policy).await?;
        let live = self.live(&policy).await?;
        let uid: String = live["metadata"]["uid"].as_str().unwrap_or_default().chars().take(8).collect();
        let foreign: NetworkPolicy = serde_json::from_value(json!({
            "metadata": {"name": format!("rampart-{}-{uid}", name(&policy)?)}, "spec": {"podSelector": {}},
        }))?;
        Api::namespaced(self.client.clone(), ASTRAY).create(&PostParams::default(), &foreign).await?;
        self.patch(&policy, &json!({"spec": {"suspend": null}})).await
    }

    /// What was well stays so, and waits.
    pub(super) async fn suspended(&self) -> Result<()> {
        let kinds = ["SecurityPolicy", "ClusterSecurityPolicy", "ApiKey", "RetentionPolicy"];
        let objects = kinds.into_iter().map(|kind| self.sample(kind)).collect::<Result<Vec<_>>>()?;
        for object in &objects {
            self.patch(object, &json!({"spec": {"suspend": true}})).await?;
        }
        let live = self.when(&objects, "it to be seen", was_seen).await?;
        self.say(&live, ["Suspended", "Current", "Current"])?;
        // A key that verifiers refuse for now: that is what its owner asked for, and kstatus can't say so.
        let mut refused = self.sample("ApiKey")?;
        refused["metadata"]["name"] = "refused".into();
        refused["spec"]["secret"]["name"] = "refused-key".into();
        refused["spec"]["suspended"] = true.into();
        apply(&self.client, &refused).await?;
        let is_refused = |live: &Value| {
            was_seen(live)
                && !has(live, "Reconciling", "True")
                && stories::condition(live, "Ready").is_some_and(|it| it["reason"] == "Suspended")
        };
        let live = self.when(&[refused], "the key to be suspended", is_refused).await?;
        self.say(&live, ["Suspended", "InProgress", "Current"])
    }

    /// No controller runs.
    pub(super) async fn generation_ahead(&self) -> Result<()> {
        for object in self.own() {
            let change = match object["kind"].as_str().unwrap_or_default() {
                "PolicyException" => json!({"reason": "another"}),
                "LegalHold" | "ClusterLegalHold" => json!({"caseRef": "another"}),
                _ => json!({"suspend": false}),
            };
            self.patch(object, &json!({"spec": change})).await?;
        }
        let live = self.when(&self.every_own(), "it to be ahead", |live| !was_seen(live)).await?;
        self.say(&live, ["Progressing", "InProgress", "InProgress"])
    }

    /// Something of somebody else holds it.
    pub(super) async fn deleting(&self) -> Result<()> {
        let mut live = vec![];
        for object in self.own() {
            self.patch(object, &json!({"metadata": {"finalizers": ["example.com/held"]}})).await?;
            let api = fixtures::api_of(&self.client, object).await?;
            api.delete(name(object)?, &DeleteParams::default()).await?;
            live.push(self.live(object).await?);
            self.patch(object, &json!({"metadata": {"finalizers": null}})).await?;
        }
        // Whoever deletes does not wait for health: Flux asks no expression then.
        for (object, told) in live.iter().zip(self.judges.health(&live)?) {
            let is_going = told.argocd == "Progressing" && told.kstatus == "Terminating" && told.flux == "Terminating";
            ensure!(is_going, "{}: {told:?}", object["kind"]);
        }
        Ok(())
    }

    fn sample(&self, kind: &str) -> Result<Value> {
        self.own().find(|object| object["kind"] == kind).cloned().with_context(|| format!("no sample of {kind}"))
    }
}

/// The same, elsewhere.
fn astray(mut object: Value) -> Value {
    object["metadata"]["name"] = "astray".into();
    if object["metadata"].get("namespace").is_some() {
        object["metadata"]["namespace"] = ASTRAY.into();
    }
    if let Some(selector) = object.pointer_mut("/spec/namespaceSelector") {
        *selector = json!({"matchLabels": {"kubernetes.io/metadata.name": ASTRAY}});
    }
    object
}

/// Its status is about this very spec.
fn was_seen(live: &Value) -> bool {
    live.pointer("/status/observedGeneration") == live.pointer("/metadata/generation")
}

fn has(live: &Value, kind: &str, status: &str) -> bool {
    stories::condition(live, kind).is_some_and(|it| it["status"] == status)
}
