use jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const OWN: Asking<'_> = Asking::Namespace("shop");
const WIDE: Asking<'_> = Asking::Cluster("wide", &["books", "shop"]);

/// What a policy asks, which is refused by the webhook alone unless it says `more`.
fn requirement(more: &Value) -> Requirement {
    let mut hardening = json!({"mode": "Enforce", "podSecurity": {"level": "restricted"}, "admissionPolicy": "None"});
    hardening.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap()
}

#[rstest]
#[case::nobody_asks(json!({}), WIDE, &[], &[], Some("WebhookPending"))]
#[case::nobody_is_covered(json!({}), Asking::Cluster("wide", &[]), &["rampart"], &[Enforcer::Webhook], None)]
#[case::the_webhook_is_asked(json!({}), WIDE, &["rampart", "books", "shop"], &[Enforcer::Webhook], None)]
#[case::one_is_not_named(json!({}), WIDE, &["rampart", "shop"], &[Enforcer::Webhook], Some("WebhookPending"))]
#[case::it_refuses_nothing(json!({"podSecurity": {"level": "privileged"}}), WIDE, &[], &[], None)]
#[case::no_webhook_is_asked_there(generate("Disabled"), Asking::System("system"), &["rampart"], &[Enforcer::AdmissionPolicy], None)]
#[case::its_floor_is_missing(json!({"admissionPolicy": "Generate"}), WIDE, &[], &[], Some("AdmissionPolicyPending"))]
#[case::not_named(json!({}), OWN, &["rampart"], &[Enforcer::Webhook], Some("WebhookPending"))]
#[case::named(json!({}), OWN, &["rampart", "shop"], &[Enforcer::Webhook], None)]
fn what_nothing_refuses_yet_is_pending(
    #[case] more: Value,
    #[case] asking: Asking<'_>,
    #[case] asked: &[&str],
    #[case] by: &[Enforcer],
    #[case] pending: Option<&str>,
) {
    let webhook_alone = asked.iter().skip(1).map(|name| (*name).to_owned()).collect();
    let clusters = [("system".to_owned(), requirement(&generate("Disabled")).standard())].into();
    let in_force = InForce { webhook: !asked.is_empty(), webhook_alone, clusters, ..InForce::default() };
    let enforcers = in_force.enforcers(&requirement(&more), asking, None);
    assert_eq!(enforcers.by, by);
    assert_eq!(enforcers.pending.map(|(reason, _)| reason), pending);
}

fn generate(fix: &str) -> Value {
    json!({"admissionPolicy": "Generate", "fix": fix})
}

/// The conditions of a policy that is Ready but for what `enforcers` tell.
fn told(enforcers: &Enforcers) -> Vec<(String, String, String)> {
    let mut conditions = Conditions::of_generation(Some(1));
    conditions.set(Type::Programmed, true, "Programmed", "").set(Type::Ready, true, "Ready", "");
    enforcers.tell(&mut conditions);
    let told = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
    told.into_iter().map(|it| (it.type_, format!("{} {}", it.status, it.reason), it.message)).collect()
}

const NAMED: &[&str] = &["books", "shop"];

#[rstest]
#[case::no_pod_is_made(json!({}), OWN, NAMED, "False WebhookAway", "no pod can be made where")]
#[case::nothing_is_refused(json!({}), OWN, &[], "False WebhookPending", "nothing is refused for this policy;")]
#[case::in_every_namespace(json!({}), WIDE, NAMED, "False WebhookAway", "no pod can be made where")]
#[case::in_some(json!({}), WIDE, &["shop"], "False WebhookPending", "and in others nothing is refused")]
#[case::in_none(json!({}), Asking::Cluster("wide", &[]), NAMED, "True Ready", "")]
#[case::the_floor_holds(generate("Disabled"), OWN, NAMED, "True Ready", "")]
#[case::the_floor_of_the_cluster_holds(generate("Disabled"), WIDE, NAMED, "True Ready", "")]
#[case::no_floor(generate("Disabled"), Asking::Namespace("books"), &[], "False AdmissionPolicyPending", "nothing is refused for")]
#[case::the_fix(generate("Apply"), OWN, &[], "True WebhookAway", "only once they are completed are refused")]
#[case::no_fix(generate("Preview"), OWN, &[], "True Ready", "")]
#[case::the_fix_and_all(json!({"fix": "Apply"}), OWN, NAMED, "False WebhookAway", "no pod can be made where")]
#[case::the_fix_alone(json!({"fix": "Apply", "mode": "Warn"}), OWN, &[], "True WebhookAway", "as they are asked for")]
#[case::nothing_to_fix(json!({"fix": "Apply", "podSecurity": {"level": "privileged"}}), OWN, &[], "True Ready", "")]
#[case::disabled(json!({"fix": "Apply", "mode": "Disabled"}), OWN, NAMED, "True Ready", "")]
fn what_is_lacking_while_the_webhook_is_away_is_told(
    #[case] more: Value,
    #[case] asking: Asking<'_>,
    #[case] named: &[&str],
    #[case] ready: &str,
    #[case] why: &str,
) {
    let (asked, floor) = (requirement(&more), requirement(&generate("Disabled")).standard());
    let in_force = InForce {
        webhook: true,
        webhook_alone: named.iter().map(|name| (*name).to_owned()).collect(),
        floor: [("shop".to_owned(), [floor.clone()].into())].into(),
        clusters: [("wide".to_owned(), floor)].into(),
        ..InForce::default()
    };
    let away = Away::of("rampart-system");
    let [before, now] = [None, Some(&away)].map(|away| told(&in_force.enforcers(&asked, asking, away)));
    let (_, state, message) = now.iter().find(|(kind, ..)| kind == "Ready").unwrap();
    assert_eq!(state, ready);
    assert!(message.contains(why), "{message}");
    // Whoever is told anew is visited, and nobody else.
    let leans = in_force.leans_on_webhook(&asked, asking);
    let is_asked_of_none = matches!(asking, Asking::Cluster(_, []));
    assert_eq!(before != now, leans && !is_asked_of_none, "{before:?} {now:?}");
    assert_eq!(before != now, message.contains("kubectl get pods,endpointslices -n rampart-system"), "{message}");
}

