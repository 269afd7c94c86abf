//! How an admission policy states that something is wrong with a pod.

use crate::hardening::cel::{concat, string};

/// Every container of a pod that is judged.
pub(super) const CONTAINERS: &str = "variables.containers";

/// How an admission policy states one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    /// Which pods violate; cheap, since it is asked of every pod.
    pub(super) violated: Violated,
    /// `REASON (DETAIL)`; only evaluated when it is violated.
    pub(super) said: String,
    /// Variables of `said`, in order.
    pub(super) variables: Vec<(String, String)>,
}

/// Which pods violate a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Violated {
    /// What must hold of a pod for the check to be about it; the last is asked first.
    only_if: Vec<String>,
    /// True for a pod that is bad as a whole.
    pod: Option<String>,
    /// True for a container `c` that is bad.
    each: Option<String>,
}

impl Violated {
    /// By what a pod is as a whole.
    pub(super) fn pod(bad: impl Into<String>) -> Self {
        Self { pod: Some(bad.into()), ..Self::default() }
    }

    /// By what some container is.
    pub(super) fn each(bad: impl Into<String>) -> Self {
        Self { each: Some(bad.into()), ..Self::default() }
    }

    /// By either.
    pub(super) fn either(pod: impl Into<String>, each: impl Into<String>) -> Self {
        Self { pod: Some(pod.into()), each: Some(each.into()), ..Self::default() }
    }

    fn guarded(&self, bad: &str) -> String {
        self.only_if.iter().fold(bad.to_owned(), |bad, condition| format!("{condition} && ({bad})"))
    }

    /// True for a pod that violates.
    pub(super) fn expression(&self) -> String {
        let parts: Vec<String> = self.pod.iter().cloned().chain(self.each.as_deref().map(some)).collect();
        self.guarded(&parts.join(" || "))
    }

    /// One of these is true for a pod that violates any of all. There is one walk over its containers: a walk for
    /// each check was most of what the API server spent on a pod that passes (`make bench`, `floor`).
    pub(super) fn any<'v>(all: impl Iterator<Item = &'v Self> + Clone) -> Vec<String> {
        let guarded = |violated: &Self, bad: &String| format!("({})", violated.guarded(bad));
        let each: Vec<String> = all.clone().filter_map(|it| Some(guarded(it, it.each.as_ref()?))).collect();
        let pod = all.filter_map(|it| Some(guarded(it, it.pod.as_ref()?)));
        pod.chain((!each.is_empty()).then(|| some(&each.join(" || ")))).collect()
    }
}

impl Form {
    pub(super) fn new(violated: Violated, reason: &str, detail: &[&str]) -> Self {
        let detail = concat(detail);
        let said = format!("{} + {detail} + ')'", string(&format!("{reason} (")));
        Self { violated, said, variables: vec![] }
    }

    pub(super) fn with(mut self, name: &str, expression: impl Into<String>) -> Self {
        self.variables.push((name.into(), expression.into()));
        self
    }

    /// The same, about pods alone of which a condition holds.
    pub(super) fn only_if(mut self, condition: &str) -> Self {
        self.violated.only_if.push(condition.into());
        self
    }
}

/// Whether some container `c` is bad.
pub(super) fn some(bad: &str) -> String {
    format!("{CONTAINERS}.exists(c, {bad})")
}
