//! The chart without a cluster: what it refuses, what it renders, and that nothing rendered is stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{
    chart::{self, Helm},
    fixtures, operator,
};
use serde_json::Value;

fn render(values: &[&str]) -> Result<Vec<Value>> {
    fixtures::parse(&Helm::new()?.template(values)?)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `Kind namespace/name` of every object.
fn names(objects: &[Value]) -> BTreeSet<String> {
    let name = |object: &Value| {
        let namespace = text(object, "/metadata/namespace");
        let slash = if namespace.is_empty() { "" } else { "/" };
        format!("{} {namespace}{slash}{}", text(object, "/kind"), text(object, "/metadata/name"))
    };
    objects.iter().map(name).collect()
}

#[test]
fn it_lints() -> Result<()> {
    let chart = chart::directory().display().to_string();
    Helm::new()?.run(&["lint", &chart, "--strict", "--namespace", chart::NAMESPACE]).map(drop)
}

#[test]
fn chart_and_program_have_one_version() -> Result<()> {
    let chart: Value = serde_saphyr::from_str(&std::fs::read_to_string(chart::directory().join("Chart.yaml"))?)?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(chart["version"] == version && chart["appVersion"] == version, "{chart}");
    let images = text(&chart, "/annotations/artifacthub.io~1images");
    ensure!(images.contains(&format!("rampart.dev/rampart:{version}\n")), "{images}");
    Ok(())
}

#[test]
fn what_is_rendered_for_kubectl_is_not_stale() -> Result<()> {
    let found = std::fs::read_to_string(fixtures::repository().join("manifests/install.yaml"))?;
    ensure!(found == Helm::new()?.install_yaml()?, "manifests/install.yaml is stale: run `make generate`");
    let objects = fixtures::parse(&found)?;
    ensure!(names(&objects).len() == objects.len(), "manifests/install.yaml has something twice");
    ensure!(
        names(&objects).contains("Namespace rampart-system"),
        "manifests/install.yaml makes no namespace for itself"
    );
    Ok(())
}

/// What values change of the rendering without any, which `manifests/install.yaml` shows.
fn changed(values: &[&str]) -> Result<String> {
    let key = |object: &Value| names(std::slice::from_ref(object)).pop_first().unwrap_or_default();
    let by_name = |objects: Vec<Value>| objects.into_iter().map(|it| (key(&it), it)).collect::<BTreeMap<_, _>>();
    let (before, after) = (by_name(render(&[])?), by_name(render(values)?));
    let mut told = String::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        let _ = writeln!(told, "# gone: {name}");
    }
    for object in after.iter().filter(|(name, object)| before.get(*name) != Some(object)).map(|(_, object)| object) {
        let _ = write!(told, "---\n{}", serde_saphyr::to_string(object)?);
    }
    Ok(told)
}

#[test]
fn what_values_change_is_what_was_reviewed() -> Result<()> {
    let sets: [(&str, &[&str]); 6] = [
        ("least", &["features.apiKeys=false", "features.retention=false", "verifier.enabled=false"]),
        ("unhardened", &["features.hardening=false"]),
        ("unnetworked", &["features.network=false"]),
        ("reported", &["features.openReports=true"]),
        ("monitored", chart::MONITORED[0]),
        (
            "placed",
            &[
                "webhook.hostNetwork=true",
                "webhook.port=10260",
                "image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "imagePullSecrets[0].name=registry",
                "priorityClassName=",
                "nodeSelector.pool=system",
                "tolerations[0].key=system",
                "tolerations[0].operator=Exists",
                "network.clusterCidrs={10.0.0.0/8,192.168.0.0/16}",
                "retention.protectedNamespaces={billing,audit}",
            ],
        ),
    ];
    for (name, values) in sets {
        insta::assert_snapshot!(name, changed(values)?);
    }
    Ok(())
}

