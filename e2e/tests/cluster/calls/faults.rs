//! Consumers call while the operator is killed, contended for, given a wrong clock, refused its writes, and restored.

use std::{collections::BTreeMap, future::Future, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::{batch::v1::Job, coordination::v1::Lease, core::v1::Secret};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::api::{
    ApiKeyStatus, KeyRecord,
    condition::{Type, is_true},
};
use rampart_e2e::{Operator, faketime, fixtures, operator::Ports, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{
    Place, Stage, Story,
    ends::{revoke, version_keys},
    key,
};
use crate::{Env, Tests, keys::status};

/// The longest first.
pub(crate) fn rough_tests(tests: &mut Tests) {
    tests.add("calls::killed_after_every_write_refuse_none", killed_after_every_write);
}

pub(crate) fn calm_tests(tests: &mut Tests) {
    tests.add("calls::every_fifth_write_refused_refuse_none", every_fifth_write_refused);
    tests.add("calls::a_restore_without_statuses_refuses_none", restored);
    tests.add("calls::contending_replicas_refuse_none", contending_replicas);
    tests.add("calls::jumps_of_the_clock_refuse_none", jumps_of_the_clock);
}

/// More writes than a rotation makes.
const MOST_WRITES: usize = 19;

async fn killed_after_every_write(env: Env) -> Result<()> {
    let (mut story, mut operator) = Story::begin(&env, Place::Rough).await?;
    let stage = story.stage;
    let mut kills = 0;
    for after in 1..=MOST_WRITES {
        stage.proxy.kill_after(after, operator.pid());
        let n = story.request().await?;
        let was_killed = tokio::select! {
            biased;
            () = stage.proxy.killed() => true,
            done = story.done(n) => {
                done?;
                // The last write is seen before the proxy hears that it was made: from here on it kills nobody.
                stage.proxy.clear();
                stage.proxy.killed().now_or_never().is_some()
            }
        };
        if !was_killed {
            break;
        }
        operator = stage.controllers(operator.kill()?, &[], &[])?;
        story.done(n).await.with_context(|| format!("killed after write {after}: {:?}", stage.proxy.writes()))?;
        kills += 1;
    }
    ensure!((6..MOST_WRITES).contains(&kills), "it was killed {kills} times");
    stage.proxy.clear();
    let (client, namespace) = (story.client.clone(), story.namespace.clone());
    let _turn = story.finish(&format!("killed after each of {kills} writes")).await?;
    // All these versions live, and end at once.
    revoke(stage, &client, &namespace, &version_keys(&client, &namespace).await?).await?;
    operator.stop().await?;
    Ok(())
}

/// Two replicas, by their names in the election.
struct Replicas<'a> {
    stage: &'a Stage,
    running: BTreeMap<String, Operator>,
}

const NAMES: [&str; 2] = ["replica-a", "replica-b"];

impl Replicas<'_> {
    fn start(&mut self, name: &str, ports: Ports) -> Result<()> {
        let operator = self.stage.controllers(ports, &["--lease-duration=3s"], &[("RAMPART_IDENTITY", name)])?;
        self.running.insert(name.into(), operator);
        Ok(())
    }

    /// Waits for something, and starts replicas again that end by themselves, as kubelet does: on a busy machine a
    /// leader may be late with its Lease.
    async fn tended<T>(&mut self, wanted: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(wanted);
        loop {
            tokio::select! {
                got = &mut wanted => return got,
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    for name in NAMES {
                        if self.running.get_mut(name).map(Operator::ended).transpose()?.flatten().is_some() {
                            let ports = self.take(name)?.kill()?;
                            self.start(name, ports)?;
                        }
                    }
                }
            }
        }
    }

    /// Who leads, other than somebody.
    async fn leader(&mut self, other_than: &str) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.stage.plane.client(), "rampart-system");
        let known: Vec<String> = self.running.keys().cloned().collect();
        self.tended(wait::until("another leader", wait::SOON, || async {
            let holder = leases.get("rampart").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            ensure!(holder != other_than && known.contains(&holder), "{holder:?} leads");
            Ok(holder)
        }))
        .await
    }

    fn take(&mut self, name: &str) -> Result<Operator> {
        self.running.remove(name).context("it runs")
    }
}

