//! Keys, retention and holds.

use jiff::Timestamp;

use super::{Cell, Sheet, Table, Tone, listed, moment, or_dash, ready};
use crate::{
    api::RetentionMode,
    report::{AgeBand, Hold, HoldStanding, Key, KeyStanding, Report, Retention, RetentionClass},
};

pub(super) fn keys(report: &Report) -> Sheet {
    let now = report.generated_at;
    let bands = report.key_ages.iter().filter(|_| !report.keys.items.is_empty());
    let band = |it: &AgeBand| {
        let to = it.below_days.map_or_else(
            || format!("{} days and more", it.from_days),
            |below| format!("{} to {below} days", it.from_days),
        );
        vec![Cell::plain(to), Cell::plain(it.keys)]
    };
    let key = |it: &Key| {
        let last = it.last_used.map(|time| moment(time, now));
        vec![
            Cell::plain(format!("{}/{}", it.namespace, it.name)),
            standing(it.state),
            Cell::plain(or_dash(it.age_days.map(|days| format!("{days} d")))),
            rotation(it, now),
            Cell::plain(or_dash(it.expires_at.map(|time| moment(time, now)))),
            Cell::plain(or_dash(last)),
            Cell::plain(format!("{} of {}", listed(&it.grants), it.owner)),
            ready(it.ready, &it.reason),
        ]
    };
    let versions = report.keys.items.iter().flat_map(|it| {
        it.versions.iter().map(move |version| {
            vec![
                Cell::plain(format!("{}/{}", it.namespace, it.name)),
                Cell::plain(version.n),
                Cell::plain(format!("{}…{}", it.prefix, version.id)),
                Cell::plain(format!("{:?}", version.state)),
                Cell::plain(version.created_at.0),
                Cell::plain(moment(version.expires_at.0, now)),
                Cell::plain(or_dash(version.destroy_at.as_ref().map(|time| moment(time.0, now)))),
            ]
        })
    });
    let tables = vec![
        Table::new("How many are how old", &["Age of the version in use", "Keys"], bands.map(band).collect()),
        Table::new(
            "Keys, the oldest first",
            &["Key", "State", "Age", "Next rotation", "Expires", "Last used", "May do", "Status"],
            report.keys.items.iter().map(key).collect(),
        ),
        Table::new(
            "Versions",
            &["Key", "Version", "Prefix and id", "State", "Created", "Expires", "Destroyed"],
            versions.collect(),
        ),
    ];
    Sheet::new("keys", "Keys by age", &report.keys, tables).says(
        "Names, public ids and dates: never a key. One is overdue an hour after it was to be rotated.",
        "There are no keys.",
    )
}

fn standing(state: KeyStanding) -> Cell {
    match state {
        KeyStanding::InUse => Cell::new(Tone::Good, "in use"),
        KeyStanding::Overdue => Cell::new(Tone::Bad, "overdue for rotation"),
        KeyStanding::Expired => Cell::new(Tone::Bad, "expired"),
        KeyStanding::NotIssued => Cell::new(Tone::Bad, "not issued"),
        KeyStanding::Suspended => Cell::new(Tone::Warn, "suspended"),
        KeyStanding::Revoked => Cell::plain("revoked"),
    }
}

/// When it is due, and who waits for whom where it does not rotate by itself.
fn rotation(it: &Key, now: Timestamp) -> Cell {
    let due = or_dash(it.next_rotation_time.map(|time| moment(time, now)));
    match it {
        Key { suspend: true, .. } => Cell::new(Tone::Warn, format!("{due}, suspended")),
        Key { imported: true, .. } => Cell::plain(format!("{due}, by hand")),
        _ => Cell::plain(due),
    }
}

pub(super) fn retention(report: &Report) -> Sheet {
    let table = |class: &RetentionClass| {
        let caption = match (class.class, class.most) {
            (Some(class), Some(most)) => {
                format!("{class:?}: too old after {most} at the most, then deleted after a grace period")
            }
            _ => "Without a class".into(),
        };
        let rows = class.policies.iter().map(|it| policy(it, report)).collect();
        Table::new(
            caption,
            &["Policy", "Mode", "Max age", "Of", "Too old", "Held", "Last deleted", "Next run", "Status"],
            rows,
        )
    };
    let tables = report.retention.items.iter().map(table).collect();
    Sheet::new("retention", "Retention by class", &report.retention, tables).says(
        "What is deleted when it is too old. Enforce deletes; Mark and DryRun only tell.",
        "There are no RetentionPolicies: nothing is deleted because of its age.",
    )
}

fn policy(it: &Retention, report: &Report) -> Vec<Cell> {
    let tone = if it.mode == RetentionMode::Enforce && !it.suspended { Tone::Good } else { Tone::Warn };
    let mut status = ready(it.ready, &it.reason);
    if it.suspended {
        status = Cell::new(Tone::Warn, format!("{}, suspended", status.text));
    }
    vec![
        Cell::plain(format!("{}/{}", it.namespace, it.name)),
        Cell::new(tone, format!("{:?}", it.mode)),
        Cell::plain(or_dash(it.max_age)),
        Cell::plain(listed(&it.kinds)),
        Cell::plain(or_dash(it.would_delete)),
        Cell::plain(or_dash(it.held)),
        Cell::plain(or_dash(it.deleted)),
        Cell::plain(or_dash(it.next_run_time.map(|time| moment(time, report.generated_at)))),
        status,
    ]
}

pub(super) fn holds(report: &Report) -> Sheet {
    let row = |it: &Hold| {
        let (tone, state) = match it.state {
            HoldStanding::Active => (Tone::Good, "holds"),
            HoldStanding::Pending => (Tone::Warn, "does not hold yet"),
            HoldStanding::Expired => (Tone::Plain, "has ended"),
            HoldStanding::Unseen => (Tone::Bad, "not seen by the operator"),
        };
        let until = it.until.map_or_else(|| "until it is released".into(), |time| moment(time, report.generated_at));
        vec![
            Cell::plain(it.namespace.iter().chain([&it.name]).cloned().collect::<Vec<_>>().join("/")),
            Cell::plain(it.kind),
            Cell::new(tone, state),
            Cell::plain(until),
            Cell::plain(listed(&it.resources)),
            Cell::plain(&it.ground),
            Cell::plain(or_dash(it.case_ref.as_ref())),
        ]
    };
    let rows = report.holds.items.iter().map(row).collect();
    let head = &["Hold", "Kind", "State", "Until", "Kinds that are held", "Ground", "Case"];
    Sheet::new("holds", "Legal holds", &report.holds, vec![Table::new("Holds", head, rows)])
        .says("What must stay, whoever wants it gone.", "There are no legal holds.")
}
