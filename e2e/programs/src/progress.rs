//! How far a build is.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a build that is not watched on a terminal says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(20);

/// A progress bar on a terminal, a line now and then elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    title: String,
    cold: Duration,
    left: Duration,
    last: Cell<Option<Instant>>,
}

impl Progress {
    pub(crate) fn new(title: String, cold: Duration, left: Duration) -> Self {
        let bar = ProgressBar::new(100).with_message(title.clone());
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:20} {percent} %, {prefix}") {
            bar.set_style(style);
        }
        Self { bar, title, cold, left, last: Cell::new(None) }
    }

    pub(crate) fn report(&self, _package: &str, done: usize, of: usize) {
        let share = done.min(of) * 100 / of.max(1);
        let rest = self.cold * u32::try_from(share).unwrap_or(100) / 100;
        let minutes = self.left.saturating_sub(rest).as_secs().div_ceil(60);
        self.bar.set_position(share as u64);
        self.bar.set_prefix(format!("about {minutes} min left on 2 cores"));
        let due = self.last.get().is_none_or(|last| last.elapsed() >= REPORT_EVERY);
        if !std::io::stderr().is_terminal() && due {
            self.last.set(Some(Instant::now()));
            eprintln!("{}: {share} %, about {minutes} min left on 2 cores", self.title);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