#[test]
fn what_waits_for_the_webhook_is_programmed_and_not_stalled() {
    let in_force = InForce { webhook: true, webhook_alone: ["shop".to_owned()].into(), ..InForce::default() };
    let asked = requirement(&json!({"fix": "Apply"}));
    let states = |in_force: &InForce| {
        let told = told(&in_force.enforcers(&asked, OWN, Some(&Away::of("rampart-system"))));
        told.into_iter().map(|(kind, state, _)| format!("{kind} {state}")).collect::<Vec<_>>()
    };
    let away = ["Programmed True Programmed", "Ready False WebhookAway", "Reconciling True WebhookAway"];
    assert_eq!(states(&in_force), away);
    let pause = Pause { until: Timestamp::UNIX_EPOCH, reason: "a drill".into() };
    let paused = InForce { paused: Some(pause), ..in_force };
    assert!(states(&paused).contains(&"Ready False Paused".to_owned()), "nothing waits in a pause");
}

#[test]
fn what_goes_on_refusing_is_told_where_it_does() {
    let stale = BTreeMap::from([("shop".to_owned(), "it could not be deleted".to_owned())]);
    let in_force = InForce { stale, ..InForce::default() };
    let told = |place: &str, set: fn(&mut Conditions)| {
        let mut conditions = Conditions::of_generation(Some(1));
        set(&mut conditions);
        in_force.tell_of_stale(place, &mut conditions);
        let told = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        told.into_iter().find(|it| it.type_ == "Reconciling").map(|it| (it.reason, it.message))
    };
    let (reason, message) = told("shop", |_| {}).unwrap();
    assert!(reason == STALE && message.ends_with("too: it could not be deleted"), "{reason}: {message}");
    assert_eq!(told("books", |_| {}), None);
    let paused = told("shop", |conditions| {
        conditions.wait("Paused", "why");
    });
    assert_eq!(paused.map(|(reason, _)| reason).as_deref(), Some("Paused"));
}

#[test]
fn why_there_is_no_admission_policy_is_told_with_the_fix() {
    let standard = |version: &str| {
        let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "restricted", "version": version}});
        Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap().standard()
    };
    let (one, other) = (standard("v1.30"), standard("v1.31"));
    let unwritten =
        |place: Place| Unwritten { place, standard: one.clone(), reason: WRITE_REFUSED, why: "it is too large".into() };
    let in_force = InForce {
        full: [("shop".to_owned(), [other.clone()].into())].into(),
        unwritten: [Place::Named(vec!["books".into()]), Place::Selected(vec!["wide".into()])].map(unwritten).into(),
        ..InForce::default()
    };
    let why = |in_force: &InForce, asking, standard| in_force.why_no_floor(asking, standard);
    let (reason, fix) = why(&in_force, OWN, &one);
    assert!(reason == TOO_MANY && fix.contains("admissionPolicy: None"), "{fix}");
    assert_eq!(why(&in_force, OWN, &other).0, PENDING, "it is one of those");
    for asking in [Asking::Namespace("books"), WIDE] {
        let (reason, said) = why(&in_force, asking, &one);
        assert!(reason == WRITE_REFUSED && said.ends_with("it is too large"), "{said}");
        assert_eq!(why(&in_force, asking, &other).0, PENDING, "another standard");
    }
    let roomless = InForce { roomless: [("shop".to_owned(), [one.clone()].into())].into(), ..InForce::default() };
    let (reason, fix) = why(&roomless, OWN, &one);
    assert!(reason == TOO_MANY && fix.contains("of the cluster") && fix.contains("admissionPolicy: None"), "{fix}");
    assert_eq!(why(&roomless, OWN, &other).0, PENDING, "there is room for it");
    let failing = InForce { failure: Some("nobody is there".into()), ..InForce::default() };
    let (reason, said) = why(&failing, OWN, &one);
    assert!(reason == PENDING && said.ends_with("nobody is there"), "{said}");
    let mut conditions = Conditions::of_generation(Some(1));
    Enforcers { pending: Some(why(&in_force, OWN, &one)), ..Enforcers::default() }.tell(&mut conditions);
    assert!(conditions.is(Type::Stalled) && !conditions.is(Type::Reconciling));
}
