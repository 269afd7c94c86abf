//! PolicyException: says whether it is in force. Webhook and floor do what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::{ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Context, Hardened, Next, Reconciler, Roots, Triggers, floor, requested, scan::wake_changed};
use crate::{
    api::{
        ExceptionState, PolicyException, PolicyExceptionStatus,
        condition::{Conditions, Type},
    },
    cluster::{Result, events::Reason, leader::Leadership, policy_index::PolicyIndex, status},
    hardening::{Effect, Exception, Origin},
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

const EXPIRED: Reason = Reason::warning("ExceptionExpired");
/// Why one that is permitted is not what the API server goes by: the reason, and what to do.
const FULL: &str = "AdmissionPolicyFull";
const NO_ROOM: &str = "a ValidatingAdmissionPolicy of the policies in spec.policies has no room for it, and the API server goes on refusing what it covers, though the webhook knows it: delete exceptions from these policies, or write fewer and shorter ones, in their namespaces";
/// Why one that is permitted lets nothing pass.
const STILL_REFUSED: &str = "StillRefused";
const RULE_NOT_ASKED: &str = "RuleNotAsked";
/// Most policies that a message names.
const MOST_NAMED: usize = 5;
/// A clock may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// The controller of PolicyExceptions.
pub struct PolicyExceptions {
    context: Context,
    index: PolicyIndex,
    hardened: Hardened,
}

impl PolicyExceptions {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        (index, synced): (PolicyIndex, Gate),
        hardened: Hardened,
        mut leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let (root, roots) = super::root::<PolicyException>();
        let (changes, known_labels) = (index.changes(), index.clone());
        let (stopped, context) = (context.stopped.clone(), context.clone());
        let controller = Arc::new(Self { context: context.clone(), index, hardened: hardened.clone() });
        tasks.spawn(Self::NAME, async move {
            let Hardened { in_force, scan, .. } = hardened;
            let known = async {
                leadership.acquired().await;
                synced.was_opened().await;
                floor::known(&in_force).await;
            };
            tokio::select! {
                () = known => {}
                () = stopped.cancelled() => return Ok(()),
            }
            let ((one_tx, one), (all_tx, all)) = (mpsc::unbounded_channel(), watch::channel(0));
            // Which are permitted depends on ClusterSecurityPolicies.
            let permitted = super::wake_all(changes, &all_tx, &stopped);
            // And which of these refuse all the same, on labels of namespaces.
            let covered = wake_relabelled(known_labels, (roots, one_tx.clone()), stopped.clone());
            let wake = |(namespace, name): &(String, String)| drop(one_tx.send(ObjectRef::new(name).within(namespace)));
            let counted = wake_changed(scan, |report| &report.relying, wake, stopped.clone());
            let refloored = super::wake_all(in_force, &all_tx, &stopped);
            let running = super::run(controller, context, root, Triggers { one, all });
            tokio::try_join!(running, permitted, covered, counted, refloored)?;
            Ok(())
        });
    }

    /// What is true of it, and when that changes by itself.
    fn status(&self, exception: &PolicyException, now: Timestamp) -> (PolicyExceptionStatus, Option<Timestamp>) {
        let mut conditions = Conditions::of_generation(exception.metadata.generation);
        let namespace = exception.metadata.namespace.as_deref().unwrap_or_default();
        let parsed = Exception::try_from(exception);
        let (mut end, mut missing, mut effect) = (None, None, None);
        let refused = match &parsed {
            Err(invalid) => Some(("Invalid", invalid.to_string(), ExceptionState::NotPermitted)),
            Ok(parsed) if !parsed.holds(now) => {
                Some(("Expired", format!("it ended at {}", parsed.expires), ExceptionState::Expired))
            }
            Ok(parsed) => {
                end = Some(parsed.expires);
                let known = self.index.known();
                missing = not_found(&known.missing(namespace, parsed));
                effect = known.effect(namespace, parsed, now);
                let refused = self.index.permits(namespace, parsed).err();
                refused.map(|why| ("NotPermitted", why, ExceptionState::NotPermitted))
            }
        };
        let key = (namespace.to_owned(), exception.name_any());
        let left_out = self.hardened.in_force.borrow().left_out.contains(&key);
        let problem = missing.or_else(|| left_out.then(|| (FULL, NO_ROOM.to_owned())));
        let problem = problem.or_else(|| in_vain(effect.as_ref()?, &exception.spec.rules));
        let partly = effect.and_then(|effect| still_refused(&effect.refused_by));
        let state = tell(refused, (end, partly), problem, &mut conditions);
        let old = exception.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let status = PolicyExceptionStatus {
            observed_generation: exception.metadata.generation,
            last_handled_reconcile_at: requested(exception),
            state: Some(state),
            pods_relying: self.relying(namespace, exception),
            conditions: conditions.carried_from(old, now),
        };
        (status, end)
    }

    /// Pods that rely on it, as last counted.
    fn relying(&self, namespace: &str, exception: &PolicyException) -> Option<u32> {
        let key = (namespace.to_owned(), exception.name_any());
        match self.hardened.scan.borrow().as_ref() {
            Some(report) => report.relying.get(&key).copied(),
            None => exception.status.as_ref()?.pods_relying,
        }
    }
}

