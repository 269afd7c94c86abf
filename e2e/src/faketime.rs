//! A clock that is set while a process runs, and is that process' alone: Debian's libfaketime.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The library that `RAMPART_FAKETIME` names.
pub struct Library(String);

/// The library, if there is one; otherwise says that the test is skipped.
#[must_use]
pub fn library() -> Option<Library> {
    let library = std::env::var_os("RAMPART_FAKETIME");
    if library.is_none() {
        println!("skipped: RAMPART_FAKETIME does not name a libfaketime (make test-judges)");
    }
    library.map(|library| Library(library.to_string_lossy().into_owned()))
}

/// The clock of processes that are started with its environment.
pub struct Clock {
    library: String,
    file: PathBuf,
}

impl Library {
    /// A clock that is off by so much (`+400d`); `dir` has room for its file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn clock(self, dir: &Path, offset: &str) -> Result<Clock> {
        let clock = Clock { library: self.0, file: dir.join("clock") };
        clock.set(offset)?;
        Ok(clock)
    }
}

impl Clock {
    /// Sets it off by so much.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn set(&self, offset: &str) -> Result<()> {
        // Renamed into place: half a file is no time.
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset)?;
        Ok(std::fs::rename(&new, &self.file)?)
    }

    /// What a process is started with that goes by it. Its monotonic clock stays true.
    #[must_use]
    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap_or_default()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}
