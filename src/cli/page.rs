//! Lines of text for a terminal, wrapped.

use super::terminal::{Paint, Tone, fit};

/// Columns of a line.
const WIDTH: usize = 100;

/// Text in the making.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    pub(super) fn new(paint: Paint) -> Self {
        Self { text: String::new(), paint }
    }

    /// A line; what is too long goes on in the next, two columns further in.
    pub(super) fn line(&mut self, indent: usize, text: &str) {
        self.toned(indent, Tone::Plain, text);
    }

    /// A line that is good or bad, likewise.
    pub(super) fn toned(&mut self, indent: usize, tone: Tone, text: &str) {
        let paint = self.paint;
        self.wrapped(indent, text, |line| paint.tone(tone, line));
    }

    fn wrapped(&mut self, indent: usize, text: &str, painted: impl Fn(&str) -> String) {
        let hanging = indent.saturating_add(2);
        let (mut column, mut margin, mut line) = (indent, indent, String::new());
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if !line.is_empty() && column.saturating_add(length) >= WIDTH {
                self.push(margin, &painted(&fit(&line)));
                line.clear();
                (column, margin) = (hanging, hanging);
            } else if !line.is_empty() {
                line.push(' ');
                column = column.saturating_add(1);
            }
            line.push_str(word);
            column = column.saturating_add(length);
        }
        if line.is_empty() { self.as_is("") } else { self.push(margin, &painted(&fit(&line))) }
    }

    fn push(&mut self, margin: usize, line: &str) {
        self.text.push_str(&" ".repeat(margin));
        self.as_is(line);
    }

    /// A line that is as wide as it is.
    pub(super) fn as_is(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// What the page is about.
    pub(super) fn title(&mut self, title: &str) {
        let paint = self.paint;
        self.wrapped(0, title, |line| paint.head(line));
    }

    /// A section, after an empty line.
    pub(super) fn section(&mut self, title: &str) {
        self.section_toned(Tone::Plain, title);
    }

    /// A section that is good or bad as a whole.
    pub(super) fn section_toned(&mut self, tone: Tone, title: &str) {
        self.text.push('\n');
        let paint = self.paint;
        self.wrapped(0, title, |line| paint.head(paint.tone(tone, line)));
    }

    /// With what colours it.
    pub(super) const fn paint(&self) -> Paint {
        self.paint
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_further_in() {
        let mut page = Page::default();
        page.line(2, &"word ".repeat(40));
        let text = page.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= WIDTH) && lines.len() == 3, "{text}");
        assert!(lines[0].starts_with("  word") && lines[1].starts_with("    word"), "{text}");
    }

    #[test]
    fn colours_change_no_line() {
        let told = |mut page: Page| {
            page.section_toned(Tone::Bad, &"TITLE ".repeat(30));
            page.toned(2, Tone::Good, &"word ".repeat(40));
            page.line(4, "");
            page.into_text()
        };
        let (plain, painted) = (told(Page::default()), told(Page::new(Paint::colors())));
        let stripped = anstream::adapter::strip_str(&painted).to_string();
        assert_ne!(plain, painted);
        assert_eq!(plain, stripped);
    }

    #[test]
    fn what_a_terminal_obeys_is_not_written() {
        let mut page = Page::default();
        page.line(2, "image \u{1b}]52;c;aGk=\u{7} of\u{202e}pod");
        assert_eq!(page.into_text(), "  image \u{fffd}]52;c;aGk=\u{fffd} of\u{fffd}pod\n");
    }
}
