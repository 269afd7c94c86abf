//! Four ways to one verdict, of the standards and the rules beyond them: admission policies on the real API
//! server without Rampart running, the webhook, the background scan, and the command line, which sees the
//! pod before the API server completes it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};
use kube::{Api, Client, api::PostParams};
use rampart::{
    api::{Enforcer, Hardening, PolicyException},
    hardening::{Covering, Demand, Exception, Finding, Floor, Origin, RULES, Requirement, compile},
};
use rampart_e2e::{
    ControlPlane, Options, fixtures,
    pods::{Pods, acceptable, ruled},
    seed, stories, wait,
};
use rampart_pss::CHECKS;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    admission::post,
    floor::{accepted, checked, enforced_by, path},
    ways::Ways,
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("rules::four_ways_to_one_verdict", |_| same_verdicts());
    tests.add("rules::webhook_and_admission_policy_enforce_them", enforced);
    tests.add("rules::what_is_added_to_a_pod_later_is_judged", added_later);
}

/// Random pods that the API server accepts.
const PODS: usize = 2_000;
/// Ids of rules.
type Ids = Vec<&'static str>;
const AT_ONCE: usize = 8;

/// Every rule, strict and lax, alone with the standard and beside each other.
fn asked() -> [Value; 8] {
    [
        json!({"readOnlyRootFilesystem": "Required", "resourceRequests": ["cpu", "memory"], "resourceLimits": ["memory"]}),
        json!({"images": {"allow": ["docker.io/**", "registry.example.com/*", "localhost:5000/**"], "forbidTags": ["latest"]}}),
        json!({"images": {"deny": ["nginx", "*/team/*", "registry.example.com/app:1", "**/app:l*"], "requireDigest": true}}),
        json!({"images": {"allow": ["nginx:1.*", "**@sha256:*"], "forbidTags": ["1", "5000"]},
               "users": {"minUid": 1000, "minGid": 100, "minFsGroup": 100}}),
        json!({"users": {"minUid": 1000, "minGid": 1, "minFsGroup": 1, "requireExplicit": true},
               "capabilities": {"allowAdd": ["CHOWN", "NET_BIND_SERVICE"]},
               "seccomp": {"localhostProfiles": ["good.json"]}, "appArmor": {"localhostProfiles": ["good"]}}),
        json!({"userNamespaces": "Required", "serviceAccountToken": "Forbidden", "capabilities": {"allowAdd": []},
               "volumes": {"allow": ["emptyDir", "configMap", "hostPath"],
                           "hostPaths": [{"prefix": "/var/log", "readOnly": true}, {"prefix": "/data"}]}}),
        json!({"serviceAccountToken": "Explicit", "probes": ["readiness", "liveness", "startup"],
               "hostPorts": {"allow": [{"min": 8000, "max": 8002}, {"min": 1, "max": 10}]},
               "terminationGracePeriod": {"max": "30s"}, "volumes": {"hostPaths": []}}),
        json!({"appArmor": {}, "priorityClasses": {"allow": ["low"]}, "runtimeClasses": {"require": ["gvisor"]},
               "nodeSelector": {"forbid": ["role", "zone"]}, "tolerations": {"forbid": ["role"]},
               "hostPorts": {"allow": []}}),
    ]
}

