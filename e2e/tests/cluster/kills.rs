//! The operator is killed after each of its writes, before it hears that the write was made; every run
//! ends as the undisturbed one does.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::{
    api::{ApiKey, KeyRecord, Outcome, RecordState, RetentionPolicy, RetentionReport, SecurityPolicy, VersionState},
    retention::{
        chain::verify,
        evidence::{outcomes, to_approve},
    },
};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    operator::{Ports, USER, kubeconfig},
    proxy::Proxy,
    stories, wait,
};
use serde_json::{Value, json};

use crate::{Env, Tests, imported, keys::text};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("kills::after_each_write_of_each_story", after_each_write);
}

/// More writes than any story makes: an end for a run that never settles.
const MOST_WRITES: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    Network,
    Key,
    /// Of another system.
    Token,
    Retention,
    Approval,
}

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy)]
enum Fault<'a> {
    None,
    /// The operator is killed after so many of its writes.
    KilledAfter(usize),
    /// One write in so many is refused; what it comes to in the end.
    RefusedEvery(usize, &'a Value),
}

/// Pauses double from visit to visit while each has a write refused.
const BACKED_OFF: Duration = Duration::from_mins(3);

struct Stage {
    plane: ControlPlane,
    proxy: Proxy,
    kubeconfig: PathBuf,
}

async fn after_each_write(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let ports = Ports::claim()?;
    fixtures::install(&plane.client(), &ports.webhook_url()).await?;
    let proxy = Proxy::start(&plane).await?;
    let kubeconfig = kubeconfig(&plane, proxy.url()).await?;
    let stage = Stage { plane, proxy, kubeconfig };
    // The first start makes what all runs share: the CA, the adoption key, the Lease.
    let mut operator = stage.start(ports)?;
    operator.ready().await?;

    for story in [Story::Network, Story::Key, Story::Token, Story::Retention, Story::Approval] {
        let (reference, next) = stage.run(story, operator, Fault::None).await?;
        operator = next;
        let reference = reference.context("nobody was to be killed")?;
        let (ended, next) = stage.run(story, operator, Fault::RefusedEvery(3, &reference)).await?;
        operator = next;
        ended.context("no write was refused")?;
        let mut kills = 0;
        for after in 1..=MOST_WRITES {
            let (ended, next) = stage.run(story, operator, Fault::KilledAfter(after)).await?;
            operator = next;
            // Fewer writes than that: every one of them has had its turn.
            let Some(ended) = ended else { break };
            kills += 1;
            ensure!(
                ended == reference,
                "{story:?}, killed after write {after}:\n{ended:#}\nundisturbed:\n{reference:#}"
            );
        }
        println!("{story:?}: killed after each of {kills} writes");
        ensure!((6..MOST_WRITES).contains(&kills), "{story:?} was killed {kills} times");
    }
    Ok(())
}

impl Stage {
    fn start(&self, ports: Ports) -> Result<Operator> {
        let flags = ["--retention-minimum-grace=1s", "--retention-interval=2s"];
        Operator::start(self.plane.dir(), &self.kubeconfig, ports, &flags)
    }

