//! `rampart run`, `controller` and `webhook`: the servers.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use kube::{Client, Config};
use tokio::sync::watch;

use super::{facts::ClusterFacts, process::Process};
use crate::{
    admission::WEBHOOK_SERVICE,
    api::{ClusterLegalHold, GoDuration, LegalHold},
    cluster::{
        client,
        events::Events,
        impersonate::Impersonator,
        leader::{Election, Leadership, elect},
        pause::{Pauses, follow},
        policy_index::PolicyIndex,
    },
    controllers::{
        ApiKeySettings, ApiKeys, Away, ClusterSecurityPolicies, Context, Floors, Hardened, LegalHolds, Networks,
        PolicyExceptions, Residents, RetentionPolicies, RetentionSettings, Scanner, SecurityPolicies, Selftest,
        Telling, Webhooks, kinds,
    },
    hardening::ALL_FLOORS,
    runtime::{
        metrics::Metrics,
        readiness::{Gate, Readiness},
        tasks::Tasks,
    },
    serve::{
        tls::{Keeper, Leaf, Names, server_config},
        webhook,
    },
};

/// Which servers a process runs.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// The controllers.
    pub controller: bool,
    /// The webhook.
    pub webhook: bool,
}

/// What the servers can leave alone: their accounts need no rights for it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    /// Hardening of pods: the webhook judges none.
    Hardening,
    /// Network intent.
    Network,
    /// ApiKeys.
    ApiKeys,
    /// RetentionPolicies.
    Retention,
}

/// Where violations are told besides in statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reports {
    /// In Reports of openreports.io, one for each workload that violates; its CRDs must be there.
    #[value(name = "openreports")]
    OpenReports,
}

/// Flags of the servers; each also reads an environment variable.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    process: Process,
    /// Namespace that Rampart is installed in.
    #[arg(long, env = "RAMPART_NAMESPACE", default_value = "rampart-system")]
    namespace: String,
    /// How long a leader that fell silent is respected.
    #[arg(long, env = "RAMPART_LEASE_DURATION", default_value = "15s")]
    lease_duration: GoDuration,
    /// Address of the webhook.
    #[arg(long, env = "RAMPART_WEBHOOK_ADDRESS", default_value = "0.0.0.0:10250")]
    webhook_address: SocketAddr,
    /// Further names and addresses that the webhook is called by.
    #[arg(long, env = "RAMPART_WEBHOOK_NAMES", value_delimiter = ',')]
    webhook_names: Vec<String>,
    #[command(flatten)]
    facts: ClusterFacts,
    /// Different requirements of SecurityPolicies that become admission policies, those of the oldest policies first; for
    /// the rest the webhook alone refuses. Each costs every pod of the cluster 10 us and every API server 1 MB.
    #[arg(long, env = "RAMPART_ADMISSION_POLICIES", default_value_t = ALL_FLOORS)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=2000))]
    admission_policies: u16,
    /// Image of the Job that tests a new version of a key: Rampart's own.
    #[arg(long, env = "RAMPART_SELFTEST_IMAGE", default_value = concat!("rampart.dev/rampart:", env!("CARGO_PKG_VERSION")))]
    selftest_image: String,
    /// Where verifiers answer over HTTP (`http://rampart-verifier.rampart-system:9002`): the Job that tests a new version
    /// asks there whether it is admitted. Pods of every namespace with ApiKeys must reach it.
    #[arg(long, env = "RAMPART_SELFTEST_VERIFIER")]
    selftest_verifier: Option<String>,
    /// How often the use of an API key is written into its status; its first use is at once.
    #[arg(long, env = "RAMPART_USAGE_INTERVAL", default_value = "5m")]
    usage_interval: GoDuration,
    /// The shortest grace period that a RetentionPolicy may have.
    #[arg(long, env = "RAMPART_RETENTION_MINIMUM_GRACE", default_value = "1h")]
    retention_minimum_grace: GoDuration,
    /// How often a RetentionPolicy lists its objects at the least.
    #[arg(long, env = "RAMPART_RETENTION_INTERVAL", default_value = "10m")]
    retention_interval: GoDuration,
    /// Namespaces in which no RetentionPolicy deletes anything, besides those of the system, `default` and Rampart's own.
    #[arg(long, env = "RAMPART_RETENTION_PROTECTED_NAMESPACES", value_delimiter = ',')]
    retention_protected_namespaces: Vec<String>,
    /// Objects of one kind that are reconciled at once.
    #[arg(long, env = "RAMPART_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// What is left alone: objects of these kinds are stored, and nothing comes of them; of policies it is these parts of
    /// the spec. What was made before stays.
    #[arg(long, env = "RAMPART_DISABLE", value_enum, value_delimiter = ',')]
    disable: Vec<Feature>,
    /// Where violations are told besides in statuses. Without this flag, what was written there before is removed.
    #[arg(long, env = "RAMPART_REPORTS", value_enum)]
    reports: Option<Reports>,
}

