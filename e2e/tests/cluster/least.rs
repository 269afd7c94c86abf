//! ClusterSecurityPolicy, network: the least isolation of many namespaces; and what a namespace accepts of another.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::api::{ClusterNetworkStatus, ClusterSecurityPolicy, SecurityPolicy};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("least::namespaces_are_isolated_by_their_labels", namespaces_are_isolated);
    tests.add("least::how_many_namespaces_are_covered_is_told", how_many_are_covered);
    tests.add("least::one_namespace_that_would_break_keeps_no_other", one_that_would_break_keeps_no_other);
    tests.add("least::everybody_is_not_rendered_where_the_cluster_isolates", everybody_is_not_rendered);
    tests.add("least::a_clamp_that_would_break_is_not_done", a_clamp_that_would_break);
    tests.add("least::what_a_namespace_accepts_is_opened_and_closed", what_is_accepted);
}

/// A policy for the namespaces with a label of the given value.
fn policy(name: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": name},
        "spec": {
            "namespaceSelector": {"matchLabels": {"least": name}},
            "network": {
                "mode": mode, "podSelector": {}, "isolate": ["Ingress", "Egress"],
                "ingress": [{"name": "own", "anyPort": true, "peers": [{"entity": "SameNamespace"}]}],
                "egress": [{"name": "own", "anyPort": true, "peers": [{"entity": "SameNamespace"}]},
                           {"name": "dns", "peers": [{"entity": "DNS"}]}],
            },
        },
    })
}

/// Two fresh namespaces that a policy of this name covers.
async fn covered(env: &Env, name: &str) -> Result<(Client, [String; 2])> {
    let ((client, one), (_, other)) = (env.namespace().await?, env.namespace().await?);
    for namespace in [&one, &other] {
        fixtures::namespace(&client, namespace, json!({"least": name})).await?;
    }
    Ok((client, [one, other]))
}

async fn how_many_are_covered(env: Env) -> Result<()> {
    let (client, [one, _]) = covered(&env, "counted").await?;
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    let mut wide = policy("counted", "Preview");
    wide["spec"] = json!({"namespaceSelector": {"matchLabels": {"least": "misspelt"}},
        "hardening": {"mode": "Audit", "podSecurity": {"level": "baseline"}}});
    fixtures::apply(&client, &wide).await?;
    let told = async |namespaces: i64, reason: &str| {
        wait::until(&format!("{namespaces} namespaces"), wait::SOON, || async {
            let live = serde_json::to_value(policies.get("counted").await?)?;
            let ready = stories::condition(&live, "Ready").unwrap_or_default();
            ensure!(live["status"]["namespaces"] == namespaces && ready["reason"] == reason, "{live:#}");
            Ok(())
        })
        .await
    };
    told(0, "NoNamespace").await?;
    fixtures::namespace(&client, &one, json!({"least": "misspelt"})).await?;
    told(1, "Ready").await?;
    policies.delete("counted", &DeleteParams::default()).await?;
    Ok(())
}

/// The network status once it is about the spec, and a condition has this status and reason.
async fn told(client: &Client, name: &str, status: &str, reason: &str) -> Result<ClusterNetworkStatus> {
    let api: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    wait::until(&format!("Programmed={status}, {reason}"), wait::SOON, || async {
        let policy = api.get(name).await?;
        let live = serde_json::to_value(&policy)?;
        let found = stories::condition(&live, "Programmed").unwrap_or_default();
        ensure!(found["observedGeneration"].as_i64() == policy.metadata.generation, "{found}");
        ensure!(found["status"] == status && found["reason"] == reason, "{found}");
        policy.status.and_then(|status| status.network).context("no network status")
    })
    .await
}

async fn made(client: &Client, namespace: &str) -> Result<Vec<NetworkPolicy>> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels("rampart.dev/owner-kind=ClusterSecurityPolicy");
    Ok(api.list(&ours).await?.items)
}