/// Pods that only the administrator can name come as JSON, which `--set` takes with its commas escaped.
#[test]
fn the_controller_is_told_who_the_entities_are() -> Result<()> {
    let named = r#"{"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "edge"}}}"#;
    let set = |value: &str| format!("network.{value}=\\{}", named.replace(',', "\\,"));
    let objects = render(&[&set("ingressController"), &set("monitoring")])?;
    let controller =
        objects.iter().find(|it| text(it, "/metadata/name") == "rampart-controller" && it["kind"] == "Deployment");
    let env =
        controller.context("no controller")?.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
    for name in ["RAMPART_NETWORK_INGRESS_CONTROLLER", "RAMPART_NETWORK_MONITORING"] {
        let found = env.into_iter().flatten().find(|it| it["name"] == name);
        ensure!(found.is_some_and(|it| it["value"] == named), "{name}: {found:?}");
    }
    Ok(())
}

/// What each container of a Deployment has in its environment: names and entries, by the container.
fn environments(objects: &[Value]) -> BTreeMap<&str, Vec<(&str, &Value)>> {
    let mut found = BTreeMap::new();
    for deployment in objects.iter().filter(|it| it["kind"] == "Deployment") {
        let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let entries = container["env"].as_array().into_iter().flatten();
            found.insert(text(container, "/name"), entries.map(|entry| (text(entry, "/name"), entry)).collect());
        }
    }
    found
}

/// Server-side apply refuses a list that has a name twice, and a mapping that has a key twice is no YAML.
#[test]
fn what_is_set_by_hand_takes_the_place_of_what_the_chart_writes() -> Result<()> {
    let most = [
        "webhook.adminPort=8081",
        "network.clusterCidrs={10.0.0.0/8}",
        "features.openReports=true",
        "features.retention=false",
        "retention.protectedNamespaces={billing}",
        "verifier.adminPaths={/admin}",
        "podLabels.team=edge",
    ];
    let mut set = Vec::from(most.map(str::to_owned));
    let objects = render(&most)?;
    let by_chart = environments(&objects);
    for (component, env) in &by_chart {
        let names = env.iter().map(|(name, _)| name).filter(|name| **name != "RAMPART_IDENTITY");
        set.extend(names.map(|name| format!("{component}.env.{name}=0")));
    }
    let objects = render(&set.iter().map(String::as_str).collect::<Vec<_>>())?;
    let by_hand = environments(&objects);
    ensure!(by_hand.len() == 3, "{by_hand:?}");
    for (component, env) in &by_hand {
        let names = |env: &[(&str, &Value)]| env.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<String>>();
        ensure!(names(env) == names(&by_chart[component]), "{component}: {env:?}");
        let is_by_hand = |(name, entry): &(&str, &Value)| *name == "RAMPART_IDENTITY" || entry["value"] == "0";
        ensure!(env.iter().all(is_by_hand), "{component}: {env:?}");
    }
    Ok(())
}

/// The links in the chart become files of the package.
#[test]
fn a_package_renders_the_same() -> Result<()> {
    let (helm, directory) = (Helm::new()?, tempfile::tempdir()?);
    let (chart, target) = (chart::directory().display().to_string(), directory.path().display().to_string());
    helm.run(&["package", &chart, "--destination", &target])?;
    let packed = format!("{target}/rampart-{}.tgz", env!("CARGO_PKG_VERSION"));
    let flags = ["--namespace", chart::NAMESPACE, "--kube-version", "1.37.1"];
    let rendered = helm.run(&[&["template", chart::RELEASE, &packed], &flags[..]].concat())?;
    ensure!(rendered == helm.template(&[])?, "the package renders something else");
    Ok(())
}

