//! The CRDs are deleted: nothing that they led to goes with them, until somebody confirms.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy, coordination::v1::Lease, core::v1::Secret,
        networking::v1::NetworkPolicy,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::{ApiKey, KeyRecord, SecurityPolicy};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, metrics::value_of, operator::kubeconfig, stories, wait};
use serde_json::json;

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("crds_deleted::nothing_goes_until_somebody_confirms", nothing_goes_until_confirmed);
}

const MADE: &str = "app.kubernetes.io/managed-by=rampart,rampart.dev/owner-kind";

/// The watch of a kind that was away comes back within half a minute.
const BACK: Duration = Duration::from_secs(90);

async fn held(operator: &Operator) -> Result<[i64; 3]> {
    let (_, text) = operator.admin("/metrics").await?;
    Ok(["SecurityPolicy", "ApiKey", "ValidatingAdmissionPolicy"]
        .map(|kind| value_of(&text, &format!("rampart_prune_held{{kind=\"{kind}\"}}")).unwrap_or_default()))
}

async fn nothing_goes_until_confirmed(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let operator = Operator::install(&plane, &[]).await?;
    let client = plane.client();
    for namespace in [stories::WEB, stories::SHOP] {
        fixtures::namespace(&client, namespace, json!({})).await?;
    }
    fixtures::apply(&client, &stories::sample_policy()).await?;
    fixtures::apply(&client, &stories::api_key(stories::SHOP)).await?;
    fixtures::apply(&client, &stories::hardening_policy(stories::SHOP, "Enforce")).await?;
    stories::ready::<SecurityPolicy>(&client, stories::SHOP, "hardened").await?;
    stories::ready::<SecurityPolicy>(&client, stories::WEB, "web").await?;
    stories::ready::<ApiKey>(&client, stories::SHOP, "orders").await?;

    let policies: Api<NetworkPolicy> = Api::all(client.clone());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), stories::SHOP);
    let made = ListParams::default().labels(MADE);
    let floors: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let floor = ListParams::default().labels("rampart.dev/part=floor");
    let count = || async {
        let of_policies = (policies.list(&made).await?.items.len(), floors.list(&floor).await?.items.len());
        anyhow::Ok((of_policies.0, secrets.list(&made).await?.items.len(), of_policies.1))
    };
    ensure!(count().await? == (1, 2, 1), "{:?}", count().await?);
    older_kinds_are_told(&client, &operator).await?;

    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for plural in ["securitypolicies", "apikeys"] {
        let name = format!("{plural}.rampart.dev");
        crds.delete(&name, &DeleteParams::default()).await?;
        wait::until("the CRD to go", wait::SOON, || async { Ok(ensure!(crds.get_opt(&name).await?.is_none())) })
            .await?;
    }
    // One NetworkPolicy; the record of the key, with which its two Secrets go.
    wait::until("the operator to hold them", wait::SOON, || async {
        let held = held(&operator).await?;
        ensure!(held == [1, 1, 1], "it holds {held:?}");
        Ok(())
    })
    .await?;
    ensure!(count().await? == (1, 2, 1), "something went with its CRD");

    // Neither does another process prune them, which knows nothing of what was before.
    let config = kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &config, operator.kill()?, &[])?;
    fixtures::install_crds(&client).await?;
    wait::until("the next process to hold them too", BACK, || async {
        let held = held(&operator).await?;
        ensure!(held == [1, 1, 1], "it holds {held:?}");
        Ok(())
    })
    .await?;
    ensure!(count().await? == (1, 2, 1), "something went after its CRD was back");

    let leases: Api<Lease> = Api::namespaced(client.clone(), "rampart-system");
    let confirm =
        |count: &str| Patch::Merge(json!({"metadata": {"annotations": {"rampart.dev/confirm-prune": count}}}));
    leases.patch("rampart", &PatchParams::default(), &confirm("SecurityPolicy=1")).await?;
    wait::until("what was confirmed to go", BACK, || async {
        let left = count().await?;
        ensure!(left == (0, 2, 1), "{left:?}: a confirmation of one is for the one NetworkPolicy");
        Ok(())
    })
    .await?;
    leases.patch("rampart", &PatchParams::default(), &confirm("ApiKey=1,ValidatingAdmissionPolicy=1")).await?;
    wait::until("the rest to go", BACK, || async {
        let left = count().await?;
        ensure!(left == (0, 0, 0), "{left:?}");
        Ok(())
    })
    .await?;
    wait::until("the confirmation to be withdrawn", wait::SOON, || async {
        let annotations = leases.get("rampart").await?.metadata.annotations.unwrap_or_default();
        ensure!(!annotations.contains_key("rampart.dev/confirm-prune"), "it is there");
        Ok(())
    })
    .await?;
    labels_alone_hold_no_end(&client, &operator).await?;
    edits_replace_and_deletions_wait(&client, &operator).await
}