async fn there_are(client: &Client, namespace: &str, wanted: usize) -> Result<()> {
    wait::until(&format!("{wanted} NetworkPolicies in {namespace}"), wait::SOON, || async {
        let found = made(client, namespace).await?;
        Ok(ensure!(found.len() == wanted, "{} are there", found.len()))
    })
    .await
}

async fn namespaces_are_isolated(env: Env) -> Result<()> {
    let name = "least-by-label";
    let (client, [one, other]) = covered(&env, name).await?;
    let (_, outside) = env.namespace().await?;
    fixtures::apply(&client, &policy(name, "Preview")).await?;
    // What it hears of namespaces may lag behind what it hears of policies.
    wait::until("a preview of both", wait::SOON, || async {
        let preview = told(&client, name, "False", "Preview").await?;
        Ok(ensure!(preview.namespaces == 2 && preview.programmed == 0 && preview.preview.is_some(), "{preview:?}"))
    })
    .await?;
    ensure!(made(&client, &one).await?.is_empty(), "a preview wrote something");

    fixtures::apply(&client, &policy(name, "Enforce")).await?;
    wait::until("both to be programmed", wait::SOON, || async {
        let programmed = told(&client, name, "True", "Programmed").await?;
        Ok(ensure!((programmed.namespaces, programmed.programmed) == (2, 2), "{programmed:?}"))
    })
    .await?;
    for namespace in [&one, &other] {
        there_are(&client, namespace, 1).await?;
    }
    ensure!(made(&client, &outside).await?.is_empty(), "a namespace that is not selected was isolated");

    // Whoever changes or deletes one: it is put back.
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &one);
    let rendered = made(&client, &one).await?.pop().context("none")?;
    let open = Patch::Merge(json!({"spec": {"ingress": [{}]}}));
    api.patch(&rendered.name_any(), &PatchParams::default(), &open).await?;
    wait::until("the edit to be undone", wait::SOON, || async {
        let live = made(&client, &one).await?.pop().context("none")?;
        Ok(ensure!(live.spec == rendered.spec, "{:?}", live.spec))
    })
    .await?;
    api.delete(&rendered.name_any(), &DeleteParams::default()).await?;
    there_are(&client, &one, 1).await?;

    // By labels: one comes, one goes.
    fixtures::namespace(&client, &outside, json!({"least": name})).await?;
    there_are(&client, &outside, 1).await?;
    fixtures::namespace(&client, &one, json!({"least": "no"})).await?;
    there_are(&client, &one, 0).await?;
    wait::until("status to count both", wait::SOON, || async {
        let now = told(&client, name, "True", "Programmed").await?;
        Ok(ensure!((now.namespaces, now.programmed) == (2, 2), "{now:?}"))
    })
    .await?;

    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    policies.delete(name, &DeleteParams::default()).await?;
    for namespace in [&other, &outside] {
        there_are(&client, namespace, 0).await?;
    }
    Ok(())
}

/// A pod that is called from outside; the id of the finding when it can't be any more.
async fn called_from_outside(client: &Client, namespace: &str) -> Result<String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1"}]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "outer", "namespace": namespace},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    fixtures::apply(client, &pod).await?;
    fixtures::apply(client, &service).await?;
    Ok(format!("ServiceBlocked/{namespace}/outer"))
}

