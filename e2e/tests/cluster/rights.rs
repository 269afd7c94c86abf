//! The rights of `manifests/rbac.yaml` and `manifests/verifier.yaml` against what the whole run asked for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Conclusion};
use rampart_e2e::{
    fixtures,
    witness::{self, Asked},
};
use serde_json::Value;

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("rights::what_either_component_may_have_done_is_no_news_of_one", either_may_have_done);
}

/// The account of most tests, which has the rights of controller and webhook at once.
const OF_BOTH: &str = "rampart";

const NAME: &str = "rights::every_right_is_used_and_none_is_missed";

/// Rights that no run uses, and why they are there all the same.
const UNUSED: &[(&str, &str)] = &[
    ("controller: delete rampart.dev/verifierreports in rampart-keys", "an hour after a verifier is gone"),
    ("controller: get rampart.dev/verifierreports in rampart-keys", "an hour after a verifier is gone"),
    ("controller: get core/replicationcontrollers", "owners of pods"),
    ("controller: list monitoring.coreos.com/servicemonitors", "prometheus-operator is not there"),
    ("controller: watch monitoring.coreos.com/servicemonitors", "prometheus-operator is not there"),
    (
        "controller: update admissionregistration.k8s.io/mutatingwebhookconfigurations rampart-fix",
        "what an apply can't mend",
    ),
    (
        "controller: update admissionregistration.k8s.io/validatingwebhookconfigurations rampart-enforce",
        "what an apply can't mend",
    ),
    ("controller: update networking.k8s.io/networkpolicies", "what an apply can't mend"),
    (
        "webhook: get admissionregistration.k8s.io/mutatingwebhookconfigurations rampart-fix",
        "the CA is renewed after years",
    ),
    (
        "webhook: get admissionregistration.k8s.io/validatingwebhookconfigurations rampart-enforce",
        "the CA is renewed after years",
    ),
    ("webhook: update core/secrets rampart-webhook-ca in rampart-system", "the CA is renewed after years"),
];

/// What is refused because a test takes the right away.
const PROVOKED: &[(&str, &str)] = &[
    ("rampart: list openreports.io/reports", "open_reports::"),
    ("rampart-verifier: list /secrets", "verifier::"),
    ("rampart-verifier: list rampart.dev/apikeys", "verifier::"),
    ("rampart-verifier: patch rampart.dev/keyrecords", "verifier::"),
];

/// One verb on one resource, as a role grants it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// Of `controller`, `webhook` or `verifier`.
    component: String,
    verb: String,
    group: String,
    resource: String,
    /// Where; empty for everywhere.
    namespace: String,
    /// Which alone; empty for all.
    names: Vec<String>,
}

impl Right {
    fn text(&self) -> String {
        let (group, names) = (if self.group.is_empty() { "core" } else { &self.group }, self.names.join(", "));
        let which = if names.is_empty() { String::new() } else { format!(" {names}") };
        let place = if self.namespace.is_empty() { String::new() } else { format!(" in {}", self.namespace) };
        format!("{}: {} {group}/{}{which}{place}", self.component, self.verb, self.resource)
    }

    /// Whether this is the right, or one of the rights, by which something was done.
    fn covers(&self, asked: &Asked) -> bool {
        let is_of = match asked.account.as_str() {
            OF_BOTH => self.component != "verifier",
            account => account.strip_prefix("rampart-") == Some(&self.component),
        };
        let is_there = self.namespace.is_empty() || self.namespace == asked.namespace;
        let is_named = self.names.is_empty() || self.names.contains(&asked.name);
        !asked.forbidden
            && is_of
            && is_there
            && is_named
            && (&self.verb, &self.group, &self.resource) == (&asked.verb, &asked.group, &asked.resource)
    }
}

/// Whether something was surely done by a right: by its own component, or by what no other may.
fn is_surely_by(right: &Right, rights: &BTreeSet<Right>, asked: &Asked) -> bool {
    let is_another_s = || rights.iter().any(|other| other.component != right.component && other.covers(asked));
    right.covers(asked) && (asked.account != OF_BOTH || !is_another_s())
}

/// Every right of a component, as its bindings give it.
fn granted(objects: &[Value]) -> Result<BTreeSet<Right>> {
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule[field].as_array().into_iter().flatten();
        values.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let mut rights = BTreeSet::new();
    for binding in objects.iter().filter(|it| it["kind"] == "RoleBinding" || it["kind"] == "ClusterRoleBinding") {
        let account = binding["subjects"][0]["name"].as_str().context("a binding of nobody")?;
        let component = account.strip_prefix("rampart-").context("a foreign account")?;
        let place = binding["metadata"]["namespace"].as_str().unwrap_or_default();
        let is_meant = |it: &&Value| {
            let same_place = it["metadata"]["namespace"].as_str().unwrap_or_default() == place;
            let is_wide = binding["roleRef"]["kind"] == "ClusterRole";
            it["kind"] == binding["roleRef"]["kind"]
                && it["metadata"]["name"] == binding["roleRef"]["name"]
                && (is_wide || same_place)
        };
        let role = objects.iter().find(is_meant).with_context(|| format!("no role for {binding}"))?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in list(rule, "apiGroups") {
                for resource in list(rule, "resources") {
                    rights.extend(list(rule, "verbs").into_iter().map(|verb| Right {
                        component: component.into(),
                        verb,
                        group: group.clone(),
                        resource: resource.clone(),
                        namespace: place.into(),
                        names: list(rule, "resourceNames"),
                    }));
                }
            }
        }
    }
    Ok(rights)
}

