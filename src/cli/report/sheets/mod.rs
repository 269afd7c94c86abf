//! The report laid out in tables, for whoever prints it. Here alone texts of a cluster are made fit for people: without
//! what would steer a terminal or turn the order of what is read.

mod controls;
mod data;
mod security;

use std::fmt::Display;

use jiff::Timestamp;

pub(super) use super::super::terminal::Tone;
use super::super::terminal::fit;
use crate::report::{ExceptionStanding, HoldStanding, KeyStanding, Report, Section, State};

/// Names that stand in one cell.
const NAMES: usize = 8;

/// The report, laid out.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) generated_at: String,
    /// What matters most: a name, and a number with what it counts.
    pub(super) facts: Vec<(&'static str, Cell)>,
    /// What could not be read.
    pub(super) unread: Vec<String>,
    pub(super) sheets: Vec<Sheet>,
}

/// A section.
pub(super) struct Sheet {
    /// For links.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How to read it.
    pub(super) intro: &'static str,
    pub(super) unread: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) tables: Vec<Table>,
    /// What is said where there are no rows, and everything could be read.
    pub(super) empty: &'static str,
}

/// A table; its first column names the row.
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) head: &'static [&'static str],
    pub(super) rows: Vec<Vec<Cell>>,
}

/// Some text, and whether it is good.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Cell {
    fn new(tone: Tone, text: impl Display) -> Self {
        Self { text: fit(&text.to_string()), tone }
    }

    fn plain(text: impl Display) -> Self {
        Self::new(Tone::Plain, text)
    }

    /// Good where there are none.
    fn count(bad: Tone, count: usize, text: impl Display) -> Self {
        Self::new(if count == 0 { Tone::Good } else { bad }, text)
    }
}

impl Sheet {
    fn new<T>(id: &'static str, title: &'static str, section: &Section<T>, tables: Vec<Table>) -> Self {
        let told = |texts: &[String]| texts.iter().map(|it| fit(it)).collect();
        let tables = tables.into_iter().filter(|table| !table.rows.is_empty()).collect();
        Self { id, title, intro: "", unread: told(&section.unread), notes: told(&section.notes), tables, empty: "" }
    }

    fn says(mut self, intro: &'static str, empty: &'static str) -> Self {
        (self.intro, self.empty) = (intro, empty);
        self
    }
}

impl Table {
    fn new(caption: impl Display, head: &'static [&'static str], rows: Vec<Vec<Cell>>) -> Self {
        Self { caption: fit(&caption.to_string()), head, rows }
    }
}

/// Lays it out.
pub(super) fn page(report: &Report) -> Page {
    let about = report.namespace.as_ref().map(|namespace| format!(" of namespace {namespace}")).unwrap_or_default();
    Page {
        title: fit(&format!("Rampart: security posture{about}")),
        generated_at: report.generated_at.to_string(),
        facts: facts(report),
        unread: report.unread.iter().map(|it| fit(it)).collect(),
        sheets: vec![
            security::posture(report),
            security::violations(report),
            security::exceptions(report),
            data::keys(report),
            data::retention(report),
            data::holds(report),
            security::network(report),
            controls::controls(report),
        ],
    }
}

fn facts(report: &Report) -> Vec<(&'static str, Cell)> {
    let own: Vec<_> = report.posture.items.iter().filter(|it| !it.system).collect();
    let refusing = own.iter().filter(|it| it.hardening.as_ref().is_some_and(|it| it.state == State::InForce)).count();
    let tone = if refusing == own.len() { Tone::Good } else { Tone::Warn };
    let violations = report.violations.items.len();
    let active = report.exceptions.items.iter().filter(|it| it.state == ExceptionStanding::Active).count();
    let late = |state| matches!(state, KeyStanding::Overdue | KeyStanding::Expired | KeyStanding::NotIssued);
    let late = report.keys.items.iter().filter(|key| late(key.state)).count();
    let held = report.holds.items.iter().filter(|hold| hold.state == HoldStanding::Active).count();
    let mut facts = vec![
        ("Hardening refuses", Cell::new(tone, format!("in {refusing} of {} namespaces", own.len()))),
        ("Rules violated", Cell::count(Tone::Bad, violations, violations)),
        ("Exceptions in force", Cell::plain(active)),
        ("Keys to look at", Cell::count(Tone::Bad, late, format!("{late} of {}", report.keys.items.len()))),
        ("Holds in force", Cell::plain(held)),
        ("Not read", Cell::count(Tone::Warn, report.unread.len(), report.unread.len())),
    ];
    if let Some(pause) = &report.pause {
        let told = format!("until {}: {}", moment(pause.until, report.generated_at), pause.reason);
        facts.insert(0, ("Hardening is paused", Cell::new(Tone::Bad, told)));
    }
    if let Some(since) = report.away_since {
        let told = format!("since {}: statuses are as of then", moment(since, report.generated_at));
        facts.insert(0, ("No controller", Cell::new(Tone::Bad, told)));
    }
    facts
}

/// `a, b`; what is too much is counted, and what is not there is a dash.
fn listed<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|it| it.to_string()).collect();
    let (shown, more) = all.split_at(all.len().min(NAMES));
    match (shown, more) {
        ([], _) => "-".into(),
        (shown, []) => shown.join(", "),
        (shown, more) => format!("{}, and {} more", shown.join(", "), more.len()),
    }
}

/// What is there, or a dash.
fn or_dash<T: Display>(text: Option<T>) -> String {
    text.map_or_else(|| "-".into(), |it| it.to_string())
}

/// A time, with how far it is: `2026-12-31T00:00:00Z (in 34 d)`.
fn moment(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_secs();
    let (length, unit) = match seconds.abs() {
        far if far >= 2 * 86_400 => (far / 86_400, "d"),
        near if near >= 2 * 3_600 => (near / 3_600, "h"),
        close => (close / 60, "min"),
    };
    if seconds < 0 { format!("{time} ({length} {unit} ago)") } else { format!("{time} (in {length} {unit})") }
}

/// How a state is called.
fn state(state: State) -> Cell {
    match state {
        State::InForce => Cell::new(Tone::Good, "in force"),
        State::Partial => Cell::new(Tone::Warn, "in part, or observed"),
        State::Asked => Cell::new(Tone::Bad, "asked for, not in force"),
    }
}

/// Ready, with the reason.
fn ready(is_ready: bool, reason: &str) -> Cell {
    let (tone, told) = if is_ready { (Tone::Good, "ready") } else { (Tone::Bad, "not ready") };
    Cell::new(tone, format!("{told} ({reason})"))
}
