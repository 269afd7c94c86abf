//! Policies and namespaces.

use super::{Page, ROWS, Tone, ground, listed};
use crate::{
    api::{HardeningMode, HoldState, Isolated},
    cli::explain::{
        api_key::Credential,
        crowd::Crowd,
        holds::{Keeps, end},
        namespace::{Namespace, Open, count, rampart_level},
        network_policy::Written,
        policy::{Asked, Intended, Policy, Told},
    },
};

pub(super) fn policy(page: &mut Page, told: &Policy) {
    told.notes.iter().for_each(|note| page.line(2, note));
    conditions(page, &told.conditions);
    covered(page, told.namespaces.as_deref());
    if let Some(it) = &told.hardening {
        asked(page, it);
    }
    if let Some(it) = &told.network {
        intended(page, it);
    }
    if let Some(it) = &told.api_keys {
        page.section("API KEYS: what they may ask for, and no more");
        let fields = serde_json::to_value(it).unwrap_or_default();
        for (name, value) in fields.as_object().into_iter().flatten() {
            page.line(2, &format!("{name}: {value}"));
        }
    }
}

/// Namespaces that a policy or hold of the cluster covers, where they are known.
fn covered(page: &mut Page, namespaces: Option<&[String]>) {
    let Some(namespaces) = namespaces else { return };
    let named = namespaces.iter().take(ROWS).map(String::as_str);
    let more = namespaces.len().checked_sub(ROWS).filter(|more| *more > 0).map(|more| format!("and {more} more"));
    let named = listed(named.chain(more.as_deref()));
    page.line(2, &format!("namespaces that it covers: {}", if named.is_empty() { "none" } else { &named }));
}

pub(super) fn hold(page: &mut Page, told: &Keeps) {
    told.notes.iter().for_each(|note| page.line(2, note));
    conditions(page, &told.conditions);
    let state = match (told.state, told.since) {
        (Some(HoldState::Active), Some(since)) => format!("in force since {since}"),
        (Some(HoldState::Active), None) => "in force".into(),
        (Some(HoldState::Expired), _) => "over: nothing is held by it".into(),
        (Some(HoldState::Pending) | None, _) => "not in force yet".into(),
    };
    page.line(2, &format!("{state}; {}", end(told.until)));
    page.line(2, &format!("ground: {}", ground(&told.ground, told.case_ref.as_deref())));
    covered(page, told.namespaces.as_deref());
    if let Some(listing) = &told.listing {
        page.line(2, &format!("to see what it holds: {listing}"));
    }
}

/// Those that tell of trouble.
fn conditions(page: &mut Page, told: &[Told]) {
    for it in told {
        page.toned(2, Tone::Warn, &format!("{}={}, {}: {}", it.kind, it.status, it.reason, it.message));
    }
}

pub(super) fn api_key(page: &mut Page, told: &Credential) {
    told.notes.iter().for_each(|note| page.line(2, note));
    conditions(page, &told.conditions);
    page.line(2, &format!("of {}, for {}", told.owner, listed(&told.audiences)));
    let by = if told.capped_by.is_empty() { "the defaults".into() } else { listed(&told.capped_by) };
    page.line(2, &format!("capped by {by}"));
    if let Some(grant) = &told.grant {
        page.section("WHAT A NEW VERSION MAY DO");
        let verbs = listed(grant.verbs.iter().map(|verb| format!("{verb:?}")));
        let named = [("role", grant.role.clone()), ("verbs", verbs), ("permissions", listed(&grant.permissions))];
        for (what, it) in named.iter().filter(|(_, it)| !it.is_empty()) {
            page.line(2, &format!("{what}: {it}"));
        }
        let max = &grant.limits;
        let (second, burst, minute) = (max.per_second, max.burst, max.per_minute);
        let longer = format!("{minute} a minute, {} an hour, {} a day", max.per_hour, max.per_day);
        page.line(2, &format!("calls: {second} a second, {burst} in ten seconds, {longer}"));
    }
    page.section("VERSIONS");
    for it in &told.versions {
        let end = it.destroy_at.as_ref().map_or(String::new(), |at| format!(", destroyed at {}", at.0));
        page.line(2, &format!("{} {} {:?}, expires {}{end}", it.n, it.id, it.state, it.expires_at.0));
    }
    let next = told.next_rotation_time.as_ref().map_or("none is planned".into(), |at| at.0.to_string());
    page.line(2, &format!("next rotation: {next}"));
}

