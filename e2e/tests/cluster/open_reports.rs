//! Reports of OpenReports, by the CRDs that its authors publish: one for each workload that violates, written when
//! something else is wrong and at no other time, and gone with its reason.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{
    ControlPlane, Operator, Options, binaries, fixtures,
    metrics::value_of,
    operator::{USER, binary, kubeconfig},
    stories, wait,
};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("open_reports::tell_what_is_wrong_and_are_written_when_that_changes", follow_what_is_wrong);
}

const SHOP: &str = stories::SHOP;
const LATER: &str = "later";
/// Something is written every ten seconds at the most, and owners are collected as garbage in between.
const WRITTEN: Duration = Duration::from_mins(1);

struct Stage {
    plane: ControlPlane,
    client: Client,
    operator: Operator,
}

/// All Reports of a namespace.
async fn api(client: &Client, namespace: &str) -> Result<Api<DynamicObject>> {
    let kind = json!({"apiVersion": "openreports.io/v1alpha1", "kind": "Report", "metadata": {"namespace": namespace}});
    fixtures::api_of(client, &kind).await
}

/// Ours, by kind and name of what they are of.
async fn reports(client: &Client, namespace: &str) -> Result<BTreeMap<String, Value>> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=rampart");
    let found = api(client, namespace).await?.list(&ours).await?.items;
    let named = |report: DynamicObject| {
        let report = serde_json::to_value(report)?;
        let word = |field: &str| report["scope"][field].as_str().unwrap_or_default().to_owned();
        anyhow::Ok((format!("{} {}", word("kind"), word("name")), report))
    };
    found.into_iter().map(named).collect()
}

async fn are_of(client: &Client, namespace: &str, wanted: &[&str]) -> Result<BTreeMap<String, Value>> {
    wait::until(&format!("Reports of {wanted:?}"), WRITTEN, || async {
        let found = reports(client, namespace).await?;
        ensure!(found.keys().map(String::as_str).eq(wanted.iter().copied()), "{:?}", found.keys());
        Ok(found)
    })
    .await
}

fn versions(reports: &BTreeMap<String, Value>) -> Vec<&Value> {
    reports.values().map(|report| &report["metadata"]["resourceVersion"]).collect()
}

fn content(report: &Value) -> Value {
    let mut content = report.clone();
    content.as_object_mut().map(|it| it.remove("metadata"));
    content
}

/// With a secret in its environment, which is no business of any report.
fn deployment(name: &str, replicas: u32, pod: &Pod) -> Result<Value> {
    let mut spec = serde_json::to_value(&pod.spec)?;
    spec["containers"][0]["env"] = json!([{"name": "PASSWORD", "value": "hunter2"}]);
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": spec});
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": SHOP},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }))
}

/// On no node: it does not end by itself.
async fn pod(client: &Client, namespace: &str, name: &str, pod: Pod) -> Result<String> {
    let mut spec = serde_json::to_value(pod.spec)?;
    spec["schedulerName"] = json!("none");
    let metadata = json!({"name": name, "namespace": namespace});
    let made = fixtures::apply(client, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
        .await?;
    made.uid().context("no UID")
}

async fn selected(client: &Client, pods: u32) -> Result<()> {
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), SHOP);
    wait::until(&format!("{pods} pods to be counted"), wait::SOON, || async {
        let status = policies.get("hardened").await?.status.and_then(|it| it.hardening).context("no status")?;
        Ok(ensure!(status.pods.is_some_and(|counted| counted.selected == pods), "{:?}", status.pods))
    })
    .await
}

impl Stage {
    async fn counted(&self, result: &str, wanted: i64) -> Result<()> {
        let series = format!("rampart_open_reports{{result=\"{result}\"}}");
        wait::until(&format!("{wanted} Reports {result}"), WRITTEN, || async {
            let (_, text) = self.operator.admin("/metrics").await?;
            let found = value_of(&text, &series);
            Ok(ensure!(found == Some(wanted), "{found:?}"))
        })
        .await
    }

    /// How often Rampart has done this to Reports.
    fn times(&self, verb: &str) -> Result<usize> {
        let all = self.plane.audit().writes_of(USER)?;
        Ok(all.iter().filter(|it| it.object_ref.resource == "reports" && it.verb == verb).count())
    }
}

