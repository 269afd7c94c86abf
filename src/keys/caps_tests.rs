use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ApiKey, KeyCaps, Verb},
    keys::{JobStep, KeyJob, Observed, Spec, Step, is_issue},
};

fn caps(policies: &[(&str, Value)]) -> Caps {
    let parse = |caps: &Value| PolicyCaps::try_from(&serde_json::from_value::<KeyCaps>(caps.clone()).unwrap()).unwrap();
    Caps::of(policies.iter().map(|(name, caps)| ((*name).to_owned(), Arc::new(parse(caps)))).collect())
}

fn key(more: &Value) -> ApiKey {
    let mut spec = json!({
        "owner": {"customerId": "shop"}, "audiences": ["orders-api"], "role": "Viewer", "prefix": "shop",
        "secret": {"name": "s"},
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(json!({"metadata": {"name": "k", "namespace": "shop"}, "spec": spec})).unwrap()
}

fn said(more: &Value, caps: &Caps) -> String {
    Spec::parse(&key(more), caps).map_or_else(|invalid| invalid.to_string(), |_| "allowed".into())
}

#[rstest]
#[case(json!({}), "allowed")]
#[case(json!({"role": "Editor"}), "allowed")]
#[case(json!({"role": "Admin"}), "spec.role: Admin needs a ClusterSecurityPolicy that allows it in spec.apiKeys.roles")]
#[case(json!({"role": "architect"}), "spec.role: \"architect\" is no role here: use Viewer or Editor")]
#[case(json!({"role": null, "permissions": ["orders.*"]}), "allowed")]
#[case(json!({"role": null, "permissions": ["orders.*", "admin"]}), "spec.permissions[1]: must not be read, write, delete or admin, which are what a role may do: give it another name, as orders.read")]
#[case(json!({"owner": {"customerId": "acme"}}), "spec.owner.customerId: must be \"shop\", the namespace: a ClusterSec")]
#[case(json!({"rateLimit": {"perSecond": 10}}), "allowed")]
#[case(json!({"rateLimit": {"perSecond": 11}}), "spec.rateLimit.perSecond: must be at most 10: a ClusterSecurityPolicy")]
fn without_a_policy(#[case] more: Value, #[case] wanted: &str) {
    let said = said(&more, &Caps::default());
    assert!(said.starts_with(wanted), "{said}");
}

#[rstest]
#[case(json!({"maxTtl": "24h"}), json!({}), "spec.ttl: it is 8760h unless given, and must be at most 24h (ClusterSecurityPolicy caps)")]
#[case(json!({"maxTtl": "24h"}), json!({"ttl": "25h", "rotation": {"interval": "2h", "overlap": "1h"}}), "spec.ttl: must be at most 24h (ClusterSecurityPolicy caps)")]
#[case(json!({"maxTtl": "24h"}), json!({"ttl": "24h", "rotation": {"interval": "2h", "overlap": "1h"}}), "allowed")]
#[case(json!({"maxRotationInterval": "720h"}), json!({}), "spec.rotation.interval: must be at most 720h (ClusterSecurityPolicy caps)")]
#[case(json!({"maxRotationInterval": "720h"}), json!({"rotation": {"policy": "Manual"}}), "spec.rotation.policy: must be Automatic, at least every 720h (ClusterSecurityPolicy caps)")]
#[case(json!({"maxRotationInterval": "720h"}), json!({"ttl": "24h", "rotation": {"policy": "Disabled"}}), "spec.rotation.policy: must be Automatic")]
#[case(json!({"maxRotationInterval": "720h"}), json!({"rotation": {"interval": "720h", "overlap": "1h"}}), "allowed")]
#[case(json!({"roles": [{"name": "Admin"}]}), json!({"role": "Admin"}), "allowed")]
#[case(json!({"roles": [{"name": "Admin"}, {"name": "Editor"}]}), json!({}), "spec.role: must be one of Admin, Editor (ClusterSecurityPolicy caps)")]
#[case(json!({"roles": [{"name": "dev", "permissions": ["orders.*"]}]}), json!({"role": null, "permissions": ["orders.read"]}), "allowed")]
#[case(json!({"roles": [{"name": "dev", "permissions": ["orders.*"]}]}), json!({"role": null, "permissions": ["orders.read", "users.read"]}), "spec.permissions[1]: no role that is allowed here has it (ClusterSecurityPolicy caps)")]
#[case(json!({"customerIds": ["acme-*"]}), json!({"owner": {"customerId": "acme-1"}}), "allowed")]
#[case(json!({"customerIds": ["acme-*"]}), json!({}), "spec.owner.customerId: must be acme-* (ClusterSecurityPolicy caps)")]
#[case(json!({"audiences": ["orders-*", "users"]}), json!({}), "allowed")]
#[case(json!({"audiences": ["users", "bills"]}), json!({}), "spec.audiences[0]: must be one of users, bills (ClusterSecurityPolicy caps)")]
#[case(json!({"maxRate": {"perSecond": 100}}), json!({"rateLimit": {"perSecond": 100}}), "allowed")]
#[case(json!({"maxRate": {"perSecond": 5}}), json!({"rateLimit": {"perSecond": 6}}), "spec.rateLimit.perSecond: must be at most 5 (ClusterSecurityPolicy caps)")]
fn with_a_policy(#[case] policy: Value, #[case] more: Value, #[case] wanted: &str) {
    let said = said(&more, &caps(&[("caps", policy)]));
    assert!(said.starts_with(wanted), "{said}");
}

#[test]
fn of_several_policies_the_strictest_holds_and_is_named() {
    let caps = caps(&[
        (
            "a",
            json!({"maxTtl": "9000h", "suspendIdleAfter": "48h", "roles": [{"name": "Admin"}, {"name": "dev",
            "verbs": ["Read", "Write"], "permissions": ["orders.*", "users.read"], "rateMultiplier": 2}],
            "customerIds": ["*"], "maxRate": {"perSecond": 50, "perDay": 500}}),
        ),
        (
            "b",
            json!({"maxTtl": "8760h", "suspendIdleAfter": "24h", "roles": [{"name": "Viewer"}, {"name": "dev",
            "verbs": ["Read", "Delete"], "permissions": ["orders.read"], "rateMultiplier": 0.5}],
            "customerIds": ["shop", "acme"], "maxRate": {"perSecond": 40}}),
        ),
        ("c", json!({})),
    ]);
    assert_eq!(caps.suspend_idle_after, Some(SignedDuration::from_hours(24)));
    let dev = Spec::parse(&key(&json!({"role": "dev"})), &caps).unwrap().grant.unwrap();
    assert_eq!((dev.verbs, dev.permissions), (vec![Verb::Read], vec!["orders.read".to_owned()]));
    assert_eq!((dev.limits.per_second, dev.limits.per_day), (20, 250));
    assert!(said(&json!({"role": "Admin"}), &caps).ends_with("Viewer, dev (ClusterSecurityPolicy b)"));
    assert!(said(&json!({"role": "Viewer"}), &caps).ends_with("Admin, dev (ClusterSecurityPolicy a)"));
    assert!(
        said(&json!({"owner": {"customerId": "other"}}), &caps).contains("one of shop, acme (ClusterSecurityPolicy b)")
    );
    assert!(
        said(&json!({"rateLimit": {"perDay": 501}, "role": "dev"}), &caps).contains("500 (ClusterSecurityPolicy a, b)")
    );
}

#[test]
fn a_longer_window_never_allows_less_than_a_shorter_one() {
    let all = |rate: Value| {
        let max = caps(&[("caps", json!({"maxRate": rate}))]).max_rate();
        [max.per_second, max.burst, max.per_minute, max.per_hour, max.per_day]
    };
    assert_eq!(all(json!({})), [10, 20, 100, 1000, 10_000]);
    assert_eq!(all(json!({"perSecond": 200})), [200, 200, 200, 1000, 10_000]);
    assert_eq!(all(json!({"perDay": 50})), [10, 20, 50, 50, 50]);
    assert_eq!(all(json!({"perDay": 5})), [5; 5]);
    assert_eq!(all(json!({"perSecond": 50, "burst": 100, "perMinute": 1000})), [50, 100, 1000, 1000, 10_000]);
}

#[test]
fn asking_without_a_role_is_no_way_around_its_multiplier() {
    let caps = caps(&[(
        "caps",
        json!({"roles": [{"name": "Admin"}, {"name": "slow", "permissions": ["a.b"],
        "rateMultiplier": 0.1}]}),
    )]);
    let rate = |more| Spec::parse(&key(&more), &caps).unwrap().grant.unwrap().limits.per_minute;
    assert_eq!(rate(json!({"role": "slow"})), 10);
    // Admin has every permission, and its rate would be ten times as much.
    assert_eq!(rate(json!({"role": null, "permissions": ["a.b"]})), 100);
}

#[test]
fn an_apikey_beyond_a_cap_is_read_without_a_grant_and_is_never_due() {
    let caps = caps(&[("caps", json!({"roles": [{"name": "Viewer"}], "suspendIdleAfter": "24h"}))]);
    let (spec, beyond) = Spec::tolerate(&key(&json!({"role": "Editor"})), &caps).unwrap();
    assert_eq!(beyond.unwrap().field, "spec.role");
    assert_eq!((spec.rotation.interval, spec.rotation.requested), (None, None));
    assert_eq!(spec.grant, None, "what it may do is what it could do before");
    assert_eq!(spec.suspend_idle_after, Some(SignedDuration::from_hours(24)), "an idle one is not revived");
    let impossible = key(&json!({"rotation": {"interval": "1h", "overlap": "2h"}, "role": "Editor"}));
    assert_eq!(Spec::tolerate(&impossible, &caps).unwrap_err().field, "spec.rotation.overlap");
    assert_eq!(Spec::tolerate(&key(&json!({})), &caps).unwrap().1, None);
}

#[test]
fn a_cap_stands_in_the_way_of_no_end() {
    let steps = [JobStep::PreRotate, JobStep::Test, JobStep::PostPromote, JobStep::Destroy];
    let issues = steps.map(|step| {
        is_issue(&Step::StartJob(KeyJob { step, n: 1, id: String::new(), attempt: 0 }), &Observed::default())
    });
    assert_eq!(issues, [true, true, false, false]);
}