    /// Tells a story in a namespace of its own. The end state, or `None` when it was over before the fault; and the
    /// operator that runs now.
    async fn run(&self, story: Story, operator: Operator, fault: Fault<'_>) -> Result<(Option<Value>, Operator)> {
        let client = self.plane.client();
        let infix = match fault {
            Fault::None => "quiet".into(),
            Fault::KilledAfter(after) => after.to_string(),
            Fault::RefusedEvery(nth, _) => format!("every-{nth}"),
        };
        let namespace = format!("{story:?}-{infix}").to_lowercase();
        fixtures::namespace(&client, &namespace, json!({"rampart.dev/retention": "allowed"})).await?;
        match fault {
            Fault::None => self.proxy.clear(),
            Fault::KilledAfter(after) => self.proxy.kill_after(after, operator.pid()),
            Fault::RefusedEvery(nth, _) => self.proxy.refuse_every(nth),
        }
        let mut operator = Some(operator);
        let mut killed = false;
        let telling = story.tell(&client, &namespace);
        tokio::pin!(telling);
        loop {
            tokio::select! {
                told = &mut telling => {
                    let writes = self.proxy.writes();
                    told.with_context(|| format!("{story:?}, {fault:?}: {writes:?}"))
                        .with_context(|| operator.as_ref().map(Operator::log_tail).unwrap_or_default())?;
                    break;
                }
                () = self.proxy.killed() => {
                    killed = true;
                    let ports = operator.take().context("an operator")?.kill()?;
                    operator = Some(self.start(ports)?);
                }
            }
        }
        let refused = self.proxy.refused();
        if let Fault::RefusedEvery(_, wanted) = fault {
            // What was refused is tried again, and told as it is then.
            self.proxy.clear();
            wait::until("it to end as if no write had been refused", BACKED_OFF, || async {
                let state = story.state(&client, &namespace).await?;
                Ok(ensure!(state == *wanted, "{state:#}\nundisturbed:\n{wanted:#}"))
            })
            .await
            .with_context(|| format!("{story:?}, {refused} writes refused"))?;
        }
        let state = story.state(&client, &namespace).await?;
        if story == Story::Key {
            self.nothing_was_made_twice(&namespace)?;
        }
        if matches!(story, Story::Retention | Story::Approval) {
            // Else it would be carried out every two seconds for as long as the runs that follow take.
            let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
            policies.delete("exports", &DeleteParams::default()).await?;
        }
        let operator = operator.context("an operator")?;
        let happened = match fault {
            Fault::None => true,
            Fault::KilledAfter(_) => killed,
            Fault::RefusedEvery(..) => refused > 0,
        };
        Ok((happened.then_some(state), operator))
    }

    fn nothing_was_made_twice(&self, namespace: &str) -> Result<()> {
        let mut created: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.plane.audit().writes_of(USER)? {
            let made = event.object_ref;
            if event.verb == "create"
                && made.namespace == namespace
                && ["secrets", "jobs"].contains(&made.resource.as_str())
            {
                // The id in the name of a test Job is another one in each run.
                let parts: Vec<&str> = made.name.split('-').filter(|part| part.len() != 8).collect();
                *created.entry(format!("{} {}", made.resource, parts.join("-"))).or_default() += 1;
            }
        }
        let names: Vec<&str> = created.keys().map(String::as_str).collect();
        let wanted = [
            "jobs orders-v1-test",
            "jobs orders-v2-test",
            "secrets orders-key",
            "secrets orders-v1",
            "secrets orders-v2",
        ];
        ensure!(names == wanted && created.values().all(|count| *count == 1), "made were {created:?}");
        Ok(())
    }
}

/// Applies an object, also while the webhook that must see it is down.
async fn apply(client: &Client, object: &Value) -> Result<()> {
    wait::until("an object to be accepted", wait::SOON, || async { fixtures::apply(client, object).await.map(drop) })
        .await
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> Result<()>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let patch = Patch::Merge(patch);
    wait::until("a change to be accepted", wait::SOON, || async {
        Ok(api.patch(name, &PatchParams::default(), &patch).await.map(drop)?)
    })
    .await
}

impl Story {
    async fn tell(self, client: &Client, namespace: &str) -> Result<()> {
        match self {
            Self::Network => network(client, namespace).await,
            Self::Key => key(client, namespace).await,
            Self::Token => token(client, namespace).await,
            Self::Retention => retention(client, namespace).await,
            Self::Approval => approval(client, namespace).await,
        }
    }

