//! Pods: whether they are admitted, and whom they talk to.

use super::{Page, ROWS, Tone, listed};
use crate::{
    api::HardeningMode,
    cli::explain::{
        hardening::{Decided, Decision, Excepted, Hardening},
        network::{Network, Row, Side},
        pending::{Both, Pending},
        terrain::Named,
    },
};

/// Most intents that are about other pods.
const OTHERS: usize = 5;

pub(super) fn hardening(page: &mut Page, told: &Hardening, is_pod: bool) {
    let (tone, verdict) = match (told.policies.is_empty(), told.admitted) {
        (true, _) => (Tone::Plain, "no policy covers it"),
        (false, true) if is_pod => (Tone::Good, "made now, it would be admitted"),
        (false, false) if is_pod => (Tone::Bad, "made now, it would be refused"),
        (false, true) => (Tone::Good, "its pods would be admitted"),
        (false, false) => (Tone::Bad, "its pods would be refused"),
    };
    let open = if told.complete { "" } else { ", as far as could be read" };
    page.section_toned(tone, &format!("HARDENING: {verdict}{open}"));
    if let Some(until) = told.paused_until {
        page.toned(2, Tone::Warn, &format!("hardening is paused until {until}: nothing is refused before"));
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
    let (tone, decision) = match (told.decision, mode) {
        (_, HardeningMode::Disabled) => (Tone::Plain, "asks nothing"),
        (Decision::Met, _) => (Tone::Good, "met"),
        (Decision::Excepted, _) => (Tone::Warn, "met, but for what exceptions cover"),
        (Decision::Violated, HardeningMode::Enforce) => (Tone::Bad, "violated: refused"),
        (Decision::Violated, HardeningMode::Warn) => (Tone::Warn, "violated: warned of"),
        (Decision::Violated, _) => (Tone::Warn, "violated: audited"),
    };
    let by = match (mode, told.enforced_by.as_slice()) {
        (HardeningMode::Enforce, []) => "; nothing refuses by it, its status says".into(),
        (HardeningMode::Enforce, by) => format!(" (by {})", listed(by.iter().map(|it| format!("{it:?}")))),
        _ => String::new(),
    };
    page.toned(2, tone, &format!("{policies}, {mode:?} {standard}: {decision}{by}"));
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

pub(super) fn network(page: &mut Page, told: &Network, own: Option<&str>) {
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

pub(super) fn intents(page: &mut Page, all: &[Pending], own: Option<&str>) {
    let (about, others): (Vec<&Pending>, Vec<&Pending>) = all.iter().partition(|it| it.selects);
    about.iter().chain(others.iter().take(OTHERS)).for_each(|it| pending(page, it, own));
    if let Some(more) = others.len().checked_sub(OTHERS).filter(|more| *more > 0) {
        page.section(&format!(
            "NOT IN FORCE: {more} more intents about pods that it talks to, which --output json tells"
        ));
    }
}

fn pending(page: &mut Page, told: &Pending, own: Option<&str>) {
    let about = if told.selects { "" } else { ", about pods that it talks to" };
    page.section(&format!("NOT IN FORCE: network of {} {} ({:?}){about}", told.kind, told.policy, told.mode));
    told.why.iter().for_each(|why| page.line(2, why));
    if told.newly_denied.is_empty() && told.newly_allowed.is_empty() && told.why.is_empty() {
        page.line(2, "it would change nothing for it");
    }
    changes(page, (Tone::Bad, "would be denied", "not allowed "), &told.newly_denied, own);
    changes(page, (Tone::Good, "would be allowed", ""), &told.newly_allowed, own);
}

fn changes(page: &mut Page, (tone, what, by): (Tone, &str, &str), Both { ingress, egress }: &Both, own: Option<&str>) {
    if ingress.is_empty() && egress.is_empty() {
        return;
    }
    page.toned(2, tone, &format!("{what}:"));
    rows(page, 4, "from", by, (ingress, own));
    rows(page, 4, "to", by, (egress, own));
}
