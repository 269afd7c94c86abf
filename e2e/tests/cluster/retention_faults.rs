//! Retention when something is wrong: what can't be read is kept, and so is everything under a wrong clock.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use rampart::api::RetentionPolicy;
use rampart_e2e::{
    ControlPlane, Operator, Options, faketime, fixtures,
    operator::{Ports, kubeconfig},
    proxy::{Proxy, ReadFault},
    stories, wait,
};
use serde_json::json;

use crate::{
    Env, Tests,
    retention::{left, looked_again, reason, set_up},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("retention::what_can_not_be_read_whole_is_kept", unreadable_is_kept);
    tests.add("retention::clock_suspect", clock_suspect);
}

/// So long that nothing is swept between the marks and what goes wrong then.
const GRACE: Duration = Duration::from_secs(5);

const FLAGS: [&str; 2] = ["--retention-minimum-grace=1s", "--retention-interval=2s"];

async fn unreadable_is_kept(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let (client, ports) = (plane.client(), Ports::claim()?);
    fixtures::install(&client, &ports.webhook_url()).await?;
    let proxy = Proxy::start(&plane).await?;
    let kubeconfig = kubeconfig(&plane, proxy.url()).await?;
    let operator = Operator::start(plane.dir(), &kubeconfig, ports, &FLAGS)?;
    operator.ready().await?;
    for (nth, fault) in ReadFault::ALL.into_iter().enumerate() {
        let namespace = format!("unreadable-{nth}");
        fixtures::namespace(&client, &namespace, json!({"rampart.dev/retention": "allowed"})).await?;
        let maps = set_up(&client, &namespace, 4, 8).await?;
        let all = left(&maps).await?.len();
        let failed = proxy.failed_reads();
        proxy.fail_reads(Some((fault, "configmaps")));
        let mut policy = stories::retention_policy(&namespace, "Enforce");
        policy["spec"]["safety"]["gracePeriod"] = json!(format!("{}s", GRACE.as_secs()));
        fixtures::apply(&client, &policy).await?;
        degraded(&client, &namespace).await.with_context(|| format!("{fault:?}\n{}", operator.log_tail()))?;
        ensure!(proxy.failed_reads() > failed && marks(&maps).await? == 0, "{fault:?}: something was marked");
        ensure!(left(&maps).await?.len() == all, "{fault:?}: something went");
        // It begins between mark and sweep.
        proxy.fail_reads(None);
        wait::until("the marks", wait::SOON, || async { Ok(ensure!(marks(&maps).await? == 4)) }).await?;
        let marked = Instant::now();
        proxy.fail_reads(Some((fault, "configmaps")));
        wait::until("the grace period to be over", wait::SOON, || async { Ok(ensure!(marked.elapsed() > GRACE)) })
            .await?;
        let failed = proxy.failed_reads();
        wait::until("a try after it", wait::SOON, || async { Ok(ensure!(proxy.failed_reads() > failed)) }).await?;
        degraded(&client, &namespace).await?;
        ensure!(left(&maps).await?.len() == all, "{fault:?}: something went");
        proxy.fail_reads(None);
        let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
        // Not only after the pause of so many failures.
        looked_again(&policies).await?;
        wait::until("the four to go", wait::SOON, || async { Ok(ensure!(left(&maps).await?.len() == 8)) }).await?;
        // It reads no more while the next fails.
        policies.delete("exports", &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn marks(maps: &Api<ConfigMap>) -> Result<usize> {
    let all = maps.list(&kube::api::ListParams::default()).await?;
    let mark = "rampart.dev/retention-mark";
    Ok(all.iter().filter(|map| map.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(mark))).count())
}

async fn degraded(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until("Degraded", wait::SOON, || async {
        let live = serde_json::to_value(api.get("exports").await?)?;
        let found = stories::condition(&live, "Degraded").unwrap_or_default();
        ensure!(found["status"] == "True", "Degraded is {found}");
        Ok(())
    })
    .await
}

async fn clock_suspect(_: Env) -> Result<()> {
    let Some(library) = faketime::library() else { return Ok(()) };
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let (client, ports) = (plane.client(), Ports::claim()?);
    fixtures::install(&client, &ports.webhook_url()).await?;
    let kubeconfig = kubeconfig(&plane, plane.server()).await?;
    let clock = library.clock(plane.dir(), "+400d")?;
    // The webhook has a clock of its own: certificates of a year from now would be refused.
    let webhook = Operator::start_part("webhook", plane.dir(), &kubeconfig, ports, &[])?;
    webhook.ready().await?;
    let operator =
        Operator::start_with("controller", plane.dir(), &kubeconfig, Ports::claim()?, &FLAGS, &clock.environment())?;
    operator.ready().await?;
    // Old by either clock, and by the wrong one alone; both would go.
    let maps = namespace_of(&client, "wrong").await?;
    for (offset, told) in [("+400d", "ahead of"), ("-400d", "behind")] {
        clock.set(offset)?;
        let message = reason(&client, "wrong", "ClockSuspect", "ClockSuspect").await?;
        let message = if message.contains(told) { message } else { again(&client, told).await? };
        ensure!(message.contains("nothing is marked or deleted"), "{message}");
        ensure!((left(&maps).await?.len(), marks(&maps).await?) == (6, 0), "{offset}: something was marked or went");
    }
    // Right again: what is old goes, and no more.
    clock.set("+0s")?;
    wait::until("the two to go", wait::SOON, || async { Ok(ensure!(left(&maps).await?.len() == 4)) }).await?;
    // In the middle of a grace period.
    let api: Api<RetentionPolicy> = Api::namespaced(client.clone(), "wrong");
    let older = json!({"spec": {"maxAge": "1s"}});
    clock.set("+400d")?;
    api.patch("exports", &PatchParams::default(), &Patch::Merge(&older)).await?;
    again(&client, "ahead of").await?;
    ensure!(left(&maps).await?.len() == 4, "something went");
    operator.stop().await?;
    Ok(())
}

async fn namespace_of(client: &Client, namespace: &str) -> Result<Api<ConfigMap>> {
    fixtures::namespace(client, namespace, json!({"rampart.dev/retention": "allowed"})).await?;
    let maps = set_up(client, namespace, 2, 4).await?;
    fixtures::apply(client, &stories::retention_policy(namespace, "Enforce")).await?;
    Ok(maps)
}

/// Waits until the condition says which way the clock is wrong.
async fn again(client: &Client, told: &str) -> Result<String> {
    wait::until(&format!("the clock to be {told} the API server's"), wait::SOON, || async {
        let message = reason(client, "wrong", "ClockSuspect", "ClockSuspect").await?;
        ensure!(message.contains(told), "{message}");
        Ok(message)
    })
    .await
}
