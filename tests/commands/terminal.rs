//! What a terminal gets of the command line, and a pipe does not: colours, and how far long work is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, Read as _, Write as _},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anstream::adapter::strip_str;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

const BAD: &str = "apiVersion: v1
kind: Pod
metadata: {name: bad, namespace: shop}
spec: {hostNetwork: true, containers: [{name: main, image: a}]}
";
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.yaml");

/// Both ends of a terminal: who looks, and the program.
fn terminal() -> (File, File) {
    let looks = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&looks).unwrap();
    unlockpt(&looks).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&looks, size).unwrap();
    let path = ptsname(&looks, vec![]).unwrap().into_string().unwrap();
    (looks.into(), OpenOptions::new().read(true).write(true).open(path).unwrap())
}

/// With nothing of this machine that colours or does not.
fn rampart(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").envs(environment.iter().copied()).args(arguments).stdin(Stdio::null());
    command
}

fn piped(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    String::from_utf8(rampart(arguments, environment).output().unwrap().stdout).unwrap()
}

/// What is printed on a terminal, without its carriage returns.
fn shown(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let (looks, program) = terminal();
    let mut command = rampart(arguments, environment);
    let mut child = command.stdout(program).stderr(Stdio::null()).spawn().unwrap();
    // It holds the program's end.
    drop(command);
    let told = rest(looks);
    child.wait().unwrap();
    told
}

/// What is still to be read; when nobody holds the other end, reading fails (EIO).
fn rest(mut looks: File) -> String {
    let (mut all, mut some) = (vec![], [0; 4096]);
    while let Ok(read) = looks.read(&mut some) {
        if read == 0 {
            break;
        }
        all.extend(some.iter().take(read));
    }
    String::from_utf8(all).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_colours_and_the_same_text() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.yaml");
    fs::write(&bad, BAD).unwrap();
    let bad = bad.to_str().unwrap();
    let commands: [(&[&str], &str); 3] = [
        (&["check", bad], "\u{1b}[31mdenied\u{1b}[0m"),
        (&["reach", bad, "--from", "192.0.2.1"], "\u{1b}[32mallowed\u{1b}[0m"),
        (&["report", FIXTURE], "\u{1b}[31mnot ready"),
    ];
    for (arguments, colored) in commands {
        let without_times = |text: &str| text.lines().skip(1).map(ToOwned::to_owned).collect::<Vec<_>>();
        let both = || (piped(arguments, &[]), shown(arguments, &[]));
        let (mut piped, mut shown) = both();
        // Times that are told as far or near may differ between two runs, hardly ever: not twice.
        if without_times(&strip_str(&shown).to_string()) != without_times(&piped) {
            (piped, shown) = both();
        }
        assert!(shown.contains(colored), "{arguments:?}: {shown:?}");
        assert!(!piped.is_empty() && !piped.contains('\u{1b}'), "{piped:?}");
        assert_eq!(without_times(&strip_str(&shown).to_string()), without_times(&piped), "{arguments:?}");
    }
}

#[test]
fn who_wants_no_colours_gets_none_and_who_wants_them_does() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.yaml");
    fs::write(&bad, BAD).unwrap();
    let check = ["check", bad.to_str().unwrap()];
    let with = |color: &'static str| [&check[..], &["--color", color]].concat();
    let plain = piped(&check, &[]);
    assert!(plain.contains("denied"), "{plain}");
    let off: [&[(&str, &str)]; 4] = [
        &[("NO_COLOR", "1")],
        &[("CLICOLOR", "0")],
        &[("TERM", "dumb")],
        &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
    ];
    for environment in off {
        assert_eq!(shown(&check, environment), plain, "{environment:?}");
    }
    assert_eq!(shown(&with("never"), &[]), plain);
    assert!(shown(&check, &[("NO_COLOR", "")]).contains('\u{1b}'), "an empty NO_COLOR asks nothing");
    let forced = piped(&check, &[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains('\u{1b}'), "{forced:?}");
    assert_eq!(piped(&with("always"), &[("NO_COLOR", "1")]), forced, "a flag is asked before the environment");
    // Before and behind the command.
    assert_eq!(piped(&[&["--color", "always"], &check[..]].concat(), &[]), forced);
    assert_eq!(rampart(&with("sometimes"), &[]).output().unwrap().status.code(), Some(2), "usage");
    // Neither a file nor what machines read.
    let file = dir.path().join("told");
    piped(&[&with("always")[..], &["--output-file", file.to_str().unwrap()]].concat(), &[]);
    assert_eq!(fs::read_to_string(&file).unwrap(), plain);
    assert!(!piped(&[&with("always")[..], &["-o", "json"]].concat(), &[]).contains('\u{1b}'));
}

/// Long work is one that waits for its input.
#[test]
fn long_work_shows_how_far_it_is_on_a_terminal_and_leaves_nothing() {
    let (looks, program) = terminal();
    let mut command = rampart(&["check", "-"], &[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(program).spawn().unwrap();
    drop(command);
    // A read has no deadline, so that a thread of its own waits in it.
    let (tell, bytes) = mpsc::channel();
    thread::spawn(move || BufReader::new(looks).bytes().map_while(Result::ok).try_for_each(|byte| tell.send(byte)));
    let (mut told, end) = (Vec::<u8>::new(), Instant::now() + Duration::from_mins(1));
    let is_shown = |told: &[u8]| ["judging", "0/1"].iter().all(|it| String::from_utf8_lossy(told).contains(*it));
    while !is_shown(&told) {
        let byte = bytes.recv_timeout(end.saturating_duration_since(Instant::now()));
        assert!(byte.is_ok(), "shown is only {:?}", String::from_utf8_lossy(&told));
        told.extend(byte);
    }
    child.stdin.take().unwrap().write_all(BAD.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    told.extend(bytes);
    let told = String::from_utf8(told).unwrap().replace("\r\n", "\n");
    let last = told.rsplit('\r').next().unwrap();
    assert!(
        last.contains("\u{1b}[2K") && strip_str(last).to_string().trim().is_empty(),
        "the line is cleared: {told:?}"
    );
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.ends_with("0 allowed, 1 denied, 0 without pods\n") && !out.contains('\u{1b}'), "{out:?}");
}