async fn follow_what_is_wrong(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let operator = Operator::install(&plane, &["--reports=openreports"]).await?;
    let stage = Stage { client: plane.client(), plane, operator };
    let client = &stage.client;
    for namespace in [SHOP, LATER] {
        fixtures::namespace(client, namespace, json!({})).await?;
        fixtures::ready_for_pods(client, namespace).await?;
    }
    fixtures::apply(client, &deployment("web", 2, &stories::root_pod()?)?).await?;
    fixtures::apply(client, &deployment("old", 1, &stories::root_pod()?)?).await?;
    pod(client, SHOP, "alone", stories::root_pod()?).await?;
    pod(client, SHOP, "good", stories::good_pod()?).await?;
    fixtures::apply(client, &stories::hardening_policy(SHOP, "Audit")).await?;

    without_crds(&stage).await?;
    let told = are_of(client, SHOP, &["Deployment old", "Deployment web", "Pod alone"]).await?;
    says_what_is_wrong(client, &told).await?;
    is_written_on_change_alone(&stage, &told).await?;
    is_put_back(&stage, &told).await?;
    overwrites_nobody(&stage).await?;
    goes_with_its_reason(&stage).await?;
    goes_with_the_switch(stage).await
}

async fn without_crds(stage: &Stage) -> Result<()> {
    selected(&stage.client, 5).await?;
    stage.counted("pending", 3).await?;
    let said = |words: &str| anyhow::Ok(stage.operator.log()?.matches(words).count());
    ensure!(said("install the CRDs of openreports.io")? == 1, "{}", stage.operator.log_tail());
    let crds = tokio::task::spawn_blocking(binaries::open_reports_crds).await??;
    for crd in fixtures::parse(&crds)? {
        fixtures::apply(&stage.client, &crd).await?;
    }
    stage.counted("kept", 3).await?;
    stage.counted("pending", 0).await
}

async fn says_what_is_wrong(client: &Client, told: &BTreeMap<String, Value>) -> Result<()> {
    let web = Api::<Deployment>::namespaced(client.clone(), SHOP).get("web").await?;
    let (report, uid) = (&told["Deployment web"], web.uid().context("no UID")?);
    ensure!(report["metadata"]["name"] == format!("rampart-{uid}"), "{report:#}");
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid}]);
    ensure!(report["metadata"]["ownerReferences"] == owner, "{report:#}");
    ensure!(report["metadata"]["labels"]["rampart.dev/owner-uid"] == json!(uid), "{report:#}");
    let scope = json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": SHOP, "name": "web", "uid": uid});
    ensure!(report["source"] == "rampart" && report["scope"] == scope, "{report:#}");
    let results = report["results"].as_array().context("no results")?;
    ensure!(report["summary"]["fail"].as_u64() == u64::try_from(results.len()).ok(), "{report:#}");
    let rules: Vec<&str> = results.iter().filter_map(|it| it["rule"].as_str()).collect();
    ensure!(rules.contains(&"pss/runAsNonRoot") && rules.len() == results.len(), "{rules:?}");
    ensure!(results.iter().all(|it| it["policy"] == "SecurityPolicy/hardened" && it["result"] == "fail"), "{report:#}");
    let text = serde_json::to_string(told)?;
    ensure!(!text.contains("hunter2") && !text.contains("PASSWORD"), "the environment of a container is told");
    Ok(())
}

async fn is_written_on_change_alone(stage: &Stage, told: &BTreeMap<String, Value>) -> Result<()> {
    let client = &stage.client;
    fixtures::apply(client, &deployment("web", 4, &stories::root_pod()?)?).await?;
    selected(client, 7).await?;
    stage.counted("pending", 0).await?;
    let now = reports(client, SHOP).await?;
    ensure!(versions(&now) == versions(told), "written although the same is wrong");
    ensure!((stage.times("create")?, stage.times("update")?) == (3, 0), "{:?}", stage.plane.audit().counts_of(USER)?);
    Ok(())
}

