//! What a server does with what the system gives it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests"
)]

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many files a process may have open: now, and at the most.
fn open_files(id: u32) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers = line.split_whitespace().map(ToOwned::to_owned);
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

#[test]
fn a_server_may_have_as_many_connections_as_the_system_allows() {
    let records = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 64 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_rampart"), "verifier"]);
    command.arg("--index").arg(records.path());
    command.args(["--grpc-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let process = Process(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // It is a shell first.
        let name = fs::read_to_string(format!("/proc/{}/comm", process.0.id())).unwrap_or_default();
        let (now, most) = open_files(process.0.id());
        if name.trim() == "rampart" && !now.is_empty() && now == most {
            assert_ne!(now, "64");
            break;
        }
        assert!(Instant::now() < deadline, "{name}: {now} of {most}");
        thread::sleep(Duration::from_millis(5));
    }
}