/// Exceptions for some values: one for every image, one for some; and one for anything of one container.
fn by_value() -> Result<Vec<Exception>> {
    let first = json!({
        "pss/capabilities_baseline": ["SYS_TIME", "KILL", "NET_RAW"], "pss/capabilities_restricted": ["KILL", "CHOWN"],
        "pss/sysctls": ["kernel.msgmax", "net.core.somaxconn", "a"], "pss/hostPorts": ["80", "8000"],
        "pss/hostPathVolumes": ["/var/log"], "pss/restrictedVolumes": ["/var/log/pods/", "nfs"],
        "hardening/capabilities.allowAdd": ["KILL"], "hardening/hostPorts": ["8003"],
        "hardening/volumes.allow": ["/var", "image"], "hardening/volumes.hostPaths": ["/var/log"],
    });
    let second = json!({
        "pss/capabilities_baseline": ["NET_ADMIN", "ALL"], "pss/capabilities_restricted": ["NET_ADMIN", "SETUID"],
        "pss/sysctls": ["kernel.shmmax"], "pss/hostPorts": ["443", "9"], "pss/hostPathVolumes": ["/"],
        "pss/restrictedVolumes": ["/", "gitRepo", "iscsi"], "hardening/capabilities.allowAdd": ["CHOWN"],
        "hardening/hostPorts": ["80", "9"], "hardening/volumes.allow": ["nfs", "projected"],
        "hardening/volumes.hostPaths": ["/var"],
    });
    let rules: Ids = vec![
        "pss/capabilities_baseline",
        "pss/capabilities_restricted",
        "pss/sysctls",
        "pss/hostPorts",
        "pss/hostPathVolumes",
        "pss/restrictedVolumes",
        "hardening/capabilities.allowAdd",
        "hardening/hostPorts",
        "hardening/volumes.allow",
        "hardening/volumes.hostPaths",
    ];
    let future = (Timestamp::now() + Duration::from_hours(24)).to_string();
    parsed([
        json!({"rules": rules, "values": first, "images": ["**"], "expiresAt": future}),
        json!({"rules": rules, "values": second, "images": ["registry.example.com/**"], "expiresAt": future}),
        json!({"rules": ["pss/sysctls", "pss/hostPorts", "hardening/volumes.allow"], "images": ["**"],
               "containers": ["a", "web", "b"], "expiresAt": future}),
    ])
}