/// Values that must be refused, and what the refusal names.
const REFUSED: &[(&[&str], &str)] = &[
    (&["controler.replicas=2"], "controler"),
    (&["controller.replica=2"], "replica"),
    (&["controller.replicas=0"], "replicas"),
    (&["controller.replicas=many"], "replicas"),
    (&["controller.concurrency=0"], "concurrency"),
    (&["controller.resources.limits.gpus=1"], "gpus"),
    (&["controller.env.PATH=/tmp"], "PATH"),
    (&["verifier.env.RAMPART_IDENTITY=one"], "verifier.env.RAMPART_IDENTITY"),
    (&["podLabels.app\\.kubernetes\\.io/component=one"], "podLabels: app.kubernetes.io/component"),
    (&["podLabels.helm\\.sh/chart=one", "uninstall.hook=false"], "podLabels: helm.sh/chart"),
    (&["webhook.port=443"], "port"),
    (&["webhook.hostNetwork=true"], "10260"),
    (&["verifier.adminPaths[0]=admin"], "adminPaths"),
    (&["verifier.sourceHeader=a b"], "sourceHeader"),
    (&["verifier.auditSample=-1"], "auditSample"),
    (&["image.digest=sha256:12"], "digest"),
    (&["image.pullPolicy=Sometimes"], "pullPolicy"),
    (&["features.hooks=true"], "hooks"),
    (&["features.retention=Off"], "retention"),
    (&["features.openReports=openreports"], "openReports"),
    (&["features.hardening=Disabled"], "hardening"),
    (&["features.network=0"], "network"),
    (&["features.openReports=true", "features.hardening=false"], "openReports=false"),
    (&["features.apiKeys=false"], "verifier.enabled=false"),
    (&["network.clusterCidrs[0]=10.0.0.0"], "clusterCidrs"),
    (&["network.ingressController=nginx"], "ingressController"),
    (&["network.monitoring=prometheus"], "monitoring"),
    (&["retention.minimumGrace=1d"], "minimumGrace"),
    (&["retention.protectedNamespaces[0]=*"], "protectedNamespaces"),
    (&["log.format=xml"], "format"),
    (&["networkPolicy.apiServer.ports[0]=0"], "ports"),
    (&["networkPolicy.webhookFrom[0].pods=all"], "pods"),
    (&["metrics.serviceMonitor.interval=soon"], "interval"),
    (&["metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true"], "enable one"),
    (&["metrics.prometheusRule.runbookUrl=runbooks"], "runbookUrl"),
    (&["tolerations[0].efect=NoSchedule"], "efect"),
    (&["uninstall.hooks=false"], "hooks"),
];

#[test]
fn bad_values_are_refused_and_named() -> Result<()> {
    let helm = Helm::new()?;
    for (values, named) in REFUSED {
        let Err(error) = helm.template(values) else { anyhow::bail!("{values:?} are taken") };
        ensure!(format!("{error:#}").contains(named), "{values:?}: {error:#}");
    }
    Ok(())
}

#[test]
fn it_goes_into_its_own_namespace_alone() -> Result<()> {
    let chart = chart::directory().display().to_string();
    let refused = Helm::new()?.run(&["template", "rampart", &chart, "--namespace", "default"]);
    let error = format!("{:#}", refused.err().context("it is taken")?);
    ensure!(error.contains("rampart-system, not in default"), "{error}");
    Ok(())
}

