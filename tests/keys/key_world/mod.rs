//! A model of the cluster that does what the rotation machine says, and watches over what must always hold.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::struct_excessive_bools,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rampart::{
    api::{ApiKey, RecordState, RestartTarget, VersionState},
    keys::{
        Caps, ConsumerSeen, Fault, JobSeen, JobStep, KeyJob, Made, Observed, RecordSeen, SecretSeen, Spec, Step, Token,
        VerifierSeen, Workload, WorkloadSeen, decide,
    },
};
use serde_json::{Value, json};

pub const HOUR: i64 = 3600;

/// A verifier: what it last read.
#[derive(Default)]
pub struct Verifier {
    pub revision: u64,
    admits: BTreeSet<String>,
}

/// A cluster that does what a step says.
pub struct World {
    pub seen: Observed,
    pub now: i64,
    /// The ApiKey's spec, as JSON.
    pub spec: Value,
    pub made: usize,
    pub test_fails: bool,
    pub hooks_fail: bool,
    /// Jobs run until somebody ends them.
    pub jobs_hang: bool,
    pub jobs: BTreeMap<String, JobSeen>,
    pub started: Vec<KeyJob>,
    pub verifiers: Vec<Verifier>,
    /// Verifiers read every change at once.
    pub verifiers_follow: bool,
    pub last_used: BTreeMap<String, Timestamp>,
    pub workload: Option<Workload>,
    pub rollouts_hang: bool,
    pub restarts: BTreeSet<String>,
    /// Secrets that were deleted, for those who put them back.
    pub graveyard: Vec<(i64, SecretSeen)>,
    pub steps: Vec<String>,
    /// Nobody knows any more which of several versions was handed out.
    pub status_lost: bool,
    pub dead: BTreeSet<String>,
    pub revision: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::of(&json!({"rotation": {"interval": "24h", "overlap": "6h"}}))
    }
}

impl World {
    /// A world in which an ApiKey has these fields besides the usual ones.
    pub fn of(more: &Value) -> Self {
        let mut spec = json!({"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                              "ttl": "100h", "secret": {"name": "s"}});
        let fields = spec.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        Self {
            seen: Observed::default(),
            now: 0,
            spec,
            made: 0,
            test_fails: false,
            hooks_fail: false,
            jobs_hang: false,
            jobs: BTreeMap::new(),
            started: vec![],
            verifiers: vec![],
            verifiers_follow: true,
            last_used: BTreeMap::new(),
            workload: None,
            rollouts_hang: false,
            restarts: BTreeSet::new(),
            graveyard: vec![],
            steps: vec![],
            status_lost: false,
            dead: BTreeSet::new(),
            revision: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.now).unwrap()
    }

    pub fn parsed(&self) -> Spec {
        let key: ApiKey = serde_json::from_value(json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
            "spec": self.spec,
        }))
        .unwrap();
        Spec::parse(&key, &Caps::default()).unwrap()
    }

    /// The Secrets of all versions are gone.
    pub fn lose_secrets(&mut self) {
        let lost = std::mem::take(&mut self.seen.secrets);
        self.graveyard.extend(lost);
    }

    /// Somebody makes one of them again, where none of its name is.
    pub fn put_back(&mut self, which: usize) {
        if let Some((n, secret)) = self.graveyard.get(which).cloned() {
            self.seen.secrets.entry(n).or_insert(secret);
        }
    }

    /// Asks for a rotation now.
    pub fn request(&mut self) {
        self.spec["rotation"]["requestedAt"] = self.now().to_string().into();
    }

    pub fn is_imported(&self) -> bool {
        self.spec.get("source").is_some_and(|source| source.get("imported").is_some())
    }

    /// The user puts this token into their Secret.
    pub fn supply(&mut self, token: &str) {
        self.supply_until(token, None);
    }

    /// And says when the system that issued it ends it: so many seconds from now.
    pub fn supply_until(&mut self, token: &str, ends_in: Option<i64>) {
        let (id, digest) = (format!("id-{token}"), format!("digest-{token}"));
        let ends = ends_in.map(|it| self.now() + SignedDuration::from_secs(it));
        self.seen.supplied = Some(Ok(Token { id, digest, ends }));
    }

    pub fn is_revoked(&self) -> bool {
        self.spec.get("revocation").is_some()
    }

    /// Verifiers read all records as they are.
    pub fn sync_verifiers(&mut self) {
        let live =
            |record: &&RecordSeen| matches!(record.standing.state, RecordState::Active | RecordState::Deprecated);
        let admits: BTreeSet<String> =
            self.seen.records.values().filter(live).filter_map(|record| record.digest.clone()).collect();
        for verifier in &mut self.verifiers {
            *verifier = Verifier { revision: self.revision, admits: admits.clone() };
        }
    }

    pub fn add_verifier(&mut self) {
        self.verifiers.push(Verifier::default());
        let mut others = std::mem::take(&mut self.verifiers);
        // It reads everything before it reports.
        self.verifiers = others.pop().into_iter().collect();
        self.sync_verifiers();
        others.append(&mut self.verifiers);
        self.verifiers = others;
    }

