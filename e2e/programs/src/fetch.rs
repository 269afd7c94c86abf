//! What fetches Go modules is run again where the network failed it: a mirror is away for a moment now and then.

use std::{
    process::{Command, Output},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Before it is run again, each time.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// What Go says, in whatever case, when the network is to blame.
const NETWORK: [&str; 11] = [
    "proxy",
    "timeout",
    "timed out",
    "deadline exceeded",
    "connection re",
    "eof",
    "no such host",
    "500 internal",
    "502 bad",
    "503 service",
    "504 gateway",
];

/// Runs Go to its end.
///
/// # Errors
/// When it is missing.
pub(crate) fn output(go: &mut Command) -> Result<Output> {
    output_after(go, &PAUSES)
}

fn output_after(go: &mut Command, pauses: &[Duration]) -> Result<Output> {
    let mut pauses = pauses.iter();
    loop {
        let told = go.output().context("running `go`: Go 1.26.3 or newer must be installed")?;
        match pauses.next() {
            Some(pause) if !told.status.success() && is_of_network(&told) => thread::sleep(*pause),
            _ => return Ok(told),
        }
    }
}

fn is_of_network(told: &Output) -> bool {
    // `go mod download -json` tells of it in what it answers.
    let text = [&told.stderr, &told.stdout].map(|text| String::from_utf8_lossy(text).to_lowercase());
    NETWORK.iter().any(|it| text.iter().any(|text| text.contains(it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_fails_is_run_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let runs = |says: &str| {
            let log = dir.path().join(says.replace(' ', "-"));
            let script = format!("echo >>{}; echo '{says}' >&2; exit 1", log.display());
            let told = output_after(Command::new("sh").args(["-c", &script]), &[Duration::ZERO; 2]).unwrap();
            assert!(!told.status.success());
            std::fs::read_to_string(log).unwrap().lines().count()
        };
        assert_eq!(runs("main.go:3: undefined"), 1);
        assert_eq!(runs("read tcp: connection reset by peer"), 3);
    }
}
