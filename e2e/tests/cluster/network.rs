//! SecurityPolicy, network: rendered, kept, pruned.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::ResourceQuota, networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("network::whatever_a_second_manager_adds_is_undone", whatever_a_second_manager_adds_is_undone);
    tests.add("network::a_foreign_object_is_never_overwritten", a_foreign_object_is_never_overwritten);
    tests.add("network::what_a_quota_refuses_is_said", what_a_quota_refuses_is_said);
    tests.add("network::what_fails_again_and_again_is_said", what_fails_again_and_again_is_said);
    tests.add("network::what_is_no_longer_asked_for_goes", what_is_no_longer_asked_for_goes);
    tests.add("network::a_half_that_would_isolate_is_not_rendered", a_half_that_would_isolate_is_not_rendered);
    tests.add("network::a_half_follows_the_policies_beside_it", a_half_follows_the_policies_beside_it);
    tests.add("network::unknown_ranges_are_said", unknown_ranges_are_said);
    tests.add("network::names_and_services_follow_the_cluster", names_and_services_follow_the_cluster);
    tests.add("network::the_api_server_is_followed_where_it_goes", the_api_server_is_followed_where_it_goes);
    tests.add("network::a_namespace_that_is_deleted_goes_quietly", a_namespace_that_is_deleted_goes_quietly);
}

async fn sample(env: &Env) -> Result<(Client, String, Api<NetworkPolicy>)> {
    let (client, namespace) = env.namespace().await?;
    let mut policy = stories::sample_policy();
    policy["metadata"]["namespace"] = json!(namespace);
    fixtures::apply(&client, &policy).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    let api = Api::namespaced(client.clone(), &namespace);
    Ok((client, namespace, api))
}

async fn whatever_a_second_manager_adds_is_undone(env: Env) -> Result<()> {
    let (client, namespace, api) = sample(&env).await?;
    let wanted = stories::rendered(&client, &namespace, "web").await?;
    let name = wanted.name_any();
    let open = json!({"podSelector": {}, "namespaceSelector": {}});
    let edits = [
        json!({"podSelector": {"matchLabels": {"extra": "x"}}}),
        json!({"podSelector": {"matchExpressions": [{"key": "extra", "operator": "Exists"}]}}),
        json!({"policyTypes": ["Egress"]}),
        json!({"ingress": [{}]}),
        json!({"ingress": null}),
        json!({"ingress": [{"from": [open]}]}),
        json!({"ingress": [{"ports": [{"port": 1, "endPort": 65535}]}]}),
        json!({"egress": [{}]}),
        json!({"egress": []}),
        json!({"egress": [{"to": [open], "ports": [{"protocol": "SCTP", "port": "name"}]}]}),
        json!({"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}]}),
    ];
    let foreign =
        json!({"metadata": {"annotations": {"example.com/note": "mine"}, "labels": {"example.com/team": "a"}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&foreign)).await?;
    for (nth, edit) in edits.iter().enumerate() {
        // By update and by server-side apply: ownership of fields must make no difference.
        let manager = PatchParams::apply("somebody").force();
        let applied = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": edit});
        let edited = if nth % 2 == 0 || edit.get("ingress") == Some(&Value::Null) {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&json!({"spec": edit}))).await?
        } else {
            api.patch(&name, &manager, &Patch::Apply(&applied)).await?
        };
        wait::until(&format!("{edit} to be undone"), wait::SOON, || async {
            let live = api.get(&name).await?;
            ensure!(live.spec == wanted.spec, "it is {:?}", live.spec);
            ensure!(edited.spec == wanted.spec || live.resource_version() != edited.resource_version(), "not yet");
            Ok(())
        })
        .await?;
    }
    // Nor does it help to take its labels first.
    let disguised = json!({
        "metadata": {"labels": {"rampart.dev/owner-name": null, "app.kubernetes.io/managed-by": "somebody"}},
        "spec": {"ingress": [{}]},
    });
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&disguised)).await?;
    let live = wait::until("labels and spec to be put back", wait::SOON, || async {
        let live = api.get(&name).await?;
        ensure!(live.spec == wanted.spec && live.labels().contains_key("rampart.dev/owner-name"), "{live:?}");
        ensure!(live.labels().get("app.kubernetes.io/managed-by").is_some_and(|it| it == "rampart"), "{live:?}");
        Ok(live)
    })
    .await?;
    ensure!(live.annotations().contains_key("example.com/note"), "a foreign annotation was taken away");
    ensure!(live.labels().contains_key("example.com/team"), "a foreign label was taken away");

    api.delete(&name, &DeleteParams::default()).await?;
    wait::until("a deleted one to be back", wait::SOON, || async {
        ensure!(api.get(&name).await?.spec == wanted.spec);
        Ok(())
    })
    .await
}