    pub fn versions(&self, state: VersionState) -> Vec<i64> {
        self.seen.status.versions.iter().filter(|version| version.state == state).map(|version| version.n).collect()
    }

    pub fn current(&self) -> i64 {
        self.versions(VersionState::Current)[0]
    }

    /// Steps until the machine rests, or `most` of them.
    pub fn settle(&mut self, most: usize) -> bool {
        (0..most).any(|_| !self.step())
    }

    /// Steps until it rests, and tells what was done.
    pub fn told(&mut self) -> Vec<String> {
        self.steps.clear();
        assert!(self.settle(60), "no rest: {:#?}", self.steps);
        self.steps.iter().map(|step| step.split([' ', '(']).next().unwrap().to_owned()).collect()
    }

    /// What a look at the user's Secret tells: a token that has ended is refused, unless status tells of it.
    fn look_at_supply(&mut self) {
        let Some(Ok(token)) = &self.seen.supplied else { return };
        let status = &self.seen.status;
        let pending = status.next_version.and_then(|n| self.seen.secrets.get(&n)).map(|secret| &secret.id);
        let known = status.versions.iter().any(|version| version.id == token.id) || pending == Some(&token.id);
        if self.dead.contains(&token.id) && !known {
            self.seen.supplied = Some(Err(self.parsed().imported.unwrap().problem(Fault::Ended)));
        }
    }

    /// What the machine decides, without its being done.
    pub fn decided(&mut self) -> Step {
        self.look_at_supply();
        if self.verifiers_follow {
            self.sync_verifiers();
        }
        self.seen.verifiers = self
            .verifiers
            .iter()
            .map(|it| VerifierSeen {
                revision: it.revision.to_string(),
                started_at: Timestamp::from_second(1_700_000_000).unwrap(),
            })
            .collect();
        self.seen.last_used = self.last_used.clone();
        self.seen.jobs = self.jobs.clone();
        let target: RestartTarget = serde_json::from_value(json!({"kind": "Deployment", "name": "web"})).unwrap();
        self.seen.workloads = self
            .workload
            .iter()
            .map(|it| WorkloadSeen { target: target.clone(), workload: Some(it.clone()), forbidden: false })
            .collect();
        decide(&self.parsed(), &self.seen, self.now())
    }

    fn write(&mut self) -> String {
        self.revision += 1;
        self.revision.to_string()
    }

    /// One step; whether there was one.
    pub fn step(&mut self) -> bool {
        let step = self.decided();
        self.steps.push(format!("{step:?}"));
        if step.is_wait() {
            return false;
        }
        match step {
            Step::Remember(status) => {
                assert_ne!(*status, self.seen.status, "a status that says nothing new: {:?}", self.steps.last());
                self.take_in(Made::Status(*status));
            }
            Step::CreateSecret { n } => {
                assert!(!self.is_revoked(), "a revoked key is issued");
                self.made += 1;
                let (mut id, mut digest) = (format!("id{}", self.made), format!("digest{}", self.made));
                if self.is_imported() {
                    let Some(Ok(token)) = &self.seen.supplied else { panic!("a token is taken that is not there") };
                    assert!(!self.dead.contains(&token.id), "a dead token comes back");
                    (id, digest) = (token.id.clone(), token.digest.clone());
                }
                assert!(!self.seen.secrets.contains_key(&n), "version {n} was made twice");
                self.take_in(Made::Secret(n, SecretSeen { id, created_at: self.now(), digest, proven: true }));
            }
            Step::CreateRecord { n, standing } => {
                assert!(!self.is_imported(), "verifiers are told of a token of another system");
                let secret = self.seen.secrets[&n].clone();
                let record = RecordSeen { standing: *standing, digest: Some(secret.digest), revision: self.write() };
                assert!(!self.dead.contains(&secret.id), "a dead id comes back");
                assert!(!self.seen.records.contains_key(&secret.id));
                self.take_in(Made::Record(secret.id, record));
            }
            Step::StartJob(job) => self.start(job),
            Step::WriteConsumer { current, previous } => self.write_consumer(current, previous),
            Step::Restart { version, .. } => {
                // One of before may be all that was left, and is in use again.
                assert!(self.restarts.insert(version.clone()) || self.status_lost, "restarted twice for {version}");
                let at = self.now();
                let workload = self.workload.as_mut().unwrap();
                workload.version = Some(version);
                workload.restarted_at = Some(at);
                workload.waits_for = self.rollouts_hang.then(|| "a pod".to_owned());
            }
            Step::UpdateRecord { id, standing } => {
                let revision = self.write();
                let record = self.seen.records.get_mut(&id).unwrap();
                assert!(!record.standing.state.is_tombstone(), "a tombstone was touched");
                assert!(!standing.state.is_tombstone());
                (record.standing, record.revision) = (*standing, revision);
            }
            Step::EndRecord { id, state, .. } => self.end_record(id, state),
            Step::DeleteSecret { n } => {
                let secret = self.seen.secrets.remove(&n).unwrap();
                self.graveyard.push((n, secret));
            }
            Step::Refuse(refusal) => panic!("{refusal}"),
            Step::AwaitVerifiers { .. } | Step::AwaitJob(_) | Step::Stuck { .. } | Step::Rest { .. } => {}
        }
        self.check();
        true
    }