/// That some SecurityPolicies are not there. They may come later.
fn not_found(missing: &[&str]) -> Option<(&'static str, String)> {
    let named = (!missing.is_empty()).then(|| missing.join(", "))?;
    let why = format!(
        "no SecurityPolicy of this namespace asks anything of pods by the name of {named}: mend spec.policies, or make it"
    );
    Some(("TargetNotFound", why))
}

/// Why it lets nothing pass, though nothing keeps it from that but policies.
pub(crate) fn in_vain(effect: &Effect, rules: &[String]) -> Option<(&'static str, String)> {
    if effect.lets_pass {
        return None;
    }
    if let Some(why) = still_refused(&effect.refused_by) {
        return Some((STILL_REFUSED, why));
    }
    let rules = rules.join(", ");
    let mut why = format!("no policy in spec.policies asks {rules} of pods of this namespace: mend spec.rules");
    if !effect.instead.is_empty() {
        let instead = effect.instead.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        why = format!("{why} (in the place of these they ask {instead})");
    }
    Some((RULE_NOT_ASKED, why))
}

/// What policies that it does not name refuse all the same, and what to do.
fn still_refused(refused_by: &BTreeMap<Origin, BTreeSet<String>>) -> Option<String> {
    let told = refused_by.iter().filter_map(|(origin, rules)| {
        let (kind, name) = origin.named()?;
        Some(format!("{kind} {name} ({})", rules.iter().map(String::as_str).collect::<Vec<_>>().join(", ")))
    });
    let told: Vec<String> = told.take(MOST_NAMED).collect();
    let more = refused_by.len().saturating_sub(told.len());
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let why = format!(
        "policies that spec.policies does not name refuse it all the same: {}{more}: name them there, too, or have them ask less",
        told.join(", ")
    );
    (!told.is_empty()).then_some(why)
}

/// Says in conditions whether it is in force: why it is refused, or until when it is not and what of it is refused by
/// others; and what else keeps it from admitting what it covers.
fn tell(
    refused: Option<(&str, String, ExceptionState)>,
    (end, partly): (Option<Timestamp>, Option<String>),
    problem: Option<(&'static str, String)>,
    conditions: &mut Conditions,
) -> ExceptionState {
    if let Some((reason, why, state)) = refused {
        let accepted = state == ExceptionState::Expired;
        conditions.set(Type::Accepted, accepted, if accepted { "Accepted" } else { reason }, why.as_str());
        conditions.stall(reason, &why);
        return state;
    }
    conditions.set(Type::Accepted, true, "Accepted", "");
    if let Some((reason, why)) = problem {
        conditions.stall(reason, &why);
    } else {
        let until = end.map(|end| format!("until {end}")).unwrap_or_default();
        let (reason, until) = match partly {
            Some(why) => ("PartiallyActive", format!("{until}; {why}")),
            None => ("Active", until),
        };
        conditions.set(Type::Programmed, true, "Programmed", "");
        conditions.set(Type::Ready, true, reason, until);
    }
    ExceptionState::Active
}

impl Reconciler for PolicyExceptions {
    type Root = PolicyException;
    const NAME: &'static str = "policyexception";

    async fn reconcile(&self, exception: &PolicyException) -> Result<Next> {
        if exception.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Change);
        }
        let now = clock::now();
        let (wanted, end) = self.status(exception, now);
        let before = exception.status.as_ref().and_then(|status| status.state);
        let wrote = status::report(&self.context.client, exception, &wanted).await?;
        if wrote && before == Some(ExceptionState::Active) && wanted.state == Some(ExceptionState::Expired) {
            let note = "what it admitted is refused again: pods that rely on it are not re-created";
            self.context.events.publish(exception, EXPIRED, note).await;
        }
        let left = end.map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
        Ok(left.map_or(Next::Change, |left| Next::After(left.clamp(Duration::from_millis(10), LOOK_AGAIN))))
    }
}

