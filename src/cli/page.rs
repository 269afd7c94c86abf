//! Lines of text for a terminal, wrapped.

/// Columns of a line.
const WIDTH: usize = 100;

/// Text in the making.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// A line; what is too long goes on in the next, two columns further in.
    pub(super) fn line(&mut self, indent: usize, text: &str) {
        let mut column = 0_usize;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if column == 0 {
                self.text.push_str(&" ".repeat(indent));
                column = indent;
            } else if column.saturating_add(length) >= WIDTH {
                let hanging = indent.saturating_add(2);
                self.text.push('\n');
                self.text.push_str(&" ".repeat(hanging));
                column = hanging;
            } else {
                self.text.push(' ');
                column = column.saturating_add(1);
            }
            self.text.push_str(word);
            column = column.saturating_add(length);
        }
        self.text.push('\n');
    }

    /// A line that is as wide as it is.
    pub(super) fn as_is(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A section, after an empty line.
    pub(super) fn section(&mut self, title: &str) {
        self.text.push('\n');
        self.line(0, title);
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
}