/// Exceptions: some of every rule, for some images, pods and containers; one that has ended; one that ends
/// while nobody looks.
fn exceptions(index: usize) -> Result<Vec<Exception>> {
    let ids: Vec<String> = CHECKS
        .iter()
        .map(|check| format!("pss/{}", check.id))
        .chain(RULES.iter().map(|about| format!("hardening/{}", about.id)))
        .collect();
    let third = |start: usize| ids.iter().skip((start + index) % 3).step_by(3).collect::<Vec<_>>();
    let future = Timestamp::now() + Duration::from_hours(24);
    parsed([
        json!({"rules": third(0), "images": ["registry.example.com/app:1"], "expiresAt": future.to_string()}),
        json!({"rules": third(1), "images": ["**"], "expiresAt": future.to_string(),
               "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                   {"key": "tier", "operator": "NotIn", "values": ["db"]}, {"key": "app", "operator": "Exists"}]}}),
        json!({"rules": third(2),
               "images": ["registry.example.com/**", "docker.io/library/*", "nginx", "localhost/*:latest"],
               "expiresAt": future.to_string(), "containers": ["a", "web", "b", "db", "init", "z-1"]}),
        json!({"rules": third(0), "images": ["**"], "expiresAt": future.to_string(),
               "podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}),
        json!({"rules": ids, "images": ["**"], "expiresAt": "2026-01-01T00:00:00Z"}),
    ])
}

fn parsed(specs: impl IntoIterator<Item = Value>) -> Result<Vec<Exception>> {
    let one = |(number, mut spec): (usize, Value)| {
        spec["policies"] = json!([{"kind": "SecurityPolicy", "name": "p"}]);
        spec["reason"] = json!("a test");
        let exception = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
            "metadata": {"name": format!("e{number}"), "creationTimestamp": "2025-12-01T00:00:00Z"}, "spec": spec});
        let exception: PolicyException = serde_json::from_value(exception)?;
        Ok(Exception::try_from(&exception)?)
    };
    specs.into_iter().enumerate().map(one).collect()
}

/// A namespace, and what is asked there: with a standard in every second; then some with exceptions.
fn policies() -> Result<Vec<(String, Covering)>> {
    let policy = |(name, index, rules): (&str, usize, Value), exceptions: Vec<Exception>| {
        let level = match index {
            8 => "baseline",
            index if index % 2 == 0 => "privileged",
            _ => "restricted",
        };
        let hardening = json!({"mode": "Enforce", "podSecurity": {"level": level}, "rules": rules});
        let hardening: Hardening = serde_json::from_value(hardening)?;
        let requirement = Requirement::try_from(&hardening)?;
        let covering = Covering { origin: Origin::CommandLine, made: None, requirement, exceptions: exceptions.into() };
        anyhow::Ok((format!("{name}-{index}"), covering))
    };
    let mut all = vec![];
    for (index, rules) in asked().into_iter().enumerate() {
        if index % 2 == 1 || index == 2 {
            all.push(policy(("excepted", index, rules.clone()), exceptions(index)?)?);
        }
        if (4..=6).contains(&index) {
            all.push(policy(("values", index, rules.clone()), by_value()?)?);
        }
        all.push(policy(("rules", index, rules), vec![])?);
    }
    all.push(policy(("values", 8, json!({})), by_value()?)?);
    all.push(policy(("values", 9, json!({})), by_value()?)?);
    all.push(policy(("excepted", 9, json!({})), exceptions(0)?)?);
    Ok(all)
}

fn floors(policies: &[(String, Covering)]) -> Vec<Floor> {
    let namespaces = policies
        .iter()
        .map(|(name, it)| (name.clone(), [(it.requirement.standard(), it.exceptions.to_vec())].into()))
        .collect();
    compile(&Demand { namespaces, ..Demand::default() })
}

async fn same_verdicts() -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let policies = policies()?;
    for class in [
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": 1}),
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"}),
    ] {
        fixtures::apply(&client, &class).await?;
    }
    fixtures::namespace(&client, "free", json!({})).await?;
    for (namespace, _) in &policies {
        fixtures::namespace(&client, namespace, json!({})).await?;
    }
    let floors = floors(&policies);
    fixtures::floors(&client, &floors).await?;
    checked(&client, &floors).await?;
    let bad = worst()?;
    for (namespace, _) in &policies {
        wait::until("the admission policy to be in force", wait::SOON, || async {
            let (code, body, _) = post(&client, &path(namespace), &bad).await?;
            ensure!(code == 403, "{namespace}: {code}: {body}");
            Ok(())
        })
        .await?;
    }

    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pods = Pods::new(seed);
    let (mut compared, mut invalid, mut lifted) = (0, 0, 0);
    let mut counts: BTreeMap<&str, (usize, usize)> = RULES.iter().map(|about| (about.id, (0, 0))).collect();
    while compared < PODS {
        let some: Vec<Value> = pods.by_ref().take(200).map(|made| ruled(&mut rng, acceptable(made.pod))).collect();
        // Each pod in every third namespace, one after the other.
        let third = |nth: usize| policies.iter().skip(nth % 3).step_by(3);
        let results: Vec<Option<Compared>> = stream::iter(some.iter().enumerate())
            .map(|(nth, pod)| compare(&client, third(nth), pod))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .with_context(|| format!("RAMPART_SEED={seed}"))?;
        compared += results.iter().flatten().count();
        invalid += results.iter().filter(|refused| refused.is_none()).count();
        let enough = compared.max(PODS);
        ensure!(invalid < 2 * enough, "{invalid} invalid pods for {compared} valid ones: the generator is too wild");
        for of_pod in results.into_iter().flatten() {
            for rule in of_pod.asked {
                counts.entry(rule).or_default().0 += 1;
            }
            for rule in of_pod.violated {
                counts.entry(rule).or_default().1 += 1;
            }
            lifted += of_pod.lifted;
        }
    }
    println!("{compared} random pods compared in {} namespaces; {invalid} were invalid", policies.len());
    println!("exceptions for values changed what was found {lifted} times");
    ensure!(lifted > PODS / 10, "exceptions for values hardly ever change anything");
    let one_sided: Vec<_> = counts.iter().filter(|(_, (asked, bad))| *bad < 10 || bad + 10 > *asked).collect();
    ensure!(one_sided.is_empty(), "rules that hardly any pod violates, or hardly any meets: {one_sided:?}");
    Ok(())
}

/// A pod that every one of the policies refuses.
fn worst() -> Result<Value> {
    let mut pod = serde_json::to_value(stories::root_pod()?)?;
    pod["spec"]["hostPID"] = json!(true);
    pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    pod["spec"]["containers"][0]["image"] = json!("nginx:latest");
    Ok(pod)
}

/// What was seen of a pod in some of the namespaces.
#[derive(Default)]
struct Compared {
    /// The rules that it was asked to meet.
    asked: Ids,
    /// Those of them that it violates.
    violated: Ids,
    /// How often exceptions for values changed what is found.
    lifted: usize,
}

/// Each namespace refuses in the words of the crate. `None` where the pod is invalid.
async fn compare(
    client: &Client,
    policies: impl Iterator<Item = &(String, Covering)>,
    pod: &Value,
) -> Result<Option<Compared>> {
    let Some(stored) = accepted(client, pod).await? else { return Ok(None) };
    let ways = Ways::of(pod, &stored)?;
    let ways = ways.read()?;
    let mut compared = Compared::default();
    for (namespace, covering) in policies {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = json!(namespace);
        let (code, body, _) = post(client, &path(namespace), &pod).await?;
        let found = ways.agree(covering).with_context(|| namespace.clone())?;
        let bare = Covering { exceptions: Arc::default(), ..covering.clone() };
        let differs = namespace.starts_with("values") && !same(&ways.agree(&bare)?, &found);
        compared.lifted += usize::from(differs);
        compared.asked.extend(covering.requirement.rules.asked().map(|about| about.id));
        let Some(finding) = found.first() else {
            ensure!(code == 201, "{namespace} refuses what its rules allow: {body}\n{stored}");
            continue;
        };
        compared.violated.extend(finding.rules.iter().map(|violation| violation.about.id));
        let wanted = format!("denied request: violates {finding} [kubectl get rsp,rcsp -n {namespace}]");
        let answer: Value = serde_json::from_str(&body)?;
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!(code == 403 && message.ends_with(&wanted), "{code} {message}\n  wanted {wanted}\n{stored}");
    }
    Ok(Some(compared))
}

fn same(some: &[Finding<'_>], others: &[Finding<'_>]) -> bool {
    some.iter().map(Finding::what).eq(others.iter().map(Finding::what))
}

async fn enforced(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let mut policy = stories::hardening_policy(&namespace, "Enforce");
    policy["spec"]["hardening"]["podSecurity"]["level"] = json!("privileged");
    policy["spec"]["hardening"]["rules"] = json!({"images": {"allow": ["*"]}});
    let refused = fixtures::apply(&client, &policy).await.err().context("a pattern that means something else")?;
    let said = format!("{refused:#}");
    ensure!(said.contains("spec.hardening.rules.images.allow[0]"), "{said}");

    policy["spec"]["hardening"]["rules"] = json!({"images": {"requireDigest": true}});
    policy["spec"]["hardening"]["admissionPolicy"] = json!("None");
    fixtures::apply(&client, &policy).await?;
    enforced_by(&client, &namespace, &[Enforcer::Webhook]).await?;
    let mut pod = serde_json::to_value(stories::good_pod()?)?;
    let rule = "hardening/images.requireDigest (container \"main\" uses the image registry.example.com/app:1, \
                which must end in @sha256: and a digest)";
    let answers = |wanted: String| {
        let (client, namespace, pod) = (client.clone(), namespace.clone(), pod.clone());
        async move {
            wait::until("the pod to be refused", wait::SOON, || async {
                let (code, body, _) = post(&client, &path(&namespace), &pod).await?;
                let answer: Value = serde_json::from_str(&body)?;
                let message = answer["message"].as_str().unwrap_or_default();
                ensure!(code == 403 && message.ends_with(&wanted), "{code} {message}, wanted {wanted}");
                Ok(())
            })
            .await
        }
    };
    answers(format!("violates {rule} [SecurityPolicy hardened]; to fix, change spec.containers[0].image")).await?;

    policy["spec"]["hardening"]["admissionPolicy"] = json!("Generate");
    fixtures::apply(&client, &policy).await?;
    enforced_by(&client, &namespace, &[Enforcer::Webhook, Enforcer::AdmissionPolicy]).await?;
    answers(format!("violates {rule} [kubectl get rsp,rcsp -n {namespace}]")).await?;
    pod["spec"]["containers"][0]["image"] = json!(format!("registry.example.com/app@sha256:{}", "0".repeat(64)));
    let (code, body, _) = post(&client, &path(&namespace), &pod).await?;
    ensure!(code == 201, "{code}: {body}");
    Ok(())
}

/// A pod that is there, with a toleration or an affinity to nodes more.
fn grown(pod: &Pod, taint: Option<&str>, label: Option<&str>) -> Pod {
    let mut pod = pod.clone();
    let spec = pod.spec.get_or_insert_default();
    if let Some(key) = taint {
        let toleration = Toleration { key: Some(key.into()), operator: Some("Exists".into()), ..Toleration::default() };
        spec.tolerations.get_or_insert_default().push(toleration);
    }
    if let Some(label) = label {
        let expression = NodeSelectorRequirement {
            key: label.into(),
            operator: "Exists".into(),
            ..NodeSelectorRequirement::default()
        };
        let nodes = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
        let required = nodes.required_during_scheduling_ignored_during_execution.get_or_insert_default();
        // The terms of a pod that is held back may only be narrowed; of one that has none, anything is.
        required.node_selector_terms =
            vec![NodeSelectorTerm { match_expressions: Some(vec![expression]), ..NodeSelectorTerm::default() }];
    }
    pod
}

async fn added_later(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let mut pod = serde_json::to_value(stories::root_pod()?)?;
    pod["spec"]["schedulingGates"] = json!([{"name": "example.com/later"}]);
    let mut pod: Pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    pod.metadata.resource_version = None;
    let mut policy = stories::hardening_policy(&namespace, "Enforce");
    policy["spec"]["hardening"]["rules"] =
        json!({"nodeSelector": {"forbid": ["role"]}, "tolerations": {"forbid": ["role"]}});
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for (admission_policy, by, told_by) in [
        ("None", vec![Enforcer::Webhook], "[SecurityPolicy hardened]"),
        ("Generate", vec![Enforcer::Webhook, Enforcer::AdmissionPolicy], "[kubectl get rsp,rcsp"),
    ] {
        policy["spec"]["hardening"]["admissionPolicy"] = json!(admission_policy);
        fixtures::apply(&client, &policy).await?;
        enforced_by(&client, &namespace, &by).await?;
        for (rule, bad) in
            [("tolerations", grown(&pod, Some("role"), None)), ("nodeSelector", grown(&pod, None, Some("role")))]
        {
            let message = wait::until("what is added to be refused", wait::SOON, || async {
                match pods.replace("root", &dry_run, &bad).await {
                    Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(told_by) => {
                        Ok(status.message)
                    }
                    Err(other) => Err(other.into()),
                    Ok(_) => bail!("{admission_policy}: {rule}: it was admitted"),
                }
            })
            .await?;
            ensure!(message.contains(&format!("violates hardening/{rule} (")), "{message}");
        }
        // The pod runs as root, but nothing that runs is changed.
        pods.replace("root", &dry_run, &grown(&pod, Some("other"), Some("disk"))).await?;
    }
    Ok(())
}
