//! What is told, as text.

mod pods;
mod policies;

use std::fmt::Display;

use self::{
    pods::{hardening, intents, network},
    policies::{api_key, hold, namespace, network_policy, policy},
};
use super::{
    super::{
        page::Page,
        terminal::{Paint, Tone},
    },
    decide::Explanation,
    holds::{Held, end},
    retention::Retained,
};

/// Most rows of one kind; JSON has them all.
const ROWS: usize = 20;

/// Everything, as text.
pub(super) fn text(told: &Explanation, paint: Paint) -> String {
    let mut page = Page::new(paint);
    let name = told.object.namespace.iter().chain([&told.object.name]).cloned().collect::<Vec<_>>().join("/");
    page.title(&format!("{} {name}", told.object.kind));
    for note in &told.notes {
        page.line(2, note);
    }
    if let Some(it) = &told.hardening {
        hardening(&mut page, it, told.object.kind == "Pod");
    }
    if let Some(it) = &told.network {
        network(&mut page, it, told.object.namespace.as_deref());
    }
    intents(&mut page, told.pending.as_deref().unwrap_or_default(), told.object.namespace.as_deref());
    if let Some(it) = &told.policy {
        policy(&mut page, it);
    }
    if let Some(it) = &told.network_policy {
        network_policy(&mut page, it);
    }
    if let Some(it) = &told.api_key {
        api_key(&mut page, it);
    }
    if let Some(it) = &told.hold {
        hold(&mut page, it);
    }
    if let Some(it) = &told.namespace {
        namespace(&mut page, it);
    }
    if let Some(it) = &told.retention {
        retention(&mut page, it, &told.held_by);
    }
    if !told.unread.is_empty() {
        page.section_toned(Tone::Warn, "NOT READ: what is told is told without it");
        told.unread.iter().for_each(|it| page.line(2, &format!("could not read {it}")));
    }
    page.into_text()
}

fn listed<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(", ")
}

/// `litigation, case C-17`.
fn ground(ground: &str, case: Option<&str>) -> String {
    ground.to_owned() + &case.map(|case| format!(", case {case}")).unwrap_or_default()
}

fn retention(page: &mut Page, told: &[Retained], held: &[Held]) {
    page.section("RETENTION");
    for it in held {
        page.line(2, &format!("held by {} {}: {}", it.hold, end(it.until), ground(&it.ground, it.case_ref.as_deref())));
    }
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
