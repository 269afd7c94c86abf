//! Whether a controller works: where none does, statuses are of the past.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::{
    api::whole_second,
    cluster::{
        Result,
        error::{call, found},
        leader::LEASE,
        server_clock::server_time,
    },
};

/// So many durations of the Lease its holder may be silent: it is renewed several times in one, and taken over after one.
const PATIENCE: i64 = 4;

/// Since when no controller holds the Lease; `None` where one does, or where that can't be read.
pub(super) async fn away_since(client: &Client, namespace: &str) -> Option<Timestamp> {
    let lease = read(client, namespace).await.ok()?;
    // The clock of who asks may be any.
    silent_since(&lease, server_time(client).await.ok()?)
}

/// What to say of that.
pub(super) fn note(since: Timestamp) -> String {
    format!("no controller has held the Lease {LEASE} since {since}: what statuses tell is as of then")
}

/// Who holds the Lease, and renews it; `None` where nobody does.
pub(super) async fn holder(client: &Client, namespace: &str) -> Result<Option<String>> {
    match found(read(client, namespace).await)? {
        Some(lease) => Ok(held_by(&lease, server_time(client).await?)),
        None => Ok(None),
    }
}

async fn read(client: &Client, namespace: &str) -> Result<Lease> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    call(|| format!("reading the Lease {LEASE}"), leases.get(LEASE)).await
}

fn held_by(lease: &Lease, now: Timestamp) -> Option<String> {
    let holder = lease.spec.as_ref()?.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    silent_since(lease, now).is_none().then_some(holder)
}

fn silent_since(lease: &Lease, now: Timestamp) -> Option<Timestamp> {
    let spec = lease.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0;
    let patience = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds?).saturating_mul(PATIENCE));
    (now.duration_since(renewed) > patience).then(|| whole_second(renewed))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"renewTime": "2026-11-28T11:59:00.900000Z", "leaseDurationSeconds": 15}), false)]
    #[case(json!({"renewTime": "2026-11-28T11:58:59.900000Z", "leaseDurationSeconds": 15}), true)]
    // One that its holder let go of.
    #[case(json!({"renewTime": "2026-11-28T11:58:59.900000Z", "leaseDurationSeconds": 1}), true)]
    #[case(json!({"renewTime": "2026-11-28T11:58:59.900000Z"}), false)]
    #[case(json!({}), false)]
    fn a_lease_that_nobody_renews_is_noticed(#[case] spec: Value, #[case] away: bool) {
        let lease: Lease = serde_json::from_value(json!({"metadata": {"name": LEASE}, "spec": spec})).unwrap();
        let since = silent_since(&lease, "2026-11-28T12:00:00Z".parse().unwrap());
        assert_eq!(since.map(|it| it.to_string()), away.then(|| "2026-11-28T11:58:59Z".to_owned()));
    }

    #[rstest]
    #[case(json!({"holderIdentity": "a", "renewTime": "2026-11-28T11:59:00.900000Z", "leaseDurationSeconds": 15}), Some("a"))]
    #[case(json!({"holderIdentity": "a", "renewTime": "2026-11-28T11:58:59.900000Z", "leaseDurationSeconds": 15}), None)]
    #[case(json!({"renewTime": "2026-11-28T11:59:59.900000Z", "leaseDurationSeconds": 1}), None)]
    #[case(json!({"holderIdentity": "", "renewTime": "2026-11-28T11:59:59.900000Z", "leaseDurationSeconds": 15}), None)]
    // Since when is not known.
    #[case(json!({"holderIdentity": "a"}), Some("a"))]
    fn who_renews_the_lease_holds_it(#[case] spec: Value, #[case] holder: Option<&str>) {
        let lease: Lease = serde_json::from_value(json!({"metadata": {"name": LEASE}, "spec": spec})).unwrap();
        assert_eq!(held_by(&lease, "2026-11-28T12:00:00Z".parse().unwrap()).as_deref(), holder);
    }
}
