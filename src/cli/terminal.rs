//! What a terminal shows beyond the text: colours, and how far long work is. Elsewhere neither is written.

use std::{
    fmt::Display,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// When text is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, as NO_COLOR (no-color.org), CLICOLOR, CLICOLOR_FORCE (bixense.com/clicolors) and TERM say.
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// For the whole process.
    pub(super) fn apply(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// Whether something is good. Never told by colour alone: the text says it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

/// Text that people see as it is, on one line: control characters, which terminals and CI systems obey, and those that
/// turn the direction of writing (CVE-2021-42574) are replaced. Names, images and messages are others' words.
pub(super) fn fit(text: &str) -> String {
    let is_bad = |it: char| {
        it.is_control() || matches!(it, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = |it| match it {
        '\n' => ' ',
        it if is_bad(it) => '\u{fffd}',
        it => it,
    };
    text.chars().map(shown).collect()
}

/// Colours a text, or leaves it byte for byte as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paint {
    colors: bool,
}

impl Paint {
    /// For standard output.
    pub(super) fn stdout() -> Self {
        Self { colors: AutoStream::choice(&std::io::stdout()) != ColorChoice::Never }
    }

    /// As a terminal gets it.
    #[cfg(test)]
    pub(super) const fn colors() -> Self {
        Self { colors: true }
    }

    pub(super) fn tone(self, tone: Tone, text: impl Display) -> String {
        match tone {
            Tone::Plain => text.to_string(),
            Tone::Good => self.styled(AnsiColor::Green.on_default(), text),
            Tone::Warn => self.styled(AnsiColor::Yellow.on_default(), text),
            Tone::Bad => self.styled(AnsiColor::Red.on_default(), text),
        }
    }

    /// What a reader looks for first.
    pub(super) fn head(self, text: impl Display) -> String {
        self.styled(Style::new().bold(), text)
    }

    /// What few readers look for.
    pub(super) fn aside(self, text: impl Display) -> String {
        self.styled(Style::new().dimmed(), text)
    }

    /// A cell of a table, as wide as its column: colours take no columns.
    pub(super) fn cell(self, tone: Tone, text: &str, width: usize) -> String {
        let padding = " ".repeat(width.saturating_sub(text.chars().count()));
        if text.is_empty() { padding } else { self.tone(tone, text) + &padding }
    }

    fn styled(self, style: Style, text: impl Display) -> String {
        if self.colors { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// What is done sooner shows nothing.
const AT_ONCE: Duration = Duration::from_millis(400);
const FRAME: Duration = Duration::from_millis(120);

/// How far long work is, on standard error where that is a terminal (and TERM is not `dumb`); gone when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    late: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Of work that has so many steps.
    pub(super) fn of(what: &'static str, steps: usize) -> Self {
        Self::on(ProgressBar::new(steps as u64), "{msg} {bar:30} {pos}/{len}", what.into())
    }

    /// Of work whose end is not known.
    pub(super) fn open(what: impl Into<String>) -> Self {
        Self::on(ProgressBar::new_spinner(), "{spinner} {wide_msg}", what.into())
    }

    fn on(bar: ProgressBar, template: &str, what: String) -> Self {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
        }
        bar.set_message(what);
        let terminal = ProgressDrawTarget::stderr();
        if terminal.is_hidden() {
            return Self { bar, late: None };
        }
        let (done, ended) = mpsc::channel();
        let shown = bar.clone();
        let show = move || {
            if ended.recv_timeout(AT_ONCE) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(terminal);
                shown.enable_steady_tick(FRAME);
            }
        };
        Self { bar, late: Some((done, thread::spawn(show))) }
    }

    /// One step is done.
    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    /// What is being done now; the words may be a cluster's, and steer no terminal.
    pub(super) fn says(&self, what: &str) {
        self.bar.set_message(what.replace(char::is_control, " "));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, late)) = self.late.take() {
            drop(done);
            // Nothing is drawn after what is told next.
            let _ = late.join();
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_adds_colours_or_nothing() {
        let all = |paint: Paint| {
            let tones = [Tone::Plain, Tone::Good, Tone::Warn, Tone::Bad].map(|tone| paint.tone(tone, "a"));
            tones.into_iter().chain([paint.head("a"), paint.aside("a")]).collect::<Vec<_>>()
        };
        assert!(all(Paint::default()).iter().all(|text| text == "a"));
        let painted = all(Paint::colors());
        assert_eq!(painted[0], "a");
        assert_eq!(painted[3], "\u{1b}[31ma\u{1b}[0m");
        assert_eq!(Paint::colors().cell(Tone::Bad, "a", 3), format!("{}  ", painted[3]));
        assert_eq!(Paint::colors().cell(Tone::Bad, "", 3), "   ");
        assert!(
            painted[1..].iter().all(|text| text.starts_with("\u{1b}[") && text.ends_with("a\u{1b}[0m")),
            "{painted:?}"
        );
    }
}
