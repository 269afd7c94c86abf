//! What is told, as text.

use std::fmt::Display;

use super::{
    crowd::Crowd,
    decide::Explanation,
    hardening::{Decided, Decision, Excepted, Hardening},
    namespace::{Namespace, Open, count, rampart_level},
    network::{Network, Row, Side},
    network_policy::Written,
    page::Page,
    pending::{Both, Pending},
    policy::{Asked, Intended, Policy},
    retention::Retained,
    terrain::Named,
};
use crate::api::HardeningMode;

/// Most rows of one direction; JSON has them all.
const ROWS: usize = 20;
/// Most intents that are about other pods.
const OTHERS: usize = 5;

/// Everything, as text.
pub(super) fn text(told: &Explanation) -> String {
    let mut page = Page::default();
    let name = told.object.namespace.iter().chain([&told.object.name]).cloned().collect::<Vec<_>>().join("/");
    page.line(0, &format!("{} {name}", told.object.kind));
    for note in &told.notes {
        page.line(2, note);
    }
    if let Some(it) = &told.hardening {
        hardening(&mut page, it, told.object.kind == "Pod");
    }
    if let Some(it) = &told.network {
        network(&mut page, it, told.object.namespace.as_deref());
    }
    intents(&mut page, told.pending.as_deref().unwrap_or_default());
    if let Some(it) = &told.policy {
        policy(&mut page, it);
    }
    if let Some(it) = &told.network_policy {
        network_policy(&mut page, it);
    }
    if let Some(it) = &told.namespace {
        namespace(&mut page, it);
    }
    if let Some(it) = &told.retention {
        retention(&mut page, it);
    }
    if !told.unread.is_empty() {
        page.section("NOT READ: what is told is told without it");
        told.unread.iter().for_each(|it| page.line(2, &format!("could not read {it}")));
    }
    page.into_text()
}

fn listed<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(", ")
}

fn hardening(page: &mut Page, told: &Hardening, is_pod: bool) {
    let verdict = match (told.policies.is_empty(), told.admitted) {
        (true, _) => "no policy covers it",
        (false, true) if is_pod => "made now, it would be admitted",
        (false, false) if is_pod => "made now, it would be refused",
        (false, true) => "its pods would be admitted",
        (false, false) => "its pods would be refused",
    };
    let open = if told.complete { "" } else { ", as far as could be read" };
    page.section(&format!("HARDENING: {verdict}{open}"));
    if let Some(until) = told.paused_until {
        page.line(2, &format!("hardening is paused until {until}: nothing is refused before"));
    }
    told.notes.iter().for_each(|note| page.line(2, note));
    // Policies that say the same are told together.
    for alike in told.policies.chunk_by(Decided::is_as) {
        decided(page, alike);
    }
    told.exceptions.iter().for_each(|it| excepted(page, it));
}

fn decided(page: &mut Page, alike: &[Decided]) {
    let Some(told @ Decided { mode, standard, .. }) = alike.first() else { return };
    let policies = listed(alike.iter().map(|it| &it.policy));
    let decision = match (told.decision, mode) {
        (_, HardeningMode::Disabled) => "asks nothing",
        (Decision::Met, _) => "met",
        (Decision::Excepted, _) => "met, but for what exceptions cover",
        (Decision::Violated, HardeningMode::Enforce) => "violated: refused",
        (Decision::Violated, HardeningMode::Warn) => "violated: warned of",
        (Decision::Violated, _) => "violated: audited",
    };
    let by = match (mode, told.enforced_by.as_slice()) {
        (HardeningMode::Enforce, []) => "; nothing refuses by it, its status says".into(),
        (HardeningMode::Enforce, by) => format!(" (by {})", listed(by.iter().map(|it| format!("{it:?}")))),
        _ => String::new(),
    };
    page.line(2, &format!("{policies}, {mode:?} {standard}: {decision}{by}"));
    told.violations.iter().for_each(|it| page.line(4, &format!("{}: {}", it.rule, it.detail)));
}

fn excepted(page: &mut Page, told: &Excepted) {
    let Excepted { exception, policies, rules, until, .. } = told;
    let state = match (&told.why_not, told.relied_on) {
        (Some(why), _) => format!("not in force: {why}"),
        (None, true) => format!("until {until}, and it needs it"),
        (None, false) => format!("until {until}, which it does not need"),
    };
    page.line(2, &format!("PolicyException {exception} from {}: {}; {state}", listed(policies), listed(rules)));
}

fn network(page: &mut Page, told: &Network, own: Option<&str>) {
    page.section("NETWORK");
    told.notes.iter().for_each(|note| page.line(2, note));
    side(page, "ingress", &told.ingress, own);
    side(page, "egress", &told.egress, own);
}

