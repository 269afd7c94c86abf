//! The report as one page of HTML, which needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::sheets::{Cell, Page, Sheet, Table, Tone, page};
use crate::report::Report;

/// Colours for light and dark, and for paper.
const STYLE: &str = include_str!("style.css");
/// Nothing is fetched or run, whatever a name in a cluster looks like.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

pub(super) fn html(report: &Report) -> String {
    let Page { title, generated_at, facts, unread, sheets } = page(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CONTENT_SECURITY_POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "To the report" }
                header {
                    h1 { (title) }
                    p { "As of " time datetime=(generated_at) { (generated_at) } "." }
                    dl.facts { @for (name, fact) in &facts { div { dt { (name) } dd { (cell(fact)) } } } }
                }
                nav aria-label="Sections" { ul { @for it in &sheets { li { a href={ "#" (it.id) } { (it.title) } } } } }
                main id="main" {
                    @if !unread.is_empty() {
                        section.unread aria-labelledby="unread" {
                            h2 id="unread" { "Not read" }
                            p { "What is told is told without it." }
                            ul { @for it in &unread { li { (it) } } }
                        }
                    }
                    @for it in &sheets { (sheet(it)) }
                }
            }
        }
    };
    page.into_string() + "\n"
}

fn sheet(sheet: &Sheet) -> Markup {
    html! {
        section id=(sheet.id) aria-labelledby={ (sheet.id) "-title" } {
            h2 id={ (sheet.id) "-title" } { (sheet.title) }
            p { (sheet.intro) }
            @for it in &sheet.unread { p.warn { "There may be more: could not read " (it) } }
            @for it in &sheet.notes { p.note { "Note: " (it) } }
            @if sheet.tables.is_empty() && sheet.unread.is_empty() { p { (sheet.empty) } }
            @for (nth, it) in sheet.tables.iter().enumerate() { (table(it, &format!("{}-{nth}", sheet.id))) }
        }
    }
}

fn table(table: &Table, id: &str) -> Markup {
    html! {
        // On a narrow screen the table scrolls, and not the page.
        div.scroll role="region" aria-labelledby=(id) tabindex="0" {
            table {
                caption id=(id) { (table.caption) }
                thead { tr { @for it in table.head { th scope="col" { (it) } } } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (nth, it) in row.iter().enumerate() {
                                @if nth == 0 { th scope="row" { (cell(it)) } } @else { td { (cell(it)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(cell: &Cell) -> Markup {
    let class = match cell.tone {
        Tone::Plain => return html! { (cell.text) },
        Tone::Good => "good",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
    };
    html! { span class=(class) { (cell.text) } }
}