fn asked(page: &mut Page, told: &Asked) {
    page.section(&format!("HARDENING: {:?} {}:{}", told.mode, rampart_level(told.level), told.version));
    if told.mode == HardeningMode::Enforce {
        let by = listed(told.enforced_by.iter().map(|it| format!("{it:?}")));
        page.line(2, &format!("refused by: {}", if by.is_empty() { "nothing yet" } else { &by }));
    }
    if let Some(pods) = told.pods {
        let counts = format!("{} as it asks, {} violating, {} exempt", pods.compliant, pods.violating, pods.exempt);
        page.line(2, &format!("{}: {counts}", count(usize::try_from(pods.selected).unwrap_or(usize::MAX))));
    }
    for it in &told.violating {
        let name = it.namespace.iter().chain([&it.name]).cloned().collect::<Vec<_>>().join("/");
        page.line(4, &format!("{} {name}, {} of it: {}", it.kind, it.pods, it.message));
    }
    if told.more_violating > 0 {
        page.line(4, &format!("and {} more workloads", told.more_violating));
    }
}

fn intended(page: &mut Page, told: &Intended) {
    page.section(&format!(
        "NETWORK: {:?}, isolates {}",
        told.mode,
        listed(told.isolate.iter().map(|it| format!("{it:?}")))
    ));
    page.line(2, &format!("about {}", about(told.selected, &told.pods)));
    let status = &told.status;
    if let Some(Isolated { ingress, egress }) = status.isolated {
        page.line(2, &format!("isolated now, by whomever: {ingress} of them for ingress, {egress} for egress"));
    }
    if !status.rendered.is_empty() {
        page.line(2, &format!("NetworkPolicies of it: {}", listed(&status.rendered)));
    }
    if !status.widened_by.is_empty() {
        page.line(2, &format!("others allow its pods more than it does: {}", listed(&status.widened_by)));
    }
    if let Some(preview) = &status.preview {
        let (denied, allowed) = (preview.newly_denied, preview.newly_allowed);
        page.line(2, &format!("it would deny {denied} pairs that talk now, and allow {allowed} that can't"));
        for it in &preview.samples {
            let what = if it.allowed { "allowed" } else { "denied" };
            page.line(4, &format!("{what}: {} to {}, {}: {}", it.src, it.dst, it.port, it.why));
        }
    }
    for it in &status.not_expressible {
        page.line(2, &format!("no policy can say it: {it}"));
    }
    for it in &status.findings {
        page.line(2, &format!("{}: {}", it.id, it.message));
    }
}

/// `2 pods: shop/web (2 pods)`.
fn about(selected: Option<usize>, pods: &Crowd) -> String {
    match selected {
        None => "pods that could not be read".into(),
        Some(0) => "no pod that is there".into(),
        Some(1) => pods.who.clone(),
        Some(pods_there) => format!("{}: {}", count(pods_there), pods.who),
    }
}

pub(super) fn network_policy(page: &mut Page, told: &Written) {
    let owner = told.owner.as_ref().map_or("Rampart did not make it".into(), |owner| format!("made for {owner}"));
    page.line(2, &owner);
    told.notes.iter().for_each(|note| page.line(2, note));
    page.line(2, &format!("isolates {} of {}", told.isolates.join(" and "), about(told.selected, &told.pods)));
    if !told.traps.is_empty() {
        page.section("TRAPS: what is written may mean something else than it seems to");
    }
    for it in &told.traps {
        let perhaps = if it.certain { "" } else { " (perhaps)" };
        page.line(2, &format!("{} at {}{perhaps}: {}", it.rule, it.path, it.detail));
    }
}

pub(super) fn namespace(page: &mut Page, told: &Namespace) {
    let pods = told.pods.map_or("pods could not be read".into(), count);
    let open = told.open.as_ref().map(|Open { ingress, egress }| {
        format!("; no NetworkPolicy isolates {ingress} of them for ingress, and {egress} for egress")
    });
    page.line(2, &format!("{pods}{}", open.unwrap_or_default()));
    page.section("POLICIES");
    if told.policies.is_empty() {
        page.line(2, "none covers it");
    }
    for it in &told.policies {
        page.line(2, &format!("{} {}: {}", it.kind, it.name, it.what));
    }
}