/// What a run found.
struct Findings {
    /// Rights that nobody used, and what was refused that no test provoked.
    wrong: Vec<String>,
    /// Rights that were used after all, as a race may have it: told, so that they leave the list of the unused.
    stale: Vec<String>,
}

fn findings(rights: &BTreeSet<Right>, seen: &BTreeMap<Asked, usize>) -> Findings {
    let without = |is_by: &dyn Fn(&Right, &Asked) -> bool| -> BTreeSet<String> {
        rights.iter().filter(|right| !seen.keys().any(|asked| is_by(right, asked))).map(Right::text).collect()
    };
    let unused = without(&Right::covers);
    // Both components may have a right, of which one alone makes use in a run.
    let unsure = without(&|right, asked| is_surely_by(right, rights, asked));
    let excused: BTreeSet<String> = UNUSED.iter().map(|(right, _)| (*right).to_owned()).collect();
    let idle = unused.difference(&excused).map(|right| format!("granted, and never used: {right}"));
    let stale = excused.difference(&unsure).map(|right| format!("said to be unused, and used or not granted: {right}"));
    let refused = seen.iter().filter(|(asked, _)| asked.forbidden).map(|(it, count)| {
        format!("{}: {} {}/{} {}/{}, {count} times", it.account, it.verb, it.group, it.resource, it.namespace, it.name)
    });
    let refused = refused.filter(|refused| !PROVOKED.iter().any(|(provoked, _)| refused.starts_with(provoked)));
    let refused = refused.map(|refused| format!("refused, and no test provoked it: {refused}"));
    Findings { wrong: idle.chain(refused).collect(), stale: stale.collect() }
}

/// Whether this is the whole run.
pub(crate) fn is_whole(arguments: &Arguments) -> bool {
    arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.ignored && !arguments.list
}

/// The rights as the manifests grant them.
fn of_manifests() -> Result<BTreeSet<Right>> {
    let files = ["manifests/rbac.yaml", "manifests/verifier.yaml"].map(|file| fixtures::repository().join(file));
    let objects = files.iter().map(|file| fixtures::documents(file)).collect::<Result<Vec<_>>>()?;
    granted(&objects.concat())
}

/// The last test, when every instance has ended; `true` if it holds.
pub(crate) fn hold(is_whole: bool, conclusion: &Conclusion) -> bool {
    let rights = match of_manifests() {
        Ok(rights) => rights,
        Err(error) => {
            println!("{NAME} ... FAILED\n{error:#}");
            return false;
        }
    };
    if !is_whole || conclusion.has_failed() {
        println!("skipped: {NAME} ({} rights; only after a whole run that passed)", rights.len());
        return true;
    }
    let seen = witness::seen();
    let (Findings { wrong, stale }, asked) = (findings(&rights, &seen), seen.values().sum::<usize>());
    for finding in wrong.iter().chain(&stale) {
        println!("{finding}");
    }
    let verdict = if wrong.is_empty() { "ok" } else { "FAILED" };
    println!("{NAME} ... {verdict} ({} rights, {asked} requests, {} findings)", rights.len(), wrong.len());
    wrong.is_empty()
}

async fn either_may_have_done(_: Env) -> Result<()> {
    let (group, resource) = ("admissionregistration.k8s.io", "validatingwebhookconfigurations");
    let name = "rampart-enforce";
    let right = |component: &str| Right {
        component: component.into(),
        verb: "get".into(),
        group: group.into(),
        resource: resource.into(),
        namespace: String::new(),
        names: vec![name.into()],
    };
    let rights = BTreeSet::from([right("controller"), right("webhook")]);
    let told = |account: &str| {
        let asked = Asked {
            account: account.into(),
            verb: "get".into(),
            group: group.into(),
            resource: resource.into(),
            namespace: String::new(),
            name: name.into(),
            forbidden: false,
        };
        let Findings { wrong, stale } = findings(&rights, &[(asked, 1)].into());
        (wrong.len(), stale.iter().any(|it| it.ends_with(&right("webhook").text())))
    };
    ensure!(told(OF_BOTH) == (0, false), "the controller asks it at each pass");
    ensure!(told("rampart-webhook") == (1, true), "and its own account is believed");
    Ok(())
}