/// Every value that says whether something is there: on, and off.
#[test]
fn switches_add_and_take_away() -> Result<()> {
    let plain = names(&render(&[])?);
    let switches: &[(&[&str], &[&str], &[&str])] = &[
        (
            &["features.apiKeys=false", "verifier.enabled=false"],
            &[],
            &[
                "ClusterRole rampart-controller-api-keys",
                "ClusterRole rampart-controller-api-key-hooks",
                "ClusterRole rampart-controller-api-key-restarts",
                "Role rampart-keys/rampart-controller",
                "Role rampart-keys/rampart-verifier",
                "Deployment rampart-system/rampart-verifier",
                "Service rampart-system/rampart-verifier",
                "NetworkPolicy rampart-system/rampart-verifier",
                "ServiceAccount rampart-system/rampart-verifier",
                "ValidatingAdmissionPolicy rampart-verifier-reports",
            ],
        ),
        (&["features.apiKeyHooks=false"], &[], &["ClusterRole rampart-controller-api-key-hooks"]),
        (&["features.apiKeyRestarts=false"], &[], &["ClusterRole rampart-controller-api-key-restarts"]),
        (&["features.retention=false"], &[], &["ClusterRole rampart-controller-retention"]),
        (
            &["features.hardening=false"],
            &[],
            &[
                "ClusterRole rampart-controller-hardening",
                "ClusterRole rampart-webhook-hardening",
                "Role rampart-system/rampart-controller-hardening",
            ],
        ),
        (
            &["features.network=false"],
            &[],
            &["ClusterRole rampart-controller-network", "Role default/rampart-api-server"],
        ),
        (
            &["features.openReports=true"],
            &["ClusterRole rampart-controller-open-reports", "ClusterRoleBinding rampart-controller-open-reports"],
            &[],
        ),
        (&["crds.install=false"], &[], &["CustomResourceDefinition apikeys.rampart.dev"]),
        (&["uninstall.hook=false"], &[], &["Job rampart-system/rampart-uninstall"]),
        (&["networkPolicy.enabled=false"], &[], &["NetworkPolicy rampart-system/rampart-controller"]),
        (&["podDisruptionBudget.enabled=false"], &[], &["PodDisruptionBudget rampart-system/rampart-webhook"]),
        (&["metrics.podMonitor.enabled=true"], &["PodMonitor rampart-system/rampart"], &[]),
        (
            &["metrics.serviceMonitor.enabled=true"],
            &["ServiceMonitor rampart-system/rampart", "Service rampart-system/rampart-metrics"],
            &[],
        ),
        (&["metrics.prometheusRule.enabled=true"], &["PrometheusRule rampart-system/rampart"], &[]),
        (&["metrics.dashboard.enabled=true"], &["ConfigMap rampart-system/rampart-dashboard"], &[]),
    ];
    for (values, added, taken) in switches {
        let with = names(&render(values)?);
        for name in *added {
            ensure!(!plain.contains(*name) && with.contains(*name), "{values:?}: {name} should be added: {with:?}");
        }
        for name in *taken {
            ensure!(plain.contains(*name) && !with.contains(*name), "{values:?}: {name} should be gone: {with:?}");
        }
    }
    Ok(())
}

/// `helm upgrade --reuse-values` from a chart without these values says nothing of them.
#[test]
fn values_of_an_older_chart_switch_nothing_off() -> Result<()> {
    let silent = render(&[
        "features.hardening=null",
        "features.network=null",
        "features.openReports=null",
        "retention.protectedNamespaces=null",
        "verifier.auditSample=null",
        "webhook.adminPort=null",
    ])?;
    Ok(ensure!(silent == render(&[])?, "what is not said is off"))
}

/// What the accounts of an installation may do, by account: `group/resource` and verb.
fn granted(objects: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule[field].as_array().cloned().unwrap_or_default();
        values.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let mut granted = BTreeMap::<String, BTreeSet<String>>::new();
    for binding in objects.iter().filter(|it| text(it, "/kind").ends_with("Binding")) {
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        let namespace = text(binding, "/metadata/namespace");
        let is_meant = |it: &&Value| {
            text(it, "/kind") == kind
                && text(it, "/metadata/name") == name
                && (kind == "ClusterRole" || text(it, "/metadata/namespace") == namespace)
        };
        let Some(role) = objects.iter().find(is_meant) else { continue };
        for rule in role["rules"].as_array().into_iter().flatten() {
            for (group, resource) in list(rule, "apiGroups")
                .iter()
                .flat_map(|group| list(rule, "resources").into_iter().map(move |resource| (group.clone(), resource)))
            {
                let rights = granted.entry(text(binding, "/subjects/0/name").to_owned()).or_default();
                let narrow = if rule["resourceNames"].is_array() { " by name" } else { "" };
                let place = if namespace.is_empty() { "everywhere" } else { namespace };
                rights.extend(
                    list(rule, "verbs").iter().map(|verb| format!("{verb} {group}/{resource}{narrow} in {place}")),
                );
            }
        }
    }
    granted
}

