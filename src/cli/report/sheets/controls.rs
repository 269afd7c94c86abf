//! Controls, and the requirements that they support.

use super::{Cell, Sheet, Table, Tone, listed};
use crate::report::{Control, FRAMEWORKS, Framework, Relation, Report, Source};

pub(super) fn controls(report: &Report) -> Sheet {
    let all = &report.controls.items;
    let states = Table::new(
        "Controls",
        &["Control", "What it asks", "In force", "In part, or observed", "Asked for, not in force"],
        all.iter().map(control).collect(),
    );
    let tables = [states].into_iter().chain(FRAMEWORKS.map(|framework| of_framework(framework, all))).collect();
    Sheet::new("controls", "Controls and what they support", &report.controls, tables).says(
        "A control that is in force supports the requirements beside it; whether a requirement is met is for an assessor \
         to say. Namespaces of the cluster and of Rampart are not counted.",
        "There are no controls.",
    )
}

fn control(it: &Control) -> Vec<Cell> {
    vec![
        Cell::plain(it.id),
        Cell::plain(it.title),
        force(it),
        Cell::plain(listed(&it.partial)),
        Cell::new(if it.asked.is_empty() { Tone::Plain } else { Tone::Bad }, listed(&it.asked)),
    ]
}

/// Where it is in force.
fn force(it: &Control) -> Cell {
    let tone = match it.in_force.len() {
        0 => Tone::Warn,
        some if some < it.namespaces => Tone::Warn,
        _ => Tone::Good,
    };
    let names = if it.in_force.is_empty() { String::new() } else { format!(": {}", listed(&it.in_force)) };
    Cell::new(tone, format!("{} of {} namespaces{names}", it.in_force.len(), it.namespaces))
}

fn of_framework(framework: Framework, all: &[Control]) -> Table {
    let row = |control: &Control| {
        let of = control.supports.iter().filter(|it| it.framework == framework);
        let rows = of.map(|it| {
            let relation = match it.relation {
                Relation::Supports => "supports",
                Relation::Context => "is about",
            };
            vec![
                Cell::plain(it.requirements.join(", ")),
                Cell::plain(control.id),
                Cell::plain(relation),
                Cell::plain(format!("{} of {} namespaces", control.in_force.len(), control.namespaces)),
                Cell::plain(listed(it.sources.iter().map(|source: &Source| source.name()))),
            ]
        });
        rows.collect::<Vec<_>>()
    };
    let rows = all.iter().flat_map(row).collect();
    Table::new(framework, &["Requirement", "Control", "Relation", "In force in", "Source"], rows)
}