async fn one_that_would_break_keeps_no_other(env: Env) -> Result<()> {
    let name = "least-break";
    let (client, [fine, breaking]) = covered(&env, name).await?;
    let id = called_from_outside(&client, &breaking).await?;
    fixtures::apply(&client, &policy(name, "Preview")).await?;
    wait::until("the preview to name the break", wait::SOON, || async {
        let preview = told(&client, name, "False", "Preview").await?;
        Ok(ensure!(preview.findings.iter().any(|it| it.id == id), "{preview:?}"))
    })
    .await?;
    fixtures::apply(&client, &policy(name, "Enforce")).await?;
    let refused = told(&client, name, "False", "EnforceRefused").await?;
    ensure!((refused.namespaces, refused.programmed) == (2, 1), "{refused:?}");
    ensure!(made(&client, &fine).await?.len() == 1 && made(&client, &breaking).await?.is_empty());

    // What was put into the one that is fine since then does not keep drift there from being undone.
    called_from_outside(&client, &fine).await?;
    wait::until("its pod to be known", wait::SOON, || async {
        let now = told(&client, name, "False", "EnforceRefused").await?;
        Ok(ensure!(now.selected_pods == Some(2), "{now:?}"))
    })
    .await?;
    let kept: Api<NetworkPolicy> = Api::namespaced(client.clone(), &fine);
    let rendered = made(&client, &fine).await?.pop().context("none")?;
    kept.delete(&rendered.name_any(), &DeleteParams::default()).await?;
    there_are(&client, &fine, 1).await?;

    let mut meant = policy(name, "Enforce");
    meant["spec"]["network"]["acknowledge"] = json!([id]);
    fixtures::apply(&client, &meant).await?;
    let programmed = told(&client, name, "True", "Programmed").await?;
    ensure!(programmed.programmed == 2, "{programmed:?}");
    // A reader sees how its pods stand.
    ensure!(
        programmed.selected_pods == Some(2) && programmed.isolated.is_some_and(|it| it.ingress == 2 && it.egress == 2)
    );
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    policies.delete(name, &DeleteParams::default()).await?;
    there_are(&client, &breaking, 0).await
}

/// A SecurityPolicy that lets these peers in.
fn open(namespace: &str, mode: &str, peers: &Value) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "open", "namespace": namespace},
        "spec": {"network": {
            "mode": mode, "podSelector": {}, "isolate": ["Ingress"],
            "ingress": [{"name": "all", "peers": peers, "ports": [{"port": 80}]}],
        }},
    })
}