async fn a_foreign_object_is_never_overwritten(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let mut policy = stories::sample_policy();
    policy["metadata"]["namespace"] = json!(namespace);
    policy["spec"]["suspend"] = json!(true);
    fixtures::apply(&client, &policy).await?;
    let uid = policies.get("web").await?.uid().unwrap_or_default();
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let mut foreign = NetworkPolicy::default();
    foreign.metadata.name = Some(format!("rampart-web-{}", &uid[..8]));
    foreign.spec = Some(serde_json::from_value(json!({"podSelector": {"matchLabels": {"mine": "yes"}}}))?);
    let foreign = api.create(&PostParams::default(), &foreign).await?;
    wait::until("the suspended policy to be seen", wait::SOON, || async {
        let status = policies.get("web").await?.status.unwrap_or_default();
        let is_told = status.conditions.iter().any(|it| it.type_ == "Ready" && it.reason == "Suspended");
        Ok(ensure!(status.observed_generation == Some(1) && is_told, "{status:?}"))
    })
    .await?;
    let resume = Patch::Merge(json!({"spec": {"suspend": null}}));
    policies.patch("web", &PatchParams::default(), &resume).await?;
    let refused = wait::until("the conflict to be said", wait::SOON, || async {
        let live = serde_json::to_value(policies.get("web").await?)?;
        let accepted = stories::condition(&live, "Accepted").unwrap_or_default();
        ensure!(accepted["status"] == "False" && accepted["reason"] == "Conflicted", "Accepted is {accepted}");
        Ok(accepted)
    })
    .await?;
    ensure!(refused["message"].as_str().unwrap_or_default().contains("rename one of them, or delete it"));
    let live = api.get(&foreign.name_any()).await?;
    ensure!(live.resource_version() == foreign.resource_version(), "it was written");
    // It goes, and the policy comes true by itself.
    api.delete(&foreign.name_any(), &DeleteParams::default()).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    Ok(())
}

async fn what_a_quota_refuses_is_said(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let quota = |many: &str| {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": namespace},
            "spec": {"hard": {"count/networkpolicies.networking.k8s.io": many}},
        })
    };
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), &namespace);
    let counted = async |many: &str| {
        wait::until("the quota to be counted", wait::SOON, || async {
            let hard = quotas.get("few").await?.status.and_then(|status| status.hard).unwrap_or_default();
            Ok(ensure!(hard.values().any(|it| it.0 == many), "{hard:?}"))
        })
        .await
    };
    fixtures::apply(&client, &quota("0")).await?;
    counted("0").await?;
    let made: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let probe: NetworkPolicy =
        serde_json::from_value(json!({"metadata": {"name": "probe"}, "spec": {"podSelector": {}}}))?;
    wait::until("the quota to be in force", wait::SOON, || async {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let refused = made.create(&params, &probe).await.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(ensure!(refused.contains("quota"), "it is not: {refused}"))
    })
    .await?;
    let mut policy = stories::sample_policy();
    policy["metadata"]["namespace"] = json!(namespace);
    fixtures::apply(&client, &policy).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let refused = async |words: &[&str]| {
        wait::until("Programmed=False", wait::SOON, || async {
            let live = serde_json::to_value(policies.get("web").await?)?;
            let programmed = stories::condition(&live, "Programmed").unwrap_or_default();
            ensure!(programmed["status"] == "False" && programmed["reason"] == "WriteRefused", "{programmed}");
            let message = programmed["message"].as_str().unwrap_or_default();
            Ok(ensure!(words.iter().all(|it| message.contains(it)), "{programmed}"))
        })
        .await
    };
    refused(&["quota"]).await?;
    // With all isolated, it needs two more beside its own, of which none is taken.
    fixtures::apply(&client, &quota("2")).await?;
    counted("2").await?;
    let deny = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "deny", "namespace": namespace},
        "spec": {"network": {"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]}},
    });
    fixtures::apply(&client, &deny).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "deny").await?;
    let again = Patch::Merge(json!({"metadata": {"annotations": {"rampart.dev/reconcile-requested-at": "now"}}}));
    policies.patch("web", &PatchParams::default(), &again).await?;
    refused(&["1 of 3 NetworkPolicies are as rendered", "quota"]).await
}