async fn contending_replicas(env: Env) -> Result<()> {
    let (mut story, alone) = Story::begin(&env, Place::Rough).await?;
    alone.stop().await?;
    let stage = story.stage;
    let mut replicas = Replicas { stage, running: BTreeMap::new() };
    for name in NAMES {
        replicas.start(name, Ports::claim()?)?;
    }
    for after in [2, 4] {
        // Killed in the middle of a rotation: the other one goes on with it.
        let leader = replicas.leader("").await?;
        let operator = replicas.take(&leader)?;
        stage.proxy.kill_after(after, operator.pid());
        let n = story.request().await?;
        replicas.tended(killed(stage)).await?;
        let ports = operator.kill()?;
        replicas.leader(&leader).await?;
        replicas.start(&leader, ports)?;
        replicas.tended(story.done(n)).await?;

        // Stopped in the middle of one, overtaken, and awake again in the middle of the next.
        let leader = replicas.leader("").await?;
        let mut operator = replicas.take(&leader)?;
        stage.proxy.stop_after(after, operator.pid());
        let n = story.request().await?;
        replicas.tended(killed(stage)).await?;
        replicas.leader(&leader).await?;
        replicas.tended(story.done(n)).await?;
        let n = story.request().await?;
        kill_process(pid(&operator)?, Signal::CONT)?;
        replicas.tended(story.done(n)).await?;
        let ended = std::cell::RefCell::new(&mut operator);
        wait::until("who was overtaken to end", wait::SOON, || async {
            ended.borrow_mut().ended()?.context("it runs")
        })
        .await?;
        replicas.start(&leader, operator.kill()?)?;
    }
    drop(replicas);
    story.finish("two replicas, the leader killed twice and stopped twice").await.map(drop)
}

/// Waits until the operator was killed, or stopped.
async fn killed(stage: &Stage) -> Result<()> {
    let writes = || format!("after {:?}", stage.proxy.writes());
    tokio::time::timeout(wait::SOON, stage.proxy.killed()).await.with_context(writes)
}

fn pid(operator: &Operator) -> Result<Pid> {
    i32::try_from(operator.pid()).ok().and_then(Pid::from_raw).context("a pid")
}

async fn every_fifth_write_refused(env: Env) -> Result<()> {
    let (mut story, operator) = Story::begin(&env, Place::Calm).await?;
    story.stage.proxy.refuse_every(5);
    for _ in 0..5 {
        story.rotate().await.with_context(|| operator.log_tail())?;
    }
    let refused = story.stage.proxy.refused();
    story.stage.proxy.clear();
    ensure!(refused >= 5, "{refused} writes were refused");
    operator.stop().await?;
    story.finish(&format!("every fifth write refused, {refused} of them")).await.map(drop)
}

async fn restored(env: Env) -> Result<()> {
    let (mut story, mut operator) = Story::begin(&env, Place::Calm).await?;
    let stage = story.stage;
    story.rotate().await?;
    // At rest, and after the first writes of a rotation: the number, the Secret, the record.
    for after in [None, Some(1), Some(2), Some(3)] {
        let before = story.handed_out().await?;
        let ports = match after {
            None => operator.kill()?,
            Some(after) => {
                stage.proxy.kill_after(after, operator.pid());
                story.request().await?;
                killed(stage).await?;
                operator.kill()?
            }
        };
        restore(&story).await?;
        ensure!(story.handed_out().await? == before);
        operator = stage.controllers(ports, &[], &[])?;
        let n = status_of(&story, &before).await?;
        if after.is_some() {
            // It was asked for in the spec, which came back.
            story.done(n + 1).await.with_context(|| format!("restored after write {after:?}"))?;
        } else {
            ensure!(story.handed_out().await? == before, "a restore rotated the key");
        }
        story.rotate().await?;
    }
    operator.stop().await?;
    story.finish("restored four times").await.map(drop)
}

/// What a backup tool leaves: the ApiKey made anew without its status, and no owner references anywhere.
async fn restore(story: &Story<'_>) -> Result<()> {
    let (client, namespace) = (&story.client, &story.namespace);
    let live = story.keys().get("orders").await?;
    story.keys().delete("orders", &DeleteParams::default()).await?;
    wait::until("the ApiKey to be gone", wait::SOON, || async {
        Ok(ensure!(story.keys().get_opt("orders").await?.is_none()))
    })
    .await?;
    orphan(&Api::<Secret>::namespaced(client.clone(), namespace)).await?;
    orphan(&Api::<Job>::namespaced(client.clone(), namespace)).await?;
    orphan(&Api::<KeyRecord>::namespaced(client.clone(), "rampart-keys")).await?;
    let mut key = key(namespace);
    key["spec"] = serde_json::to_value(&live.spec)?;
    fixtures::apply(client, &key).await?;
    Ok(())
}

async fn orphan<K>(api: &Api<K>) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let nobody = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    for object in api.list(&ListParams::default()).await?.items {
        if !object.owner_references().is_empty() {
            api.patch(&object.name_any(), &PatchParams::default(), &nobody).await?;
        }
    }
    Ok(())
}