/// Wakes those of namespaces that have other labels than before.
async fn wake_relabelled(
    index: PolicyIndex,
    (roots, one): (Roots<PolicyException>, mpsc::UnboundedSender<ObjectRef<DeserializeGuard<PolicyException>>>),
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let (mut relabelled, mut before) = (index.label_changes(), index.known().labels.clone());
    loop {
        tokio::select! {
            changed = relabelled.changed() => if changed.is_err() { stopped.cancelled().await; },
            () = stopped.cancelled() => return Ok(()),
        }
        let now = index.known().labels.clone();
        let differs = |namespace: &str| now.get(namespace) != before.get(namespace);
        roots.wake(&one, |root| differs(root.namespace().as_deref().unwrap_or_default()));
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state, and each condition that is there: its type, status and reason.
    fn told(
        refused: Option<(&str, String, ExceptionState)>,
        problem: Option<(&'static str, String)>,
    ) -> (ExceptionState, Vec<String>) {
        let mut conditions = Conditions::of_generation(Some(1));
        let state = tell(refused, (Some(Timestamp::UNIX_EPOCH), None), problem, &mut conditions);
        let told = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        (state, told.iter().map(|it| format!("{} {} {}", it.type_, it.status, it.reason)).collect())
    }

    #[test]
    fn one_that_an_admission_policy_has_no_room_for_is_not_programmed() {
        let full = || Some((FULL, NO_ROOM.to_owned()));
        let (state, conditions) = told(None, not_found(&[]));
        assert_eq!(state, ExceptionState::Active);
        assert_eq!(conditions, ["Accepted True Accepted", "Programmed True Programmed", "Ready True Active"]);
        let wanted = [
            "Accepted True Accepted",
            "Programmed False AdmissionPolicyFull",
            "Ready False AdmissionPolicyFull",
            "Stalled True AdmissionPolicyFull",
        ];
        assert_eq!(told(None, full()).1, wanted);
        // What it is refused for comes first.
        let ended = || Some(("Expired", "it ended".to_owned(), ExceptionState::Expired));
        assert_eq!(told(ended(), full()), told(ended(), None));
    }

    #[test]
    fn one_from_a_policy_that_is_not_there_is_accepted_and_not_ready() {
        let (state, conditions) = told(None, not_found(&["typo"]));
        assert_eq!(state, ExceptionState::Active);
        let wanted = [
            "Accepted True Accepted",
            "Programmed False TargetNotFound",
            "Ready False TargetNotFound",
            "Stalled True TargetNotFound",
        ];
        assert_eq!(conditions, wanted);
        assert!(not_found(&["typo"]).unwrap().1.contains("typo"));
    }

    #[test]
    fn what_others_refuse_all_the_same_is_told_with_who_does() {
        let by = |names: &[&str]| -> BTreeMap<Origin, BTreeSet<String>> {
            let rules = || BTreeSet::from(["pss/hostPorts".to_owned(), "pss/privileged".to_owned()]);
            names.iter().map(|name| (Origin::SecurityPolicy((*name).to_owned()), rules())).collect()
        };
        let rules = ["pss/privileged".to_owned()];
        let of = |lets_pass: bool, refused_by| Effect { lets_pass, refused_by, ..Effect::default() };
        let (reason, why) = in_vain(&of(false, by(&["web"])), &rules).unwrap();
        let named = "refuse it all the same: SecurityPolicy web (pss/hostPorts, pss/privileged): name them";
        assert!(reason == STILL_REFUSED && why.contains(named), "{why}");
        let why = still_refused(&by(&["a", "b", "c", "d", "e", "f", "g"])).unwrap();
        assert!(why.contains("SecurityPolicy e (") && why.contains("), and 2 more: "), "{why}");
        // What lets something pass is in force, and says what it does not.
        assert_eq!(in_vain(&of(true, by(&["web"])), &rules), None);
        let mut conditions = Conditions::of_generation(Some(1));
        tell(None, (Some(Timestamp::UNIX_EPOCH), still_refused(&by(&["web"]))), None, &mut conditions);
        let told = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        let ready = told.iter().find(|it| it.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "PartiallyActive"));
        assert!(ready.message.starts_with("until 1970-01-01T00:00:00Z; policies that"), "{}", ready.message);
    }

    #[test]
    fn rules_that_nobody_asks_are_told_with_those_in_their_place() {
        let instead = BTreeSet::from(["pss/restrictedVolumes".to_owned()]);
        let effect = Effect { instead, ..Effect::default() };
        let (reason, why) = in_vain(&effect, &["pss/hostPathVolumes".to_owned()]).unwrap();
        assert_eq!(reason, RULE_NOT_ASKED);
        assert!(why.contains("asks pss/hostPathVolumes of") && why.contains("they ask pss/restrictedVolumes"), "{why}");
    }
}
