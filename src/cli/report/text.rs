//! The report as text.

use super::{
    super::{
        page::Page as Lines,
        terminal::{Paint, Tone},
    },
    sheets::{Cell, Page, Sheet, Table, page},
};
use crate::report::Report;

/// Columns of a cell, unless one of its words is longer.
const CELL: usize = 34;

pub(super) fn text(report: &Report, paint: Paint) -> String {
    let Page { title, generated_at, facts, unread, sheets } = page(report);
    let mut lines = Lines::new(paint);
    lines.title(&format!("{title}, as of {generated_at}"));
    for (name, fact) in facts {
        lines.toned(2, fact.tone, &format!("{name}: {}", fact.text));
    }
    if !unread.is_empty() {
        lines.section_toned(Tone::Warn, "NOT READ: what is told is told without it");
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
        lines.toned(2, Tone::Warn, &format!("There may be more: could not read {it}"));
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
    let head = table.head.iter().map(|it| Cell { text: it.to_uppercase(), tone: Tone::Plain }).collect();
    let rows: Vec<&Vec<Cell>> = std::iter::once(&head).chain(&table.rows).collect();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column)).map(|it| it.text.as_str());
    let longest_word = |column| cells(column).flat_map(str::split_whitespace).map(length).max();
    let longest = |column| cells(column).map(length).max();
    let width = |column| longest(column).map(|it| it.min(CELL)).max(longest_word(column)).unwrap_or_default();
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    for (nth, row) in rows.iter().enumerate() {
        let wrapped: Vec<Vec<String>> = row.iter().zip(&widths).map(|(it, width)| wrap(&it.text, *width)).collect();
        for below in 0..wrapped.iter().map(Vec::len).max().unwrap_or_default() {
            let texts: Vec<&str> = wrapped.iter().map(|it| it.get(below).map_or("", String::as_str)).collect();
            let line = columns(lines.paint(), row, &texts, &widths);
            lines.as_is(&format!("  {}", if nth == 0 { lines.paint().head(line) } else { line }));
        }
    }
}

/// A line of a row; nothing follows its last text.
fn columns(paint: Paint, row: &[Cell], texts: &[&str], widths: &[usize]) -> String {
    let last = texts.iter().rposition(|it| !it.is_empty()).unwrap_or_default();
    let cell = |(column, text): (usize, &&str)| {
        let width = if column == last { 0 } else { widths.get(column).copied().unwrap_or_default() };
        paint.cell(row.get(column).map_or(Tone::Plain, |it| it.tone), text, width)
    };
    texts.iter().enumerate().take(last.saturating_add(1)).map(cell).collect::<Vec<_>>().join("  ")
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