impl Options {
    pub(super) fn run(self, parts: Parts) -> Result<ExitCode> {
        self.process.log()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served = runtime.block_on(self.serve(parts));
        // What blocks a thread keeps nothing else from ending, above all not the Lease.
        runtime.shutdown_timeout(Duration::from_secs(1));
        served?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self, parts: Parts) -> Result<()> {
        let lease = self.lease_duration.get();
        ensure!(lease >= Duration::from_secs(1), "--lease-duration must be at least 1s");
        ensure!(
            self.reports.is_none() || self.has(Feature::Hardening),
            "--reports tells of what --disable=hardening leaves alone"
        );
        let (metrics, readiness) = (Metrics::default(), Readiness::default());
        let mut config = self.process.connection.config().await?;
        // Beside the API server the wire is wider than its cores are many.
        config.disable_compression = true;
        let client = client::client(config.clone(), &metrics)?;
        let (mut tasks, started) = self.process.tasks(&readiness, &metrics);
        let stopped = tasks.stopped();
        let policies = PolicyIndex::default();
        let synced = readiness.gate("policies");
        let following = policies.clone().run(client.clone(), synced.clone(), metrics.clone(), stopped.clone());
        tasks.spawn("policies", following);
        let (pauses_tx, pauses) = watch::channel(None);
        let known = readiness.gate("pause");
        tasks.spawn("pause", follow(client.clone(), self.namespace.clone(), pauses_tx, known, stopped.clone()));
        if parts.webhook {
            self.webhook(&client, (policies.clone(), pauses.clone()), &metrics, &readiness, &mut tasks)?;
        }
        let identity = self.process.identity('_');
        if parts.controller {
            let context = Context {
                events: Events::new(client.clone(), &identity),
                client: client.clone(),
                metrics: metrics.clone(),
                readiness,
                stopped,
                concurrency: self.concurrency,
            };
            self.controllers(context, config, (policies, pauses, synced), identity.as_str().into(), &mut tasks);
        }
        started.open();
        tasks.run().await
    }

    fn webhook(
        &self,
        client: &Client,
        (policies, pauses): (PolicyIndex, Pauses),
        metrics: &Metrics,
        readiness: &Readiness,
        tasks: &mut Tasks,
    ) -> Result<()> {
        let (leaf, stopped) = (Leaf::default(), tasks.stopped());
        let service = format!("{WEBHOOK_SERVICE}.{}.svc", self.namespace);
        let (addresses, given): (Vec<_>, Vec<_>) = self
            .webhook_names
            .iter()
            .map(|name| name.parse::<IpAddr>().map_err(|_| name.clone()))
            .partition(Result::is_ok);
        let keeper = Keeper {
            client: client.clone(),
            namespace: self.namespace.clone(),
            names: Names {
                dns: given.into_iter().filter_map(Result::err).chain([service]).collect(),
                addresses: addresses.into_iter().flatten().collect(),
            },
            leaf: leaf.clone(),
            metrics: metrics.clone(),
            certificate: readiness.gate("webhook-certificate"),
            bundle: readiness.gate("webhook-ca-bundle"),
        };
        tasks.spawn("webhook-certificates", keeper.run(stopped.clone()));
        let shared = webhook::Shared {
            client: client.clone(),
            policies,
            pauses,
            hardens: self.has(Feature::Hardening),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
        };
        tasks.spawn("webhook", webhook::serve(self.webhook_address, server_config(leaf)?, shared, stopped));
        Ok(())
    }