/// As where the operator was upgraded before the CRDs: it says what they lack, for as long as that is so.
async fn older_kinds_are_told(client: &Client, operator: &Operator) -> Result<()> {
    let name = "retentionpolicies.rampart.dev";
    let lacks = |count: i64| {
        let series = format!("rampart_crd_missing_fields{{crd=\"{name}\"}}");
        async move {
            wait::until("what the CRD lacks to be told", wait::SOON, || async {
                let (_, text) = operator.admin("/metrics").await?;
                let told = value_of::<i64>(&text, &series).context("it is not served")?;
                Ok(ensure!(told == count, "{told}"))
            })
            .await
        }
    };
    lacks(0).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut older = serde_json::to_value(crds.get(name).await?)?;
    let fields = older.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties");
    let fields = fields.and_then(serde_json::Value::as_object_mut).context("no status")?;
    fields.remove("lastHandledReconcileAt").context("no such field")?;
    crds.replace(name, &PostParams::default(), &serde_json::from_value(older)?).await?;
    lacks(1).await?;
    wait::until("the log to name it", wait::SOON, || async {
        let log = operator.log()?;
        Ok(ensure!(log.contains("lacks fields") && log.contains("status.lastHandledReconcileAt"), "it does not"))
    })
    .await?;
    fixtures::install_crds(client).await?;
    lacks(0).await
}

/// Whoever may write Secrets may label them as the operator's, so that there are more orphans than the brake lets go. A
/// key whose ApiKey is deleted ends all the same.
async fn labels_alone_hold_no_end(client: &Client, operator: &Operator) -> Result<()> {
    const MANY: usize = 20;
    fixtures::apply(client, &stories::api_key(stories::SHOP)).await?;
    stories::ready::<ApiKey>(client, stories::SHOP, "orders").await?;
    for nth in 0..MANY {
        let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "ApiKey",
            "rampart.dev/owner-name": format!("ghost-{nth}")});
        let metadata = json!({"name": format!("ghost-{nth}"), "namespace": stories::SHOP, "labels": labels});
        fixtures::apply(client, &json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})).await?;
    }
    Api::<ApiKey>::namespaced(client.clone(), stories::SHOP).delete("orders", &DeleteParams::default()).await?;
    let (records, secrets) = (
        Api::<KeyRecord>::namespaced(client.clone(), "rampart-keys"),
        Api::<Secret>::namespaced(client.clone(), stories::SHOP),
    );
    wait::until("the key to end, and the other Secrets to be held", wait::SOON, || async {
        let left = records.list(&ListParams::default()).await?.items;
        ensure!(left.iter().all(|record| record.spec.state.is_tombstone()), "a key is valid");
        let left: Vec<String> =
            secrets.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
        ensure!(!left.iter().any(|name| name.starts_with("orders")), "its Secrets are left: {left:?}");
        // A pass from before may have met the first few, which are not too many.
        let ghosts = left.iter().filter(|name| name.starts_with("ghost-")).count();
        let (_, text) = operator.admin("/metrics").await?;
        let held = value_of::<usize>(&text, "rampart_prune_held{kind=\"Secret\"}");
        Ok(ensure!(ghosts >= MANY / 2 && held == Some(ghosts), "{ghosts} are there, held are {held:?}"))
    })
    .await
}

/// More at once than the prune brake lets go: edited ones are replaced, those that nobody asks for any more are held.
async fn edits_replace_and_deletions_wait(client: &Client, operator: &Operator) -> Result<()> {
    const MANY: usize = 7;
    let floors: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let floor = ListParams::default().labels("rampart.dev/part=floor");
    let namespaces: Vec<String> = (0..MANY).map(|nth| format!("many-{nth}")).collect();
    for namespace in &namespaces {
        fixtures::namespace(client, namespace, json!({})).await?;
    }
    for oldest in [10, 20] {
        let versions: Vec<String> = (oldest..).take(MANY).map(|minor| format!("v1.{minor}")).collect();
        for (namespace, version) in namespaces.iter().zip(&versions) {
            let mut policy = stories::hardening_policy(namespace, "Enforce");
            policy["spec"]["hardening"]["podSecurity"]["version"] = json!(version);
            fixtures::apply(client, &policy).await?;
        }
        wait::until("the admission policies that are asked for, and no other", BACK, || async {
            let names: Vec<String> = floors.list(&floor).await?.items.iter().map(ResourceExt::name_any).collect();
            let is_there = |version: &String| names.iter().any(|name| name.contains(&format!("-{version}-")));
            ensure!(names.len() == MANY && versions.iter().all(is_there), "{names:?}");
            Ok(())
        })
        .await?;
    }
    // At once: a pass that comes in between lets go what the brake does.
    let deletions = namespaces.iter().map(|namespace| async move {
        let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
        policies.delete("hardened", &DeleteParams::default()).await
    });
    try_join_all(deletions).await?;
    wait::until("what nobody asks for to be held", wait::SOON, || async {
        let [_, _, held] = held(operator).await?;
        ensure!(held == 7, "it holds {held}");
        Ok(())
    })
    .await?;
    ensure!(floors.list(&floor).await?.items.len() == MANY, "some are gone");
    // Whoever asks for less there is told that pods are refused still.
    let first = namespaces.first().context("a namespace")?;
    fixtures::apply(client, &stories::hardening_policy(first, "Warn")).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), first);
    wait::until("what is held to be told", wait::SOON, || async {
        let status = policies.get("hardened").await?.status.context("no status")?;
        let told = status.conditions.iter().find(|it| it.reason == "AdmissionPolicyStale").context("it is not")?;
        let confirm = format!("confirm-prune=ValidatingAdmissionPolicy={MANY}");
        Ok(ensure!(told.message.contains(&confirm), "{}", told.message))
    })
    .await
}