async fn what_fails_again_and_again_is_said(env: Env) -> Result<()> {
    let (client, namespace, api) = sample(&env).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let dead = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": format!("dead-{namespace}")},
        "webhooks": [{
            "name": "dead.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Fail",
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "resources": ["networkpolicies"],
                       "operations": ["CREATE", "UPDATE", "DELETE"]}],
        }],
    });
    fixtures::apply(&client, &dead).await?;
    let probe: NetworkPolicy =
        serde_json::from_value(json!({"metadata": {"name": "probe"}, "spec": {"podSelector": {}}}))?;
    wait::until("the webhook to be asked", wait::SOON, || async {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let refused = api.create(&params, &probe).await.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(ensure!(refused.contains("dead.example.com"), "it is not: {refused}"))
    })
    .await?;
    let disabled = Patch::Merge(json!({"spec": {"network": {"mode": "Disabled"}}}));
    let generation = policies.patch("web", &PatchParams::default(), &disabled).await?.metadata.generation;
    wait::until("the failure to be told", wait::SOON, || async {
        let live = serde_json::to_value(policies.get("web").await?)?;
        for (kind, status) in [("Programmed", "False"), ("Ready", "False"), ("Reconciling", "True")] {
            let found = stories::condition(&live, kind).unwrap_or_default();
            ensure!(found["status"] == status && found["reason"] == "ApiError", "{kind}: {found}");
            ensure!(found["observedGeneration"].as_i64() == generation, "{kind}: {found}");
            ensure!(found["message"].as_str().is_some_and(|it| it.contains("dead.example.com")), "{kind}: {found}");
        }
        Ok(())
    })
    .await?;
    webhooks.delete(&format!("dead-{namespace}"), &DeleteParams::default()).await?;
    none_left(&api).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    Ok(())
}

async fn none_left(api: &Api<NetworkPolicy>) -> Result<()> {
    wait::until("NetworkPolicies to go", wait::SOON, || async {
        let left = api.list(&ListParams::default()).await?;
        ensure!(left.items.is_empty(), "{} are left", left.items.len());
        Ok(())
    })
    .await
}

async fn what_is_no_longer_asked_for_goes(env: Env) -> Result<()> {
    let (client, namespace, api) = sample(&env).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let mode = |mode: &str| Patch::Merge(json!({"spec": {"network": {"mode": mode}}}));
    policies.patch("web", &PatchParams::default(), &mode("Disabled")).await?;
    none_left(&api).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    policies.patch("web", &PatchParams::default(), &mode("Enforce")).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    ensure!(api.list(&ListParams::default()).await?.items.len() == 1);
    policies.delete("web", &DeleteParams::default()).await?;
    none_left(&api).await
}

async fn a_half_that_would_isolate_is_not_rendered(env: Env) -> Result<()> {
    let (client, namespace, api) = sample(&env).await?;
    let halves = ListParams::default().labels("rampart.dev/part=reciprocal");
    ensure!(api.list(&halves).await?.items.is_empty(), "nothing isolates postgres, so nothing may");
    let policy = stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    let findings = policy.status.and_then(|status| status.network).map(|network| network.findings).unwrap_or_default();
    ensure!(findings.iter().any(|it| it.id == format!("ReciprocalMissing/{namespace}/egress/pg")), "{findings:?}");

    let deny: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "default-deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }))?;
    api.create(&PostParams::default(), &deny).await?;
    wait::until("the halves of postgres and redis", wait::SOON, || async {
        let halves = api.list(&halves).await?.items.len();
        ensure!(halves == 2, "{halves} halves");
        Ok(())
    })
    .await?;
    api.delete("default-deny", &DeleteParams::default()).await?;
    wait::until("the halves to go with the isolation", wait::SOON, || async {
        let halves = api.list(&halves).await?.items.len();
        ensure!(halves == 0, "{halves} halves");
        Ok(())
    })
    .await
}

