use std::{convert::Infallible, time::Duration};

use http::{Method, Request, Response, header::DATE};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;
use crate::api::LegalHold;

type Statuses = Arc<Mutex<Vec<Value>>>;

/// What was asked about admission policies, but to read them.
type Asked = Arc<Mutex<Vec<String>>>;

/// An API server that answers so who reads admission policies, and takes none, and any status.
fn refusing(read: (u16, &'static str), statuses: &Statuses) -> Client {
    let statuses = statuses.clone();
    let answer = move |request: Request<Body>| {
        let statuses = statuses.clone();
        async move {
            let (head, body) = request.into_parts();
            let failure = |code: u16, reason: &str| {
                (code, json!({"status": "Failure", "message": "no", "reason": reason, "code": code}))
            };
            let (code, json) = if head.uri.path().ends_with("/status") {
                let body = body.collect_bytes().await.unwrap();
                statuses.lock().push(serde_json::from_slice(&body).unwrap());
                (200, json!({"metadata": {}}))
            } else if head.method == Method::GET {
                failure(read.0, read.1)
            } else {
                failure(403, "Forbidden")
            };
            let answer = Response::builder().status(code).body(Body::from(json.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.unwrap())
        }
    };
    Client::new(tower::service_fn(answer), "default")
}

/// An API server of 2020, with what an earlier build made for holds, or without. It takes whatever is written.
fn of_before(is_made: bool, asked: &Asked, statuses: &Statuses) -> Client {
    let (asked, statuses) = (asked.clone(), statuses.clone());
    let answer = move |request: Request<Body>| {
        let (asked, statuses) = (asked.clone(), statuses.clone());
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path();
            let is_policy = path.contains("/validatingadmission");
            let (code, json): (u16, Value) = if path.ends_with("/status") {
                let body = body.collect_bytes().await.unwrap();
                statuses.lock().push(serde_json::from_slice(&body).unwrap());
                (200, json!({"metadata": {}}))
            } else if is_policy && head.method != Method::GET {
                asked.lock().push(format!("{} {path}", head.method));
                (200, json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"}))
            } else if is_policy && !is_made {
                (404, json!({"status": "Failure", "message": "no", "reason": "NotFound", "code": 404}))
            } else if is_policy {
                (200, made(path))
            } else {
                (200, json!({}))
            };
            let answer = Response::builder().status(code).header(DATE, "Fri, 17 Jan 2020 15:14:38 GMT");
            Ok::<_, Infallible>(answer.body(Body::from(json.to_string().into_bytes())).unwrap())
        }
    };
    Client::new(tower::service_fn(answer), "default")
}

/// The admission policy, or the binding, at a path.
fn made(path: &str) -> Value {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_binding = path.contains("policybindings");
    let kind = if is_binding { "ValidatingAdmissionPolicyBinding" } else { "ValidatingAdmissionPolicy" };
    let mut made = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
    });
    if is_binding {
        made["spec"] = json!({"policyName": name, "validationActions": ["Deny"]});
    }
    made
}

fn controller(client: Client) -> LegalHolds<LegalHold> {
    let (_root, roots) = crate::controllers::root();
    LegalHolds { context: Context::of_client(client), roots, active: Mutex::default(), written: Mutex::default() }
}

/// A hold of a resource, with that end and that status.
fn hold(resource: &Value, end: &Value, status: &Value) -> LegalHold {
    let mut hold = json!({
        "metadata": {"name": "case", "namespace": "shop", "uid": "u", "generation": 1},
        "spec": {"resources": [resource], "selector": {}, "ground": "litigation"},
        "status": status,
    });
    hold["spec"].as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
    serde_json::from_value(hold).unwrap()
}

/// What is told of a hold of this state when what is refused for it is gone, and can't be put back.
async fn told(state: &str) -> Option<Value> {
    let until = "2020-01-01T00:00:00Z";
    let end = if state == "Expired" { json!({"until": until}) } else { json!({"indefinite": true}) };
    let status = json!({"observedGeneration": 1, "state": state, "admissionPolicies": ["a"], "conditions": []});
    let statuses = Statuses::default();
    let holds = controller(refusing((404, "NotFound"), &statuses));
    assert!(holds.reconcile(&hold(&json!({"resource": "configmaps"}), &end, &status)).await.is_err());
    let told = statuses.lock().pop();
    told.map(|it| it["status"].clone())
}

/// Type, status and reason of each condition that is told.
fn conditions(told: &Value) -> Vec<[&str; 3]> {
    let conditions = told["conditions"].as_array().unwrap().iter();
    conditions.map(|it| [&it["type"], &it["status"], &it["reason"]].map(|it| it.as_str().unwrap())).collect()
}