    fn controllers(
        &self,
        context: Context,
        config: Config,
        policies: (PolicyIndex, Pauses, Gate),
        identity: Arc<str>,
        tasks: &mut Tasks,
    ) {
        let lease = self.lease_duration.get();
        let election = Election {
            namespace: self.namespace.clone(),
            identity,
            duration: lease,
            renew_deadline: lease * 2 / 3,
            retry: lease * 2 / 15,
        };
        let impersonator = Impersonator::new(config.clone(), context.metrics.clone());
        let counted = context.metrics.clone();
        let connect = move || client::client(config, &counted);
        let (leadership, electing) = elect(election, connect, context.metrics.clone(), tasks.alone());
        tasks.spawn_lasting("leader-election", electing);
        tasks.spawn("kinds", kinds::follow(context.clone(), leadership.clone()));
        let (index, of_keys) = (policies.0.clone(), (policies.0.clone(), policies.2.clone()));
        let (hardened, networks) = self.hardening_and_network(&context, policies, &leadership, tasks);
        let namespace = || self.namespace.clone();
        ClusterSecurityPolicies::spawn(&context, &networks, hardened.clone(), leadership.clone(), namespace(), tasks);
        SecurityPolicies::spawn(&context, &networks, hardened, leadership.clone(), namespace(), tasks);
        if self.has(Feature::ApiKeys) {
            ApiKeys::spawn(context.clone(), of_keys, self.api_keys(), leadership.clone(), tasks);
        }
        LegalHolds::<LegalHold>::spawn(&context, leadership.clone(), namespace(), tasks);
        LegalHolds::<ClusterLegalHold>::spawn(&context, leadership.clone(), namespace(), tasks);
        if self.has(Feature::Retention) {
            let ours = [self.namespace.clone(), self.process.keys_namespace.clone()];
            let retention = RetentionSettings {
                minimum_grace: self.retention_minimum_grace.get(),
                interval: self.retention_interval.get().max(Duration::from_secs(1)),
                protected: self.retention_protected_namespaces.iter().cloned().chain(ours).collect(),
            };
            RetentionPolicies::spawn(context, impersonator, retention, index, leadership, tasks);
        }
    }

    /// What SecurityPolicies are reconciled with.
    fn hardening_and_network(
        &self,
        context: &Context,
        policies: (PolicyIndex, Pauses, Gate),
        leadership: &Leadership,
        tasks: &mut Tasks,
    ) -> (Hardened, Networks) {
        let (known, index) = (policies.0.clone(), (policies.0.clone(), policies.2.clone()));
        let (hardens, isolates) = (self.has(Feature::Hardening), self.has(Feature::Network));
        let telling = match self.reports {
            _ if !hardens => Telling::Nothing,
            None => Telling::Statuses,
            Some(Reports::OpenReports) => Telling::Reports,
        };
        if !hardens && !isolates {
            return (Hardened::off(), Networks::off(context, Residents::new(known.clone()), known));
        }
        let (scan, residents) = Scanner::spawn(context, index.clone(), leadership.clone(), telling, tasks);
        let hardened = if hardens {
            let places = usize::from(self.admission_policies);
            let installed = (self.namespace.clone(), places);
            let (in_force, leaning) = Floors::spawn(context, policies.clone(), leadership.clone(), installed, tasks);
            Webhooks::spawn(context, policies, (leaning, places), leadership.clone(), tasks);
            let away = Away::follow(context, self.namespace.clone(), tasks);
            let hardened = Hardened { is_on: true, in_force, scan, away };
            PolicyExceptions::spawn(context, index, hardened.clone(), leadership.clone(), tasks);
            hardened
        } else {
            Hardened::off()
        };
        let networks = if isolates {
            Networks::spawn(context, self.facts.known(), (residents, known), tasks)
        } else {
            Networks::off(context, residents, known)
        };
        (hardened, networks)
    }

    fn has(&self, feature: Feature) -> bool {
        !self.disable.contains(&feature)
    }

    fn api_keys(&self) -> ApiKeySettings {
        ApiKeySettings {
            install_namespace: self.namespace.clone(),
            keys_namespace: self.process.keys_namespace.clone(),
            selftest: Selftest { image: self.selftest_image.clone(), verifier: self.selftest_verifier.clone() },
            usage_interval: self.usage_interval.get().max(Duration::from_secs(1)),
        }
    }
}