/// Rampart's own, too: what isolates the other end may be another SecurityPolicy.
async fn a_half_follows_the_policies_beside_it(env: Env) -> Result<()> {
    let (client, namespace, api) = sample(&env).await?;
    let halves = |wanted: usize| {
        let api = api.clone();
        async move {
            wait::until(&format!("{wanted} halves"), wait::SOON, || async {
                let halves = ListParams::default().labels("rampart.dev/part=reciprocal");
                let found = api.list(&halves).await?.items.len();
                Ok(ensure!(found == wanted, "{found} halves"))
            })
            .await
        }
    };
    let isolating = |pods: Value| {
        json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": "deny", "namespace": namespace},
            "spec": {"network": {"mode": "Enforce", "podSelector": pods, "isolate": ["Ingress"]}},
        })
    };
    fixtures::apply(&client, &isolating(json!({}))).await?;
    halves(2).await.context("after all was isolated")?;
    fixtures::apply(&client, &isolating(json!({"matchLabels": {"app": "redis"}}))).await?;
    halves(1).await.context("after only redis was isolated")?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    policies.delete("deny", &DeleteParams::default()).await?;
    halves(0).await.context("after nothing was isolated any more")
}

async fn names_and_services_follow_the_cluster(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let pod = |name: &str, app: &str, http: u16| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
            "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1",
                                     "ports": [{"name": "http", "containerPort": http}]}]},
        })
    };
    let service = |target: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": namespace},
            "spec": {"selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": target}]},
        })
    };
    let policy = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"network": {
            "mode": "Enforce", "podSelector": {"matchLabels": {"app": "web"}}, "isolate": ["Ingress", "Egress"],
            "allowNoDns": true,
            "ingress": [{"name": "in", "peers": [{"entity": "SameNamespace"}], "ports": [{"port": "http"}]}],
            "egress": [{"name": "db", "peers": [{"service": {"name": "db"}}]}],
        }},
    });
    let ports = |inwards: Value, outwards: Value| {
        let (client, namespace) = (client.clone(), namespace.clone());
        async move {
            wait::until(&format!("{inwards} and {outwards}"), wait::SOON, || async {
                let spec = serde_json::to_value(stories::rendered(&client, &namespace, "web").await?.spec)?;
                let numbers = |direction: &str| -> Value {
                    let ports = spec[direction][0]["ports"].as_array().cloned().unwrap_or_default();
                    ports.iter().map(|port| port["port"].clone()).collect()
                };
                let found = (numbers("ingress"), numbers("egress"));
                ensure!(found == (inwards.clone(), outwards.clone()), "{found:?}");
                Ok(())
            })
            .await
        }
    };
    fixtures::apply(&client, &pod("web", "web", 8080)).await?;
    fixtures::apply(&client, &service(json!(5432))).await?;
    fixtures::apply(&client, &policy).await?;
    ports(json!([8080]), json!([5432])).await?;
    fixtures::apply(&client, &service(json!("http"))).await?;
    ports(json!([8080]), json!([])).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    wait::until("the finding", wait::SOON, || async {
        let status = policies.get("web").await?.status.and_then(|status| status.network).unwrap_or_default();
        let id = format!("NamedPortUnknown/{namespace}/db");
        Ok(ensure!(status.findings.iter().any(|it| it.id == id), "{status:?}"))
    })
    .await?;
    fixtures::apply(&client, &pod("db", "db", 6432)).await?;
    fixtures::apply(&client, &pod("web-2", "web", 9090)).await?;
    ports(json!([8080, 9090]), json!([6432])).await?;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), &namespace);
    pods.delete("web", &DeleteParams::default().grace_period(0)).await?;
    ports(json!([9090]), json!([6432])).await
}