async fn a_clamp_that_would_break(env: Env) -> Result<()> {
    let name = "least-clamp-break";
    let (client, [namespace, _]) = covered(&env, name).await?;
    let id = called_from_outside(&client, &namespace).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let programmed = |status: &'static str, reason: &'static str| {
        let (policies, id) = (policies.clone(), id.clone());
        async move {
            wait::until(&format!("Programmed={status}, {reason}"), wait::SOON, || async {
                let policy = policies.get("open").await?;
                let live = serde_json::to_value(&policy)?;
                let found = stories::condition(&live, "Programmed").unwrap_or_default();
                ensure!(found["observedGeneration"].as_i64() == policy.metadata.generation, "{found}");
                ensure!(found["status"] == status && found["reason"] == reason, "{found}");
                let named = live["status"]["network"]["findings"].to_string().contains(&id);
                Ok(ensure!(named || status == "True", "{live:#}"))
            })
            .await
        }
    };
    let peers = || async {
        let spec = serde_json::to_value(stories::rendered(&client, &namespace, "open").await?.spec)?;
        anyhow::Ok(spec["ingress"][0]["from"].clone())
    };
    // When a preview names the break, the Service is known.
    fixtures::apply(&client, &open(&namespace, "Preview", &json!([{"entity": "SameNamespace"}]))).await?;
    programmed("False", "Preview").await?;
    let all = json!([{"any": true}, {"entity": "SameNamespace"}]);
    fixtures::apply(&client, &open(&namespace, "Enforce", &all)).await?;
    programmed("True", "Programmed").await?;
    fixtures::apply(&client, &policy(name, "Enforce")).await?;
    programmed("False", "EnforceRefused").await?;
    ensure!(peers().await?.is_null(), "what breaks was written");
    let mut meant = open(&namespace, "Enforce", &all);
    meant["spec"]["network"]["acknowledge"] = json!([id]);
    fixtures::apply(&client, &meant).await?;
    programmed("True", "PartiallyProgrammed").await?;
    ensure!(peers().await? == json!([{"podSelector": {}}]), "{}", peers().await?);
    let wide: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    wide.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn everybody_is_not_rendered(env: Env) -> Result<()> {
    let name = "least-clamp";
    let (client, [namespace, _]) = covered(&env, name).await?;
    let own = open(&namespace, "Enforce", &json!([{"any": true}, {"entity": "SameNamespace"}]));
    fixtures::apply(&client, &own).await?;
    let peers = || async {
        let spec = serde_json::to_value(stories::rendered(&client, &namespace, "open").await?.spec)?;
        anyhow::Ok(spec["ingress"][0]["from"].clone())
    };
    wait::until("the open rule", wait::SOON, || async { Ok(ensure!(peers().await?.is_null())) }).await?;
    fixtures::apply(&client, &policy(name, "Enforce")).await?;
    wait::until("everybody to go", wait::SOON, || async {
        Ok(ensure!(peers().await? == json!([{"podSelector": {}}]), "{}", peers().await?))
    })
    .await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let id = format!("Clamped/{namespace}/all");
    wait::until("the finding", wait::SOON, || async {
        let status = policies.get("open").await?.status.and_then(|status| status.network).unwrap_or_default();
        Ok(ensure!(status.findings.iter().any(|it| it.id == id), "{status:?}"))
    })
    .await?;
    let wide: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    wide.delete(name, &DeleteParams::default()).await?;
    wait::until("everybody to be back", wait::SOON, || async { Ok(ensure!(peers().await?.is_null())) }).await
}

async fn what_is_accepted(env: Env) -> Result<()> {
    let ((client, shop), (_, data)) = (env.namespace().await?, env.namespace().await?);
    let web = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": {"name": "web", "namespace": shop},
        "spec": {"network": {
            "mode": "Enforce", "podSelector": {"matchLabels": {"app": "web"}}, "isolate": ["Egress"],
            "allowNoDns": true, "reciprocal": "Generate",
            "egress": [{"name": "db", "ports": [{"port": 5432}],
                        "peers": [{"pods": {"selector": {"matchLabels": {"app": "db"}}, "namespaces": [data]}}]}],
        }},
    });
    let deny = |accepts: Value| {
        json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": "deny", "namespace": data},
            "spec": {"network": {"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"], "acceptFrom": accepts}},
        })
    };
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &data);
    let halves = || async {
        let half = ListParams::default().labels("rampart.dev/part=reciprocal");
        anyhow::Ok(serde_json::to_value(api.list(&half).await?.items)?)
    };
    let count = |wanted: usize| {
        wait::until("as many halves", wait::SOON, move || async move {
            let found = halves().await?.as_array().map_or(0, Vec::len);
            Ok(ensure!(found == wanted, "{found} halves, not {wanted}"))
        })
    };
    fixtures::apply(&client, &deny(json!([]))).await?;
    fixtures::apply(&client, &web).await?;
    stories::ready::<SecurityPolicy>(&client, &shop, "web").await?;
    stories::ready::<SecurityPolicy>(&client, &data, "deny").await?;
    ensure!(halves().await? == json!([]), "nobody gave consent");

    fixtures::apply(&client, &deny(json!([{"namespace": shop, "policy": "web"}]))).await?;
    count(1).await?;
    let half = halves().await?;
    let from = &half[0]["spec"]["ingress"][0];
    ensure!(
        from["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == json!(shop),
        "{half:#}"
    );
    ensure!(from["ports"][0]["port"] == 5432, "{half:#}");
    // It follows the other policy, and goes with it.
    let mut other = web.clone();
    other["spec"]["network"]["egress"][0]["ports"][0]["port"] = json!(6432);
    fixtures::apply(&client, &other).await?;
    wait::until("the other port", wait::SOON, || async {
        let half = halves().await?;
        Ok(ensure!(half[0]["spec"]["ingress"][0]["ports"][0]["port"] == 6432, "{half:#}"))
    })
    .await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &shop);
    policies.delete("web", &DeleteParams::default()).await?;
    count(0).await
}
