//! Metrics, in the names that users of controller-runtime know, and our own with the prefix `rampart_`.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use rampart_pss::Version;

use super::metric_names::{Names, described};
use crate::{
    admission::{Answer, Fixed, Operation, Request, Target},
    api::{HardeningMode, PodCounts},
    hardening::Covering,
};

pub use super::{
    connection_metrics::{ConnectionMetrics, ServerConnections},
    key_metrics::{ApiKeyStanding, KeyMetrics},
    metric_names::Described,
    moment::Moment,
    retention_metrics::{RetentionMetrics, RetentionStanding},
    standings::{ObjectLabels, Standing, Standings, Told},
    verifier_metrics::VerifierMetrics,
};

/// Label of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabel {
    /// Its name.
    pub controller: &'static str,
}

/// Labels of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// Name of the controller.
    pub controller: &'static str,
    /// `success`, `requeue_after` or `error`.
    pub result: &'static str,
}

/// Labels of a failed reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// Name of the controller.
    pub controller: &'static str,
    /// Stable reason of the error.
    pub reason: &'static str,
}

/// Labels of a webhook request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabels {
    /// Path of the webhook.
    pub webhook: &'static str,
    /// HTTP status code.
    pub code: u16,
}

/// Labels of a decision about a pod, as Pod Security Admission counts them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EvaluationLabels {
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// `enforce`, `warn` or `audit`.
    pub mode: &'static str,
    /// Level of the standard.
    pub policy_level: &'static str,
    /// Its version: `latest`, `v1.N`, or `future` for one that is not known yet.
    pub policy_version: String,
    /// `pod` or `controller`.
    pub resource: &'static str,
    /// `create` or `update`.
    pub request_operation: &'static str,
    /// `ephemeralcontainers` or `resize`, or empty.
    pub subresource: &'static str,
}

/// Labels of a request to the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RestLabels {
    /// HTTP method.
    pub method: String,
    /// HTTP status code, or `<error>`.
    pub code: String,
}

/// Label of a custom resource definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CrdLabel {
    /// Its name.
    pub crd: String,
}

/// Label of a Lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LeaseLabel {
    /// Its name.
    pub name: &'static str,
}

/// Label of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// Its name.
    pub kind: &'static str,
}

/// Label of an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// What came of it.
    pub result: &'static str,
}