    /// What is left at the end, without what differs from run to run: UIDs, ids, times, keys.
    async fn state(self, client: &Client, namespace: &str) -> Result<Value> {
        match self {
            Self::Network => {
                let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
                let mut specs: Vec<Value> = vec![];
                for policy in policies.list(&ListParams::default()).await? {
                    specs.push(serde_json::to_value(policy.spec)?);
                }
                let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
                Ok(json!({"policies": specs, "conditions": conditions(&serde_json::to_value(api.get("web").await?)?)}))
            }
            Self::Key => key_state(client, namespace).await,
            Self::Token => {
                let mut state = key_state(client, namespace).await?;
                let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
                let used = text(&secrets.get("orders-key").await?, "GITHUB_TOKEN");
                state["consumersHaveTheToken"] = json!(used.as_deref() == Some(imported::SECOND));
                Ok(state)
            }
            Self::Retention | Self::Approval => {
                let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                let left = maps.list(&ListParams::default().labels("data=export")).await?;
                let left: Vec<(String, usize)> =
                    left.iter().map(|map| (map.name_any(), map.annotations().len())).collect();
                let api: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
                let policy = api.get("exports").await?;
                let shown = conditions(&serde_json::to_value(&policy)?);
                let reports: Api<RetentionReport> = Api::namespaced(client.clone(), namespace);
                let reports = reports.list(&ListParams::default()).await?.items;
                let last = policy.status.and_then(|status| status.last_run);
                let verified = verify(&reports, last.as_ref(), jiff::Timestamp::now());
                let verified = verified.map(|it| it.unfinished).map_err(|it| format!("{}: {}", it.report, it.problem));
                let results = reports.iter().flat_map(outcomes).filter_map(|(_, outcome)| outcome);
                // Of a deletion whose answer was lost, the evidence says so.
                let went = results.filter(|it| matches!(it, Outcome::Deleted | Outcome::Gone)).count();
                Ok(json!({"left": left, "conditions": shown, "evidence": verified, "went": went}))
            }
        }
    }
}

fn conditions(object: &Value) -> Vec<Value> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all: Vec<Value> = all.iter().map(|it| json!([it["type"], it["status"], it["reason"]])).collect();
    all.sort_by_key(ToString::to_string);
    all
}

async fn network(client: &Client, namespace: &str) -> Result<()> {
    let deny = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    apply(client, &deny).await?;
    let mut policy = stories::sample_policy();
    policy["metadata"]["namespace"] = json!(namespace);
    apply(client, &policy).await?;
    stories::ready::<SecurityPolicy>(client, namespace, "web").await?;
    let main = stories::rendered(client, namespace, "web").await?;
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    merge(&api, &main.name_any(), json!({"spec": {"egress": [{}]}})).await?;
    wait::until("the edit to be undone", BACKED_OFF, || async {
        Ok(ensure!(api.get(&main.name_any()).await?.spec == main.spec))
    })
    .await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    for (mode, left) in [("Disabled", 1), ("Enforce", 4)] {
        merge(&policies, "web", json!({"spec": {"network": {"mode": mode}}})).await?;
        stories::ready::<SecurityPolicy>(client, namespace, "web").await?;
        wait::until(&format!("mode {mode}"), BACKED_OFF, || async {
            let found = api.list(&ListParams::default()).await?.items.len();
            Ok(ensure!(found == left, "{found} NetworkPolicies"))
        })
        .await?;
    }
    Ok(())
}

async fn key(client: &Client, namespace: &str) -> Result<()> {
    apply(client, &stories::api_key(namespace)).await?;
    stories::ready::<ApiKey>(client, namespace, "orders").await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    let now = fixtures::this_second();
    merge(&keys, "orders", json!({"spec": {"rotation": {"requestedAt": now.to_string()}}})).await?;
    wait::until("version 2 to be current and nothing to be under way", BACKED_OFF, || async {
        let state = key_state(client, namespace).await?;
        let records = json!([[1, "Deprecated"], [2, "Active"]]);
        ensure!(state["records"] == records && state["rotating"] == false && state["current"] == 2, "{state:#}");
        Ok(())
    })
    .await
}