    /// As the controller takes it in.
    fn take_in(&mut self, made: Made) {
        self.seen = std::mem::take(&mut self.seen).with(made);
    }

    fn start(&mut self, job: KeyJob) {
        let fails = if job.step == JobStep::Test { self.test_fails } else { self.hooks_fail };
        let result = match (self.jobs_hang, fails) {
            (true, _) => JobSeen::Running,
            (false, true) => JobSeen::Failed,
            (false, false) => JobSeen::Succeeded,
        };
        assert!(self.jobs.insert(job.name(&self.parsed()), result).is_none(), "a Job was made twice: {job:?}");
        self.started.push(job);
    }

    fn end_record(&mut self, id: String, state: RecordState) {
        assert!(state.is_tombstone());
        let revision = self.write();
        let any = self.seen.records.values().next().cloned();
        let record = self.seen.records.entry(id.clone()).or_insert_with(|| {
            any.unwrap_or_else(|| RecordSeen {
                standing: rampart::keys::Standing {
                    state,
                    replaced_by: None,
                    destroy_at: None,
                    expires_at: Timestamp::UNIX_EPOCH,
                    grant: rampart::keys::Grant::nothing(),
                    retained: false,
                },
                digest: None,
                revision: String::new(),
            })
        });
        assert!(self.dead.insert(id), "a tombstone was touched");
        (record.standing.state, record.digest, record.revision) = (state, None, revision);
    }

    fn write_consumer(&mut self, current: Option<i64>, previous: Option<i64>) {
        let secret = |n: Option<i64>| n.map(|n| self.seen.secrets[&n].clone());
        for (n, secret) in [(current, secret(current)), (previous, secret(previous))] {
            let Some(secret) = secret else { continue };
            assert!(!self.dead.contains(&secret.id), "consumers get a key that has ended: {:#?}", self.steps);
            self.check_handed_out(&secret.digest);
            if n == self.seen.status.next_version && n != self.seen.status.current_version {
                let lacks = !self.is_imported()
                    && self.verifiers.iter().any(|verifier| !verifier.admits.contains(&secret.digest));
                assert!(!lacks, "consumers get a key that a live verifier lacks: {:#?}", self.steps);
            }
        }
        let digest = |n| secret(n).map(|secret| secret.digest);
        let id = secret(current).map(|secret| secret.id);
        let consumer = ConsumerSeen::Ours { current: digest(current), previous: digest(previous), id };
        self.take_in(Made::Consumer(consumer));
    }

    fn check(&self) {
        let versions = &self.seen.status.versions;
        let current = self.versions(VersionState::Current).len();
        assert!(current <= 1, "two keys are current: {versions:?}");
        let known: BTreeSet<&str> = versions.iter().map(|version| version.id.as_str()).collect();
        // What somebody took away, or put back, was not made by the machine.
        let made: BTreeSet<&str> = self.seen.secrets.values().map(|secret| secret.id.as_str()).collect();
        let foreign: BTreeSet<&str> = self.graveyard.iter().map(|(_, secret)| secret.id.as_str()).collect();
        let pending = self.seen.records.iter().filter(|(id, record)| {
            let ours = made.contains(id.as_str()) && !foreign.contains(id.as_str());
            record.standing.state == RecordState::Active && ours && !known.contains(id.as_str())
        });
        assert!(self.status_lost || pending.count() <= 1, "two versions are pending: {:#?}", self.seen.records);
    }

    /// What consumers are given must be known to verifiers first.
    fn check_handed_out(&self, digest: &String) {
        let had = match &self.seen.consumer {
            ConsumerSeen::Ours { current, previous, .. } => [current.as_ref(), previous.as_ref()],
            _ => [None, None],
        };
        let known = self.seen.records.values().any(|record| record.digest.as_ref() == Some(digest));
        let is_told = known || self.is_imported();
        assert!(is_told || had.contains(&Some(digest)), "consumers get a key that no record knows: {:#?}", self.steps);
    }

    pub fn hours(&mut self, hours: i64) -> &mut Self {
        self.now += hours * HOUR;
        self
    }

    /// When the next rotation is due.
    pub fn due(&self) -> Option<SignedDuration> {
        self.seen.status.next_rotation_time.as_ref().map(|at| at.0.duration_since(self.now()))
    }
}

/// With version 1 in use.
pub fn issued() -> World {
    let mut world = World::default();
    world.told();
    world
}

/// With version 2 current, and version 1 on its way out.
pub fn rotated() -> World {
    let mut world = issued();
    world.hours(1).request();
    world.told();
    assert_eq!((world.current(), world.versions(VersionState::Deprecated)), (2, vec![1]));
    world
}

pub fn id_of(world: &World, n: i64) -> String {
    world.seen.status.versions.iter().find(|version| version.n == n).unwrap().id.clone()
}