/// Waits until the status knows the version again that consumers have.
async fn status_of(story: &Story<'_>, key: &str) -> Result<i64> {
    let id = key.rsplit('_').nth(1).unwrap_or_default().to_owned();
    let keys = story.keys();
    wait::until("the status to be rebuilt", wait::SOON, || async {
        let status = keys.get("orders").await?.status.unwrap_or_default();
        let known = status.versions.iter().find(|version| version.id == id);
        known.map(|version| version.n).with_context(|| format!("the status is {status:?}"))
    })
    .await
}

async fn jumps_of_the_clock(env: Env) -> Result<()> {
    let Some(library) = faketime::library() else { return Ok(()) };
    let (mut story, operator) = Story::begin(&env, Place::Rough).await?;
    let stage = story.stage;
    let clock = library.clock(stage.plane.dir(), "+0s")?;
    let operator = stage.controllers(operator.kill()?, &[], &clock.environment())?;
    operator.ready().await?;
    story.rotate().await?;
    clock.set("+24h")?;
    story.rotate().await?;
    stays_for_the_overlap(&story).await?;
    // An hour back in the middle of a rotation, whose version is then older than the request for it.
    let n = stopped_in_a_rotation(&mut story, &operator).await?;
    clock.set("+23h")?;
    kill_process(pid(&operator)?, Signal::CONT)?;
    story.done(n).await?;
    let after = status(&story.client, &story.namespace, "it to be done", |it| it.current_version == Some(n)).await?;
    ensure!(after.next_rotation_time.is_none(), "it is to be rotated twice for one request: {after:?}");
    stays_for_the_overlap(&story).await?;
    // Right again, and a request of somebody whose clock is not.
    clock.set("+0s")?;
    let ahead = fixtures::this_second().checked_add(SignedDuration::from_hours(23))?;
    let n = story.request_for(ahead).await?;
    let status =
        status(&story.client, &story.namespace, "the request to be seen", |it| it.next_rotation_time.is_some());
    ensure!(status.await?.current_version == Some(n - 1), "a rotation came before its time");
    clock.set("+25h")?;
    look(&story, "a day on").await?;
    story.done(n).await?;
    story.rotate().await?;
    // Beyond the end of all that were replaced, and of the one in use: by the operator's clock alone.
    let before = version_keys(&story.client, &story.namespace).await?;
    clock.set("+800h")?;
    look(&story, "a month on").await?;
    let suspect = |status: &ApiKeyStatus| is_true(&status.conditions, Type::ClockSuspect);
    self::status(&story.client, &story.namespace, "the clock to be found out", suspect).await?;
    ensure!(version_keys(&story.client, &story.namespace).await? == before, "a version ended");
    clock.set("+0s")?;
    look(&story, "now").await?;
    self::status(&story.client, &story.namespace, "it to be trusted again", |it| !suspect(it)).await?;
    operator.stop().await?;
    story.finish("a clock that jumped a day on and an hour back").await.map(drop)
}

/// The version that was just replaced ends after the overlap, by a clock that is right.
async fn stays_for_the_overlap(story: &Story<'_>) -> Result<()> {
    let status = story.keys().get("orders").await?.status.unwrap_or_default();
    let replaced = status.versions.iter().filter(|version| version.replaced_by.is_some()).max_by_key(|it| it.n);
    let end = replaced.and_then(|version| version.destroy_at.as_ref()).context("a replaced version that ends")?.0;
    let late = end.duration_since(fixtures::this_second()) - SignedDuration::from_hours(240);
    Ok(ensure!(late.abs() < SignedDuration::from_mins(30), "it ends {late:?} too late"))
}

/// Has the key looked at again.
async fn look(story: &Story<'_>, when: &str) -> Result<()> {
    let look = json!({"metadata": {"annotations": {"rampart.dev/reconcile-requested-at": when}}});
    story.keys().patch("orders", &PatchParams::default(), &Patch::Merge(look)).await?;
    Ok(())
}

/// Asks for a rotation, and stops the operator once it has written down which version comes, before it makes it.
async fn stopped_in_a_rotation(story: &mut Story<'_>, operator: &Operator) -> Result<i64> {
    let stage = story.stage;
    stage.proxy.stop_after(1, operator.pid());
    let n = story.request().await?;
    loop {
        killed(stage).await?;
        if story.keys().get("orders").await?.status.unwrap_or_default().next_version == Some(n) {
            return Ok(n);
        }
        // A write of the rotation before, which may come later than its end is seen.
        stage.proxy.stop_after(1, operator.pid());
        kill_process(pid(operator)?, Signal::CONT)?;
    }
}
