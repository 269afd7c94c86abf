//! Admission policies on the real API server, without Rampart running: what they refuse, and in which
//! words, is what `rampart-pss` says of the pod as the API server stores it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::{Api, Client, api::PostParams};
use rampart::hardening::{Floor, compile};
use rampart_e2e::{
    ControlPlane, Options, fixtures, judges,
    pods::{Pods, acceptable},
    stories, wait,
};
use rampart_pss::{Level, Pod, Version, aggregate, evaluate};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("floor::says_what_the_standards_say", says_what_the_standards_say);
    tests.add("floor::type_checks_clean", type_checks_clean);
}

/// Random pods that the API server accepts.
const PODS: usize = 2_000;
/// Versions whose fixtures are tried: each brings or changes checks.
const VERSIONS: [u32; 5] = [0, 19, 25, 31, 37];
const AT_ONCE: usize = 8;

fn namespace(level: Level, version: Version) -> String {
    format!("floor-{level}-{version}").replace('.', "-")
}

fn floors(standards: &[(Level, Version)]) -> Vec<Floor> {
    let enforced: BTreeMap<String, BTreeSet<(Level, Version)>> =
        standards.iter().map(|standard| (namespace(standard.0, standard.1), [*standard].into())).collect();
    compile(&enforced)
}

async fn apply(client: &Client, floors: &[Floor]) -> Result<()> {
    for floor in floors {
        Api::all(client.clone()).create(&PostParams::default(), &floor.policy).await?;
        Api::all(client.clone()).create(&PostParams::default(), &floor.binding).await?;
    }
    Ok(())
}

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// Posts a pod where nothing is enforced; what the API server makes of it, or `None` where it is invalid.
async fn accepted(client: &Client, pod: &Value) -> Result<Option<Value>> {
    let (code, body, _) = post(client, &path("free"), pod).await?;
    match code {
        201 => Ok(Some(serde_json::from_str(&body)?)),
        400 | 422 => Ok(None),
        _ => anyhow::bail!("{code}: {body}\n{pod}"),
    }
}

/// Compares what the API server says with what the crate says of the stored pod.
async fn compare(client: &Client, (level, version): (Level, Version), pod: &Value, stored: &Value) -> Result<()> {
    let namespace = namespace(level, version);
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = json!(namespace);
    let text = stored.to_string();
    let stored: Pod<'_> = serde_json::from_str(&text)?;
    let violations = evaluate(level, version, &stored);
    let (code, body, _) = post(client, &path(&namespace), &pod).await?;
    if violations.is_empty() {
        ensure!(code == 201, "{level}:{version} refuses what the standard allows: {body}\n{text}");
        return Ok(());
    }
    let said = aggregate(&violations);
    let wanted =
        format!("denied request: violates PodSecurity \"{level}:{version}\": {said} [kubectl get rsp -n {namespace}]");
    let answer: Value = serde_json::from_str(&body)?;
    let message = answer["message"].as_str().unwrap_or_default();
    ensure!(code == 403 && message.ends_with(&wanted), "{code} {message}\n  wanted {wanted}\n{text}");
    Ok(())
}

async fn says_what_the_standards_say(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let versions = || VERSIONS.map(Version::minor).into_iter().chain([Version::LATEST]);
    let standards: Vec<(Level, Version)> = [Level::Baseline, Level::Restricted]
        .into_iter()
        .flat_map(|level| versions().map(move |it| (level, it)))
        .collect();
    for (level, version) in &standards {
        fixtures::namespace(&client, &namespace(*level, *version), json!({})).await?;
    }
    fixtures::namespace(&client, "free", json!({})).await?;
    apply(&client, &floors(&standards)).await?;
    let mut bad = serde_json::to_value(stories::root_pod()?)?;
    bad["spec"]["hostNetwork"] = json!(true);
    for (level, version) in &standards {
        let namespace = namespace(*level, *version);
        wait::until("the admission policy to be in force", wait::SOON, || async {
            let (code, body, _) = post(&client, &path(&namespace), &bad).await?;
            ensure!(code == 403, "{code}: {body}");
            Ok(())
        })
        .await?;
    }

    let fixtures = compare_fixtures(&client).await?;
    let seed: u64 = std::env::var("RAMPART_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    let (mut compared, mut refused) = (0, 0);
    let mut pods = Pods::new(seed).map(|made| acceptable(made.pod));
    while compared < PODS {
        let some: Vec<Value> = pods.by_ref().take(200).collect();
        let results: Vec<bool> = stream::iter(&some)
            .map(|pod| async {
                let Some(stored) = accepted(&client, pod).await? else { return anyhow::Ok(false) };
                let other = standards.get(pod.to_string().len() % standards.len()).copied();
                for standard in
                    [Some((Level::Restricted, Version::LATEST)), Some((Level::Baseline, Version::LATEST)), other]
                {
                    compare(&client, standard.context("a standard")?, pod, &stored).await?;
                }
                Ok(true)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .with_context(|| format!("RAMPART_SEED={seed}"))?;
        compared += results.iter().filter(|accepted| **accepted).count();
        refused += results.iter().filter(|accepted| !**accepted).count();
    }
    println!("{fixtures} fixtures and {compared} random pods compared; {refused} were invalid; RAMPART_SEED={seed}");
    ensure!(refused < 2 * compared, "{refused} invalid pods for {compared} valid ones: the generator is too wild");
    Ok(())
}

/// The reference's own fixtures of some versions.
async fn compare_fixtures(client: &Client) -> Result<usize> {
    let root = judges::pss_module()?.join("test/testdata");
    let mut compared = 0;
    for level in [Level::Baseline, Level::Restricted] {
        for version in VERSIONS.map(Version::minor) {
            for verdict in ["pass", "fail"] {
                let dir = root.join(level.as_str()).join(version.to_string()).join(verdict);
                for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
                    let pod = fixtures::documents(&entry?.path())?.pop().context("a pod")?;
                    if let Some(stored) = accepted(client, &pod).await? {
                        compare(client, (level, version), &pod, &stored).await?;
                        compared += 1;
                    }
                }
            }
        }
    }
    ensure!(compared > 450, "only {compared} fixtures were accepted");
    Ok(compared)
}

/// What the API server's own type checker says of every expression.
async fn type_checks_clean(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let floors = floors(&[(Level::Restricted, Version::LATEST), (Level::Baseline, Version::minor(0))]);
    apply(&client, &floors).await?;
    for floor in &floors {
        let name = floor.policy.metadata.name.clone().unwrap_or_default();
        wait::until("the policy to be type-checked", wait::SOON, || async {
            let status = api.get(&name).await?.status.context("no status yet")?;
            let checked = status.type_checking.context("not checked yet")?;
            ensure!(checked.expression_warnings.is_none(), "{:#?}", checked.expression_warnings);
            Ok(())
        })
        .await?;
    }
    Ok(())
}
