//! The report as text.

use super::{
    super::page::Page as Lines,
    sheets::{Cell, Page, Sheet, Table, page},
};
use crate::report::Report;

/// Columns of a cell, unless one of its words is longer.
const CELL: usize = 34;

pub(super) fn text(report: &Report) -> String {
    let Page { title, generated_at, facts, unread, sheets } = page(report);
    let mut lines = Lines::default();
    lines.line(0, &format!("{title}, as of {generated_at}"));
    for (name, fact) in facts {
        lines.line(2, &format!("{name}: {}", fact.text));
    }
    if !unread.is_empty() {
        lines.section("NOT READ: what is told is told without it");
        for it in &unread {
            lines.line(2, &format!("could not read {it}"));
        }
    }
    for it in &sheets {
        sheet(&mut lines, it);
    }
    lines.into_text()
}

fn sheet(lines: &mut Lines, sheet: &Sheet) {
    lines.section(&sheet.title.to_uppercase());
    lines.line(2, sheet.intro);
    for it in &sheet.unread {
        lines.line(2, &format!("There may be more: could not read {it}"));
    }
    for it in &sheet.notes {
        lines.line(2, &format!("Note: {it}"));
    }
    if sheet.tables.is_empty() && sheet.unread.is_empty() {
        lines.line(2, sheet.empty);
    }
    for it in &sheet.tables {
        lines.as_is("");
        lines.line(2, &it.caption);
        table(lines, it);
    }
}

/// Rows of columns; what is too long for its column goes on below.
fn table(lines: &mut Lines, table: &Table) {
    let head = table.head.iter().map(|it| it.to_uppercase()).collect::<Vec<String>>();
    let rows = table.rows.iter().map(|row| row.iter().map(|Cell { text, .. }| text.clone()).collect());
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let longest_word = |column| cells(column).flat_map(|it| it.split_whitespace()).map(length).max();
    let longest = |column| cells(column).map(|it| length(it)).max();
    let width = |column| longest(column).map(|it| it.min(CELL)).max(longest_word(column)).unwrap_or_default();
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    for row in &rows {
        let wrapped: Vec<Vec<String>> = row.iter().zip(&widths).map(|(text, width)| wrap(text, *width)).collect();
        for nth in 0..wrapped.iter().map(Vec::len).max().unwrap_or_default() {
            let cell =
                |(cell, width): (&Vec<String>, &usize)| format!("{:width$}", cell.get(nth).map_or("", String::as_str));
            let line = wrapped.iter().zip(&widths).map(cell).collect::<Vec<_>>().join("  ");
            lines.as_is(&format!("  {}", line.trim_end()));
        }
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if length(line).saturating_add(length(word)) < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}