/// A token of another system, and the one that its owner supplies in its place.
async fn token(client: &Client, namespace: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secrets = &secrets;
    let supply = |token| {
        wait::until("a token to be accepted", BACKED_OFF, move || async move {
            imported::supply(secrets, token).await.map(drop)
        })
    };
    supply(imported::FIRST).await?;
    apply(client, &imported::key(namespace)).await?;
    stories::ready::<ApiKey>(client, namespace, "orders").await?;
    supply(imported::SECOND).await?;
    wait::until("the successor to be in use", BACKED_OFF, || async {
        let state = Story::Token.state(client, namespace).await?;
        let in_use = state["consumersHaveTheToken"] == true && state["current"] == 2 && state["rotating"] == false;
        Ok(ensure!(in_use, "{state:#}"))
    })
    .await
}

async fn key_state(client: &Client, namespace: &str) -> Result<Value> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    let live = keys.get("orders").await?;
    let shown = conditions(&serde_json::to_value(&live)?);
    let status = live.status.unwrap_or_default();
    let versions: Vec<(i64, VersionState)> = status.versions.iter().map(|version| (version.n, version.state)).collect();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secrets = secrets.list(&ListParams::default()).await?.items;
    let names: Vec<String> = secrets.iter().map(ResourceExt::name_any).collect();
    let entry = |secret: &str, entry: &str| {
        let secret = secrets.iter().find(|it| it.name_any() == secret)?;
        secret.data.as_ref()?.get(entry).cloned()
    };
    let records: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    let records = records.list(&ListParams::default()).await?;
    let of = records.iter().filter(|record| record.spec.api_key.namespace == namespace);
    let mut records: Vec<(i64, RecordState)> =
        of.map(|record| (record.spec.api_key.version, record.spec.state)).collect();
    records.sort_by_key(|(version, _)| *version);
    Ok(json!({
        "versions": versions, "secrets": names, "records": records, "conditions": shown,
        "current": status.current_version, "rotating": status.next_version.is_some(),
        "consumersHaveTheNewKey": entry("orders-key", "API_KEY") == entry("orders-v2", "key"),
        "andTheOldOne": entry("orders-key", "API_KEY_PREVIOUS") == entry("orders-v1", "key"),
    }))
}

async fn retention(client: &Client, namespace: &str) -> Result<()> {
    for object in stories::retention_fixtures(namespace, 4, 6)? {
        apply(client, &object).await?;
    }
    let mut policy = stories::retention_policy(namespace, "Enforce");
    // The next batch begins while the results of the one before are written.
    policy["spec"]["safety"]["batchSize"] = json!(2);
    apply(client, &policy).await?;
    gone(client, namespace).await
}

/// More than the caps allow, until somebody approves it.
async fn approval(client: &Client, namespace: &str) -> Result<()> {
    for object in stories::retention_fixtures(namespace, 4, 6)? {
        apply(client, &object).await?;
    }
    let mut policy = stories::retention_policy(namespace, "Enforce");
    policy["spec"]["safety"]["maxDeletionsPerRun"] = json!(2);
    apply(client, &policy).await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
    let reports: Api<RetentionReport> = Api::namespaced(client.clone(), namespace);
    wait::until("the plan to be approved", BACKED_OFF, || async {
        let plan = policies.get("exports").await?.status.and_then(|status| status.plan).unwrap_or_default();
        let report = reports.get(&plan.report.context("it has no report")?).await?;
        let approval = json!({"spec": {"approval": to_approve(&report.spec.record)}});
        Ok(reports.patch(&report.name_any(), &PatchParams::default(), &Patch::Merge(&approval)).await?)
    })
    .await?;
    gone(client, namespace).await
}

async fn gone(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until("the old to go", BACKED_OFF, || async {
        let left = maps.list(&ListParams::default().labels("data=export")).await?.items.len();
        ensure!(left == 6, "{left} are left");
        let plan = policies.get("exports").await?.status.and_then(|status| status.plan).unwrap_or_default();
        ensure!((plan.listed, plan.candidates) == (6, 0), "the plan is {plan:?}");
        Ok(())
    })
    .await
}