/// What each account could be abused for is a list that somebody reads: it does not grow by accident.
#[test]
fn dangerous_rights_are_where_they_are_needed_and_nowhere_else() -> Result<()> {
    let off = ["features.apiKeys=false", "features.retention=false", "verifier.enabled=false"];
    let bare = [&off[..], &["features.hardening=false", "features.network=false"]].concat();
    let (all, least, bare) = (granted(&render(&[])?), granted(&render(&off)?), granted(&render(&bare)?));
    let dangerous = |rights: &BTreeSet<String>| -> Vec<String> {
        let is = |right: &&String| {
            right.contains('*')
                || right.contains("/secrets")
                || right.starts_with("impersonate")
                || right.starts_with("patch apps/")
                || right.starts_with("create batch/")
        };
        rights.iter().filter(is).cloned().collect()
    };
    ensure!(dangerous(&least["rampart-controller"]).is_empty(), "{least:#?}");
    // Holds are left: of admission policies and webhooks of others, all that is needed for these, and no more.
    let of_holds =
        |right: &String| !right.contains("/pods") && !right.contains("networking") && !right.contains("webhook");
    ensure!(bare["rampart-controller"].iter().all(of_holds), "{bare:#?}");
    ensure!(bare["rampart-webhook"].iter().all(|right| !right.contains("/pods")), "{bare:#?}");
    let everywhere = dangerous(&all["rampart-controller"]);
    ensure!(
        everywhere
            == [
                "create /secrets in everywhere",
                "create batch/jobs in everywhere",
                "delete /secrets in everywhere",
                "get /secrets in everywhere",
                "impersonate /serviceaccounts in everywhere",
                "list /secrets in everywhere",
                "patch apps/daemonsets in everywhere",
                "patch apps/deployments in everywhere",
                "patch apps/statefulsets in everywhere",
                "update /secrets in everywhere",
                "watch /secrets in everywhere",
            ],
        "{everywhere:#?}"
    );
    let webhook = dangerous(&all["rampart-webhook"]);
    ensure!(webhook.iter().all(|right| right.ends_with("in rampart-system")), "{webhook:#?}");
    let verifier: Vec<&String> = all["rampart-verifier"].iter().collect();
    ensure!(
        verifier
            == [
                "create rampart.dev/verifierreports in rampart-keys",
                "list rampart.dev/keyrecords in rampart-keys",
                "patch rampart.dev/verifierreports in rampart-keys",
                "watch rampart.dev/keyrecords in rampart-keys",
            ],
        "{verifier:#?}"
    );
    Ok(())
}

/// Rampart asks of itself what it asks of others, in the strictest pack and the standard.
#[test]
fn its_own_pods_pass_its_own_policy() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("chart.yaml");
    std::fs::write(&file, Helm::new()?.template(&[])?)?;
    let checked = Command::new(operator::binary()?).args(["check", "--level", "restricted"]).arg(&file).output()?;
    let told = String::from_utf8_lossy(&checked.stdout);
    ensure!(checked.status.success(), "{told}\n{}", String::from_utf8_lossy(&checked.stderr));
    let judged = told.lines().last().unwrap_or_default();
    ensure!(judged.starts_with("7 allowed, 0 denied"), "three Deployments, a Job and three NetworkPolicies: {told}");
    Ok(())
}

/// Every alert has a runbook.
#[test]
fn every_alert_leads_to_a_section_of_the_runbook() -> Result<()> {
    let objects = render(&["metrics.prometheusRule.enabled=true", "metrics.prometheusRule.runbookUrl=https://x/y#"])?;
    let rule = objects.iter().find(|it| text(it, "/kind") == "PrometheusRule").context("no rule")?;
    let runbook = std::fs::read_to_string(fixtures::repository().join("docs/runbooks/alerts.md"))?;
    let sections: BTreeSet<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    let mut linked = BTreeSet::new();
    for rule in
        rule["spec"]["groups"].as_array().into_iter().flatten().filter_map(|it| it["rules"].as_array()).flatten()
    {
        let url = text(rule, "/annotations/runbook_url");
        let anchor = url.strip_prefix("https://x/y#").with_context(|| format!("no link: {rule}"))?;
        ensure!(sections.contains(anchor), "docs/runbooks/alerts.md has no section {anchor}");
        linked.insert(anchor.to_owned());
    }
    ensure!(linked == sections, "sections without an alert: {:?}", sections.difference(&linked));
    // Pages that nobody has published are not linked.
    let objects = render(&["metrics.prometheusRule.enabled=true"])?;
    let rule = objects.iter().find(|it| text(it, "/kind") == "PrometheusRule").context("no rule")?;
    ensure!(!rule.to_string().contains("runbook_url"), "{rule}");
    Ok(())
}
