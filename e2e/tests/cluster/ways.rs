//! The ways to a verdict on a pod that need no API server, to be compared with what it says: the webhook, the
//! background scan, and the command line, which sees the pod before the API server completes it.

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use rampart::{
    admission::{Request, Review, decide},
    hardening::{Covering, Enforcement, Finding, Kept, Seen, default_pod, findings},
};
use rampart_e2e::{Options, binaries::DEFAULT_KUBERNETES};
use serde_json::{Value, json};

/// A pod, as each way sees it.
pub(crate) struct Ways {
    stored: String,
    manifest: Option<String>,
    review: String,
    scanned: Kept,
}

impl Ways {
    /// Of a pod as it was asked for, and as the API server answers it.
    pub(crate) fn of(asked: &Value, stored: &Value) -> Result<Self> {
        let mut manifest = asked.clone();
        default_pod(&mut manifest);
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "object": stored}});
        let metadata = serde_json::from_value(stored["metadata"].clone())?;
        // Before 1.36 the API server left the limits of a pod with pod-level resources alone (KEP-2837), and the
        // command line does not know whose API server a manifest is for.
        let differs = asked["spec"].get("resources").is_some() && Options::default().kubernetes != DEFAULT_KUBERNETES;
        Ok(Self {
            stored: stored.to_string(),
            manifest: (!differs).then(|| manifest.to_string()),
            review: review.to_string(),
            scanned: Kept::of(&metadata, stored.clone()).context("a pod that has finished")?,
        })
    }

    /// Reads it once, by however many policies it is judged.
    pub(crate) fn read(&self) -> Result<Read<'_>> {
        Ok(Read {
            found: Seen::read(&self.stored, true)?,
            there: Seen::read(&self.stored, true)?.scheduled(),
            scanned: self.scanned.seen(true)?,
            checked: self.manifest.as_ref().map(|manifest| Seen::read(manifest, true)).transpose()?,
            review: Review::parse(self.review.as_bytes())?,
            ways: self,
        })
    }
}

/// What each way reads of a pod.
pub(crate) struct Read<'w> {
    found: Seen<'w>,
    there: Seen<'w>,
    scanned: Seen<'w>,
    checked: Option<Seen<'w>>,
    review: Request<'w>,
    ways: &'w Ways,
}

impl Read<'_> {
    /// What a policy finds wrong with the pod, on all of these ways.
    pub(crate) fn agree<'p>(&self, covering: &'p Covering) -> Result<Vec<Finding<'p>>> {
        let (one, now, stored) = (std::slice::from_ref(covering), Timestamp::now(), &self.ways.stored);
        let found = findings(one, &self.found, now);
        let there = findings(one, &self.there, now);
        let scanned = findings(one, &self.scanned, now);
        ensure!(scanned == there, "the scan finds {scanned:?}\n  not {there:?}\n{stored}");
        if let Some(seen) = &self.checked {
            let (checked, manifest) = (findings(one, seen, now), &self.ways.manifest);
            ensure!(
                checked == found,
                "the command line finds {checked:?}\n  not {found:?}\n{stored}\n{}",
                manifest.as_deref().unwrap_or_default()
            );
        }
        let answer = decide(&self.review, one, Enforcement::InForce, now);
        let denial = found.first().map(|finding| format!("pods \"\" is forbidden: violates {finding}; to fix, "));
        let denied = answer.status.map(|status| status.message);
        let same = match (&denial, &denied) {
            (Some(denial), Some(denied)) => denied.starts_with(denial),
            (denial, denied) => denial.is_none() && denied.is_none(),
        };
        ensure!(same && answer.allowed == denied.is_none(), "the webhook says {denied:?}\n  not {denial:?}");
        Ok(found)
    }
}