/// A family of histograms.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every metric of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Reconciles by outcome.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// Failed reconciles by reason.
    pub reconcile_errors: Family<ErrorLabels, Counter>,
    /// Reconciles that panicked.
    pub reconcile_panics: Family<ControllerLabel, Counter>,
    /// Reconciles that were cut off by their deadline.
    pub reconcile_timeouts: Family<ControllerLabel, Counter>,
    /// Reconciles whose error is the user's to mend.
    pub terminal_errors: Family<ControllerLabel, Counter>,
    /// Duration of reconciles.
    pub reconcile_seconds: Histograms<ControllerLabel>,
    /// Reconciles under way.
    pub active_workers: Family<ControllerLabel, Gauge>,
    /// Reconciles that may be under way at once.
    pub max_concurrent: Family<ControllerLabel, Gauge>,
    /// Webhook requests by status code.
    pub webhook_requests: Family<WebhookLabels, Counter>,
    /// Duration of webhook requests.
    pub webhook_seconds: Histograms<WebhookLabels>,
    /// Webhook requests under way.
    pub webhook_in_flight: Gauge,
    /// Webhook requests whose handling panicked.
    pub webhook_panics: Counter,
    /// Connections to the servers.
    pub connections: ConnectionMetrics,
    /// Decisions about pods.
    pub evaluations: Family<EvaluationLabels, Counter>,
    /// Requests to the API server.
    pub rest_requests: Family<RestLabels, Counter>,
    /// Whether this process leads.
    pub leader: Family<LeaseLabel, Gauge>,
    /// When the webhook's certificate ends.
    pub certificate_expiry: Moment,
    /// Objects that were found changed and put back.
    pub drift_reverted: Family<KindLabel, Counter>,
    /// Seconds of working out what a network intent changes and breaks.
    pub network_analysis_seconds: Histogram,
    /// NetworkPolicies that were written.
    pub network_rendered: Counter,
    /// Pairs that previews tell would be denied anew, over all policies.
    pub network_newly_denied: Gauge,
    /// Policies whose pods NetworkPolicies of others allow more.
    pub network_widened: Gauge,
    /// Orphans that the prune brake holds.
    pub prune_held: Family<KindLabel, Gauge>,
    /// Objects that could not be read and are skipped.
    pub invalid_objects: Family<KindLabel, Counter>,
    /// Fields that installed CRDs lack.
    pub crd_missing_fields: Family<CrdLabel, Gauge>,
    /// Different requirements of SecurityPolicies, by whether there is room for an admission policy.
    pub requirements: Family<ResultLabel, Gauge>,
    /// Pods that policies cover, by the worst that any of them says.
    pub pods: Family<ResultLabel, Gauge>,
    /// Reports (OpenReports) of workloads that violate, and those that are still to be written or removed.
    pub open_reports: Family<ResultLabel, Gauge>,
    /// Pods that were to be fixed, by outcome, once for each policy that asks.
    pub fixes: Family<ResultLabel, Counter>,
    /// Those of ApiKeys.
    pub keys: KeyMetrics,
    /// Those of the verifier.
    pub verifier: VerifierMetrics,
    /// Those of RetentionPolicies.
    pub retention: RetentionMetrics,
    /// Legal holds that are in force.
    pub holds_active: Family<KindLabel, Gauge>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn fast_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_panics: Family::default(),
            reconcile_timeouts: Family::default(),
            terminal_errors: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds),
            active_workers: Family::default(),
            max_concurrent: Family::default(),
            webhook_requests: Family::default(),
            webhook_seconds: Family::new_with_constructor(fast_seconds),
            webhook_in_flight: Gauge::default(),
            webhook_panics: Counter::default(),
            connections: ConnectionMetrics::default(),
            evaluations: Family::default(),
            rest_requests: Family::default(),
            leader: Family::default(),
            certificate_expiry: Moment::default(),
            drift_reverted: Family::default(),
            network_analysis_seconds: Histogram::new(exponential_buckets(0.000_1, 4.0, 8)),
            network_rendered: Counter::default(),
            network_newly_denied: Gauge::default(),
            network_widened: Gauge::default(),
            prune_held: Family::default(),
            invalid_objects: Family::default(),
            crd_missing_fields: Family::default(),
            requirements: Family::default(),
            pods: Family::default(),
            open_reports: Family::default(),
            fixes: Family::default(),
            keys: KeyMetrics::default(),
            verifier: VerifierMetrics::default(),
            retention: RetentionMetrics::default(),
            holds_active: Family::default(),
        };
        metrics.registry = Arc::new(metrics.register().0);
        metrics
    }
}