/// What is asked and told for a hold of ApiKeys with that end, and when it is looked at again.
async fn of_keys(end: &Value, is_made: bool) -> (Vec<String>, Value, Next) {
    let (asked, statuses) = (Asked::default(), Statuses::default());
    let holds = controller(of_before(is_made, &asked, &statuses));
    let keys = json!({"group": "rampart.dev", "resource": "apikeys"});
    let next = holds.reconcile(&hold(&keys, end, &Value::Null)).await.unwrap();
    let told = statuses.lock().pop().unwrap_or_default();
    let asked = asked.lock().clone();
    (asked, told["status"].clone(), next)
}

#[tokio::test]
async fn a_hold_is_not_active_while_nothing_refuses() {
    let told = told("Active").await.unwrap();
    assert_eq!((&told["state"], &told["admissionPolicies"]), (&json!("Pending"), &json!(["a"])));
    let wanted = [
        ["Accepted", "True", "Accepted"],
        ["Programmed", "False", "Forbidden"],
        ["Ready", "False", "Forbidden"],
        ["Reconciling", "True", "Forbidden"],
    ];
    assert_eq!(conditions(&told), wanted);
}

#[tokio::test]
async fn a_hold_that_is_none_is_not_accepted_while_nobody_knows_what_is_refused_for_it() {
    let statuses = Statuses::default();
    let holds = controller(refusing((403, "Forbidden"), &statuses));
    let keys = json!({"group": "rampart.dev", "resource": "apikeys"});
    let status = json!({"observedGeneration": 1, "admissionPolicies": ["a"], "conditions": []});
    let hold = hold(&keys, &json!({"indefinite": true}), &status);
    assert!(holds.reconcile(&hold).await.is_err(), "it is tried again");
    // And so where that is told after it has failed again and again.
    holds.failed(&hold, &Error::Unexpected("no".into())).await.unwrap();
    let told = std::mem::take(&mut *statuses.lock());
    assert_eq!(told.len(), 2);
    for (told, reason) in told.iter().map(|it| &it["status"]).zip(["Forbidden", "Unexpected"]) {
        assert_eq!((&told["state"], &told["admissionPolicies"]), (&Value::Null, &json!(["a"])));
        let wanted = [
            ["Accepted", "False", "Invalid"],
            ["Programmed", "False", reason],
            ["Ready", "False", reason],
            ["Reconciling", "True", reason],
        ];
        assert_eq!(conditions(told), wanted);
        let said = told["conditions"][0]["message"].as_str().unwrap();
        assert!(said.starts_with("spec.resources[0].resource: apikeys can't be held"), "{said}");
    }
}

#[tokio::test]
async fn what_fails_for_a_hold_that_is_over_lets_it_hold_no_more() {
    assert_eq!(told("Expired").await, None);
}

#[tokio::test]
async fn what_an_earlier_build_refuses_for_a_hold_goes_when_that_ends() {
    let (asked, told, next) = of_keys(&json!({"until": "2020-01-01T00:00:00Z"}), true).await;
    let deleted = |kind: &str, of: &str| {
        format!("DELETE /apis/admissionregistration.k8s.io/v1/validatingadmission{kind}/rampart-hold-u{of}")
    };
    let wanted = ["", "-namespaces"].map(|of| [deleted("policybindings", of), deleted("policies", of)]);
    assert_eq!(asked, wanted.concat());
    assert_eq!((&told["state"], next), (&json!("Expired"), Next::Change));
}

#[tokio::test]
async fn what_an_earlier_build_refuses_for_a_hold_stays_until_then_and_nothing_is_made_for_it() {
    // The last has ended by our clock alone.
    let ends = [("2200-01-01T00:00:00Z", true), ("2200-01-01T00:00:00Z", false), ("2020-02-01T00:00:00Z", true)];
    for (until, is_made) in ends {
        let (asked, told, next) = of_keys(&json!({"until": until}), is_made).await;
        assert!(asked.is_empty(), "{asked:?}");
        let policies = if is_made { json!(["rampart-hold-u", "rampart-hold-u-namespaces"]) } else { Value::Null };
        assert_eq!((&told["state"], &told["admissionPolicies"]), (&Value::Null, &policies));
        let accepted = &told["conditions"][0];
        assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("Invalid")));
        let said = accepted["message"].as_str().unwrap();
        assert!(said.starts_with("spec.resources[0].resource: apikeys can't be held"), "{said}");
        assert_eq!(said.contains("what an earlier build refuses for it stays"), is_made, "{said}");
        assert_eq!(next, Next::After(Duration::from_mins(5)));
    }
    let (asked, _, next) = of_keys(&json!({"indefinite": true}), true).await;
    assert_eq!((asked, next), (vec![], Next::Change));
}