async fn the_api_server_is_followed_where_it_goes(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let policy = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"network": {
            "mode": "Enforce", "podSelector": {}, "isolate": ["Egress"], "allowNoDns": true,
            "egress": [{"name": "api", "peers": [{"entity": "APIServer"}]}],
        }},
    });
    fixtures::apply(&client, &policy).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    let rules = || async {
        let spec = serde_json::to_value(stories::rendered(&client, &namespace, "web").await?.spec)?;
        anyhow::Ok(spec["egress"].as_array().cloned().unwrap_or_default())
    };
    let before = rules().await?;
    let service = json!({"to": [{"ipBlock": {"cidr": "10.96.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 443}]});
    ensure!(before.len() == 2 && before.contains(&service), "{before:?}");
    let more = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": namespace, "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": ["203.0.113.9"]}], "ports": [{"name": "https", "port": 7443, "protocol": "TCP"}],
    });
    fixtures::apply(&client, &more).await?;
    let new = json!({"to": [{"ipBlock": {"cidr": "203.0.113.9/32"}}], "ports": [{"protocol": "TCP", "port": 7443}]});
    wait::until("the new address", wait::SOON, || async { Ok(ensure!(rules().await?.contains(&new))) }).await?;
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client.clone(), &namespace);
    wait::until("an event about it", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?;
        let reasons: Vec<String> = all.into_iter().filter_map(|event| event.reason).collect();
        let told = reasons.iter().any(|it| it == "ApiServerEndpointsChanged");
        Ok(ensure!(told && !reasons.iter().any(|it| it == "DriftReverted"), "{reasons:?}"))
    })
    .await?;
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = Api::namespaced(client.clone(), "default");
    slices.delete(&namespace, &DeleteParams::default()).await?;
    wait::until("the address to go", wait::SOON, || async { Ok(ensure!(rules().await? == before)) }).await
}

async fn a_namespace_that_is_deleted_goes_quietly(env: Env) -> Result<()> {
    let (client, namespace, api) = sample(&env).await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces.delete(&namespace, &DeleteParams::default()).await?;
    wait::until("the namespace to go", wait::SOON, || async {
        Ok(ensure!(
            namespaces.get_opt(&namespace).await?.is_none(),
            "{} are left",
            api.list(&ListParams::default()).await?.items.len()
        ))
    })
    .await
}

async fn unknown_ranges_are_said(_: Env) -> Result<()> {
    // Without controllers there are no nodes, and so nobody knows the pods' addresses.
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let operator = Operator::install(&plane, &[]).await?;
    let client = plane.client();
    fixtures::namespace(&client, stories::WEB, json!({})).await?;
    fixtures::apply(&client, &stories::sample_policy()).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), stories::WEB);
    wait::until("Programmed=False", wait::SOON, || async {
        let live = serde_json::to_value(policies.get("web").await?)?;
        let programmed = stories::condition(&live, "Programmed").unwrap_or_default();
        ensure!(programmed["status"] == "False" && programmed["reason"] == "UnknownClusterRanges", "{programmed}");
        let message = programmed["message"].as_str().unwrap_or_default();
        ensure!(message.contains("\"web\"") && message.contains("--network-cluster-cidrs"), "{message}");
        let rendered = stories::condition(&live, "Rendered").unwrap_or_default();
        ensure!(rendered["status"] == "False", "{rendered}");
        // What it would be is told all the same.
        ensure!(live["status"]["network"]["preview"].is_object(), "{live:#}");
        Ok(())
    })
    .await?;
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), stories::WEB);
    ensure!(api.list(&ListParams::default()).await?.items.is_empty(), "half an intent was rendered");

    // The administrator names them, and the same policy comes true.
    operator.stop().await?;
    let flag = "--network-cluster-cidrs=10.244.0.0/16,10.96.0.0/16";
    let _operator = Operator::install(&plane, &[flag]).await?;
    stories::ready::<SecurityPolicy>(&client, stories::WEB, "web").await?;
    Ok(())
}