impl Metrics {
    fn register(&self) -> (Registry, Vec<Described>) {
        let (mut all, mut told) = (Registry::default(), vec![]);
        let mut of = Names::of(&mut all, "controller_runtime", &mut told);
        of.register("reconcile", "Reconciles by outcome", self.reconciles.clone());
        of.register("reconcile_errors", "Failed reconciles by reason", self.reconcile_errors.clone());
        of.register("reconcile_panics", "Reconciles that panicked", self.reconcile_panics.clone());
        of.register("reconcile_timeouts", "Reconciles cut off by their deadline", self.reconcile_timeouts.clone());
        of.register("terminal_reconcile_errors", "Errors that wait for a change", self.terminal_errors.clone());
        of.register("reconcile_time_seconds", "Duration of reconciles", self.reconcile_seconds.clone());
        of.register("active_workers", "Reconciles under way", self.active_workers.clone());
        of.register("max_concurrent_reconciles", "Reconciles allowed at once", self.max_concurrent.clone());
        of.register("webhook_requests", "Webhook requests by status code", self.webhook_requests.clone());
        of.register("webhook_latency_seconds", "Duration of webhook requests", self.webhook_seconds.clone());
        of.register("webhook_requests_in_flight", "Webhook requests under way", self.webhook_in_flight.clone());
        of.register("webhook_panics", "Webhook requests that panicked", self.webhook_panics.clone());
        let mut of = Names::of(&mut all, "", &mut told);
        of.register("pod_security_evaluations", "Decisions about pods", self.evaluations.clone());
        of.register("rest_client_requests", "Requests to the API server", self.rest_requests.clone());
        of.register("leader_election_master_status", "1 while this process leads", self.leader.clone());
        let mut of = Names::of(&mut all, "rampart", &mut told);
        self.connections.register(&mut of);
        let expiry = self.certificate_expiry.clone();
        of.register("webhook_certificate_expiration_timestamp_seconds", "End of the webhook's certificate", expiry);
        of.register("drift_reverted", "Objects that were put back", self.drift_reverted.clone());
        let analysis = self.network_analysis_seconds.clone();
        of.register("network_analysis_seconds", "Working out what a network intent changes and breaks", analysis);
        of.register("network_rendered", "NetworkPolicies that were written", self.network_rendered.clone());
        let denied = self.network_newly_denied.clone();
        of.register("network_preview_newly_denied", "Pairs that previews would deny anew, over all policies", denied);
        let widened = self.network_widened.clone();
        of.register("network_widened", "Policies that NetworkPolicies of others widen", widened);
        of.register("prune_held", "Orphans that the prune brake holds", self.prune_held.clone());
        of.register("invalid_objects", "Objects that could not be read", self.invalid_objects.clone());
        let missing = self.crd_missing_fields.clone();
        of.register("crd_missing_fields", "Fields that the operator writes and an installed CRD lacks", missing);
        of.register(
            "admission_requirements",
            "Different requirements of SecurityPolicies, by whether there is room for an admission policy",
            self.requirements.clone(),
        );
        of.register("pods", "Unfinished pods that policies cover, by the worst verdict", self.pods.clone());
        let reports = self.open_reports.clone();
        of.register(
            "open_reports",
            "Reports of workloads that violate, kept and still to be written or removed",
            reports,
        );
        of.register("pod_fixes", "Pods that were to be fixed, by outcome", self.fixes.clone());
        self.keys.register(&mut of);
        self.verifier.register(&mut of);
        self.retention.register(&mut of);
        of.register("holds_active", "Legal holds that are in force", self.holds_active.clone());
        (all, told)
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a value can't be written, which does not happen for a `String`.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Every metric that any process may serve, by name.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn names(&self) -> Result<Vec<Described>, std::fmt::Error> {
        Ok(described(&self.text()?, self.register().1))
    }
}

impl Metrics {
    /// Says how pods fare.
    pub fn count_pods(&self, pods: PodCounts) {
        let PodCounts { compliant, violating, exempt, .. } = pods;
        for (result, count) in [("compliant", compliant), ("violating", violating), ("exempt", exempt)] {
            self.pods.get_or_create(&ResultLabel { result }).set(count.into());
        }
    }

    /// Counts what came of fixing a pod.
    pub fn count_fixes(&self, outcomes: &[Fixed]) {
        for outcome in outcomes {
            let result = match outcome {
                Fixed::Applied => "applied",
                Fixed::Previewed => "previewed",
                Fixed::Impossible => "impossible",
            };
            self.fixes.get_or_create(&ResultLabel { result }).inc();
        }
    }

    /// Counts what was decided about a pod or a template, once for each policy that covers it.
    pub fn count_review(&self, request: &Request<'_>, answer: &Answer, policies: &[Covering]) {
        let Some(target) = Target::of(request) else { return };
        for Covering { requirement, .. } in policies {
            let labels = EvaluationLabels {
                decision: if answer.allowed { "allow" } else { "deny" },
                mode: match requirement.mode {
                    HardeningMode::Enforce => "enforce",
                    HardeningMode::Warn => "warn",
                    HardeningMode::Audit | HardeningMode::Disabled => "audit",
                },
                policy_level: requirement.level.as_str(),
                policy_version: version_label(requirement.version),
                resource: if target == Target::Pod { "pod" } else { "controller" },
                request_operation: if request.operation == Operation::Create { "create" } else { "update" },
                subresource: match request.sub_resource.as_deref() {
                    Some("ephemeralcontainers") => "ephemeralcontainers",
                    Some("resize") => "resize",
                    _ => "",
                },
            };
            self.evaluations.get_or_create(&labels).inc();
        }
    }
}

/// How Pod Security Admission labels versions (`k8s.io/pod-security-admission`, metrics/metrics.go): tenants
/// write them, and must not make as many time series as there are numbers.
fn version_label(version: Version) -> String {
    if version.is_future() { "future".into() } else { version.to_string() }
}