fn side(page: &mut Page, way: &str, told: &Side, own: Option<&str>) {
    let named = |Named { namespace, name, owner }: &Named| {
        let name = if Some(namespace.as_str()) == own { name.clone() } else { format!("{namespace}/{name}") };
        owner.as_ref().map_or(name.clone(), |owner| format!("{name} (of {owner})"))
    };
    if told.isolated_by.is_empty() {
        page.line(2, &format!("{way}: nothing isolates it"));
    } else {
        page.line(2, &format!("{way}: isolated by {}", listed(told.isolated_by.iter().map(named))));
    }
    let other = if way == "ingress" { "from" } else { "to" };
    if told.allowed.is_empty() {
        page.line(4, &format!("{other} nobody"));
    }
    rows(page, 4, other, "", (&told.allowed, own));
}

/// `8000/TCP from all pods of shop, by web`.
fn rows(page: &mut Page, indent: usize, other: &str, by: &str, (rows, own): (&[Row], Option<&str>)) {
    for Row { ports, peers, by: policies } in rows.iter().take(ROWS) {
        let short = |name: &String| match (name.split_once('/'), own) {
            (Some((namespace, name)), Some(own)) if namespace == own => name.to_owned(),
            _ => name.clone(),
        };
        let ports = if ports == "any" { "any port".into() } else { ports.clone() };
        let by = if policies.is_empty() {
            String::new()
        } else {
            format!("; {by}by {}", listed(policies.iter().map(short)))
        };
        page.line(indent, &format!("{ports} {other} {}{by}", peers.who));
    }
    if let Some(more) = rows.len().checked_sub(ROWS).filter(|more| *more > 0) {
        page.line(indent, &format!("and {more} more, which --output json tells"));
    }
}

fn intents(page: &mut Page, all: &[Pending]) {
    let (own, others): (Vec<&Pending>, Vec<&Pending>) = all.iter().partition(|it| it.selects);
    own.iter().chain(others.iter().take(OTHERS)).for_each(|it| pending(page, it));
    if let Some(more) = others.len().checked_sub(OTHERS).filter(|more| *more > 0) {
        page.section(&format!(
            "NOT IN FORCE: {more} more intents about pods that it talks to, which --output json tells"
        ));
    }
}

fn pending(page: &mut Page, told: &Pending) {
    let about = if told.selects { "" } else { ", about pods that it talks to" };
    page.section(&format!("NOT IN FORCE: network of SecurityPolicy {} ({:?}){about}", told.policy, told.mode));
    if let Some(why) = &told.why {
        page.line(2, why);
    }
    if told.newly_denied.is_empty() && told.newly_allowed.is_empty() && told.why.is_none() {
        page.line(2, "it would change nothing for it");
    }
    changes(page, "would be denied", "not allowed ", &told.newly_denied);
    changes(page, "would be allowed", "", &told.newly_allowed);
}

fn changes(page: &mut Page, what: &str, by: &str, Both { ingress, egress }: &Both) {
    if ingress.is_empty() && egress.is_empty() {
        return;
    }
    page.line(2, &format!("{what}:"));
    rows(page, 4, "from", by, (ingress, None));
    rows(page, 4, "to", by, (egress, None));
}

fn policy(page: &mut Page, told: &Policy) {
    told.notes.iter().for_each(|note| page.line(2, note));
    for it in &told.conditions {
        page.line(2, &format!("{}={}, {}: {}", it.kind, it.status, it.reason, it.message));
    }
    if let Some(namespaces) = &told.namespaces {
        let named = namespaces.iter().take(ROWS).map(String::as_str);
        let more = namespaces.len().checked_sub(ROWS).filter(|more| *more > 0).map(|more| format!("and {more} more"));
        let named = listed(named.chain(more.as_deref()));
        page.line(2, &format!("namespaces that it covers: {}", if named.is_empty() { "none" } else { &named }));
    }
    if let Some(it) = &told.hardening {
        asked(page, it);
    }
    if let Some(it) = &told.network {
        intended(page, it);
    }
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

fn network_policy(page: &mut Page, told: &Written) {
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

fn namespace(page: &mut Page, told: &Namespace) {
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

fn retention(page: &mut Page, told: &[Retained]) {
    page.section("RETENTION");
    if told.is_empty() {
        page.line(2, "no RetentionPolicy is about it");
    }
    for it in told {
        let times = [("too old from", it.too_old_from), ("marked at", it.marked_at), ("goes after", it.delete_after)];
        let times = times.into_iter().filter_map(|(what, time)| time.map(|time| format!("; {what} {time}")));
        let times: String = times.collect();
        page.line(2, &format!("RetentionPolicy {} ({:?}): {}{times}", it.policy, it.mode, it.decision));
        it.held_by.iter().for_each(|held| page.line(4, &format!("held: {held}")));
    }
}