async fn is_put_back(stage: &Stage, told: &BTreeMap<String, Value>) -> Result<()> {
    let (client, before) = (&stage.client, &told["Deployment web"]);
    let (api, name) = (api(client, SHOP).await?, before["metadata"]["name"].as_str().context("no name")?);
    let embellished = json!({"results": [], "scopeSelector": {"matchLabels": {"app": "other"}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(embellished)).await?;
    let is_back = || {
        wait::until("the Report to be as it was", WRITTEN, || async {
            let now = serde_json::to_value(api.get(name).await?)?;
            Ok(ensure!(content(&now) == content(before), "{now:#}"))
        })
    };
    is_back().await?;
    api.delete(name, &DeleteParams::default()).await?;
    is_back().await
}

async fn overwrites_nobody(stage: &Stage) -> Result<()> {
    let client = &stage.client;
    let uid = pod(client, LATER, "late", stories::root_pod()?).await?;
    let theirs = |name: &str| {
        let metadata = json!({"name": name, "namespace": LATER});
        json!({"apiVersion": "openreports.io/v1alpha1", "kind": "Report", "metadata": metadata, "source": "other"})
    };
    let taken = format!("rampart-{uid}");
    for name in [taken.as_str(), "theirs"] {
        fixtures::apply(client, &theirs(name)).await?;
    }
    fixtures::apply(client, &stories::hardening_policy(LATER, "Warn")).await?;
    stage.counted("pending", 1).await?;
    let refusal = format!("Report {taken} exists and was not made for this resource");
    wait::until("the refusal to be told", WRITTEN, || async {
        Ok(ensure!(stage.operator.log()?.contains(&refusal), "{}", stage.operator.log_tail()))
    })
    .await?;
    let api = api(client, LATER).await?;
    let live = api.get(&taken).await?;
    ensure!(live.data == json!({"source": "other"}), "a foreign Report was changed: {:#}", live.data);

    api.delete(&taken, &DeleteParams::default()).await?;
    are_of(client, LATER, &["Pod late"]).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), LATER);
    policies.delete("hardened", &DeleteParams::default()).await?;
    are_of(client, LATER, &[]).await.map(drop)
}

async fn goes_with_its_reason(stage: &Stage) -> Result<()> {
    let client = &stage.client;
    fixtures::apply(client, &deployment("web", 4, &stories::good_pod()?)?).await?;
    are_of(client, SHOP, &["Deployment old", "Pod alone"]).await?;
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    Api::<Pod>::namespaced(client.clone(), SHOP).delete("alone", &at_once).await?;
    are_of(client, SHOP, &["Deployment old"]).await?;

    // Three at first, one that somebody deleted, and that whose name was taken; one that somebody changed.
    ensure!((stage.times("create")?, stage.times("update")?) == (5, 1), "{:?}", stage.plane.audit().counts_of(USER)?);

    // Its pods run on, and so does what is wrong with them.
    Api::<Deployment>::namespaced(client.clone(), SHOP).delete("old", &DeleteParams::orphan()).await?;
    wait::until("a Report of the ReplicaSet", WRITTEN, || async {
        let found = reports(client, SHOP).await?;
        ensure!(found.len() == 1 && found.keys().all(|name| name.starts_with("ReplicaSet old-")), "{:?}", found.keys());
        Ok(())
    })
    .await
}

async fn goes_with_the_switch(stage: Stage) -> Result<()> {
    let Stage { plane, client, operator } = stage;
    let config = kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &config, operator.kill()?, &[])?;
    operator.ready().await?;
    are_of(&client, SHOP, &[]).await?;

    // Without the right, as the chart has it, somebody else must; at the latest who uninstalls.
    let roles: Api<ClusterRoleBinding> = Api::all(client.clone());
    roles.delete("rampart-controller-open-reports", &DeleteParams::default()).await?;
    let metadata = json!({"name": "left", "namespace": LATER, "labels": {"app.kubernetes.io/managed-by": "rampart"}});
    let left = json!({"apiVersion": "openreports.io/v1alpha1", "kind": "Report", "metadata": metadata,
                      "source": "rampart", "scope": {"kind": "Pod", "name": "left"}});
    fixtures::apply(&client, &left).await?;
    let operator = Operator::start(plane.dir(), &config, operator.kill()?, &[])?;
    let hint = "kubectl delete reports.openreports.io -A -l app.kubernetes.io/managed-by=rampart";
    wait::until("the hint", wait::SOON, || async {
        Ok(ensure!(operator.log()?.contains(hint), "{}", operator.log_tail()))
    })
    .await?;
    are_of(&client, LATER, &["Pod left"]).await?;
    operator.stop().await?;
    let kubeconfig = plane.admin_kubeconfig()?;
    let told = Command::new(binary()?).args(["uninstall", "--kubeconfig"]).arg(&kubeconfig).output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    ensure!(String::from_utf8_lossy(&told.stderr).contains("1 Reports removed"), "{told:?}");
    are_of(&client, LATER, &[]).await?;
    let theirs = api(&client, LATER).await?.get("theirs").await?;
    ensure!(theirs.data == json!({"source": "other"}), "{:#}", theirs.data);
    Ok(())
}
