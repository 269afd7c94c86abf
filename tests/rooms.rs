//! The house rules that no compiler checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Rooms that decide: pure, total, deterministic.
const DECIDE: [&str; 7] = ["admission", "hardening", "keys", "network", "policy.rs", "report", "retention"];
/// Rooms that touch the world.
const ACT: [&str; 5] = ["cluster", "controllers", "serve", "cli", "runtime"];
/// What only an act room may use.
const WORLD: [&str; 9] =
    ["tokio", "kube::", "hyper", "getrandom", "std::fs", "std::net::Tcp", "std::env", "SystemTime", "Timestamp::now"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

/// Lines of code of a file, without comments and without its tests.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(at, line)| (at + 1, line.to_owned())).collect()
}

#[test]
fn deciding_rooms_import_no_acting_room_and_touch_no_world() {
    let mut broken = vec![];
    for room in DECIDE {
        for file in files(&source().join(room)) {
            for (line, text) in code(&file) {
                let acts = ACT.iter().any(|act| text.contains(&format!("{act}::")));
                let touches = WORLD.iter().any(|word| text.contains(word));
                if acts || touches {
                    broken.push(format!("{}:{line}: {text}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn wire_types_know_no_other_room() {
    let rooms = DECIDE.iter().chain(&ACT).map(|room| room.trim_end_matches(".rs"));
    let imports: Vec<String> = rooms.map(|room| format!("crate::{room}")).collect();
    let mut broken = vec![];
    for file in files(&source().join("api")) {
        let text = code(&file).into_iter().filter(|(_, text)| imports.iter().any(|import| text.contains(import)));
        broken.extend(text.map(|(line, text)| format!("{}:{line}: {text}", file.display())));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_is_on_one_side() {
    let mut unknown = vec![];
    for entry in fs::read_dir(source()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = DECIDE.contains(&name.as_str()) || ACT.contains(&name.as_str());
        if !known && !["api", "lib.rs", "main.rs"].contains(&name.as_str()) {
            unknown.push(name);
        }
    }
    assert!(unknown.is_empty(), "neither a deciding nor an acting room: {unknown:?}");
}

#[test]
fn files_stay_readable() {
    for file in files(&source()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 420, "{} has {lines} lines: split it", file.display());
    }
}

#[test]
fn the_engines_have_no_kube_in_their_tree() {
    for engine in ["rampart-pss", "rampart-reach"] {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--package", engine, "--edges", "normal", "--prefix", "none", "--offline"])
            .output()
            .unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        assert!(tree.contains(engine), "{tree}");
        let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(!names.iter().any(|name| name.starts_with("kube") || *name == "k8s-openapi"), "{engine}: {names:?}");
    }
}

/// What `cargo tree` says of some packages and edges: each crate with its features, dependencies of any depth.
fn features(args: &[&str]) -> BTreeSet<String> {
    let common = ["tree", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{p} {f}"];
    let tree = Command::new(env!("CARGO")).args(common).args(args).output().unwrap();
    let lines: BTreeSet<String> = String::from_utf8(tree.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{}", String::from_utf8_lossy(&tree.stderr));
    lines
}

/// Where they differ, `cargo test` after `cargo build` compiles most of the tree again.
#[test]
fn dependencies_have_one_set_of_features() {
    let tested = features(&["--workspace", "--edges", "normal,build,dev"]);
    for args in [
        ["--workspace", "--edges", "normal,build"].as_slice(),
        &["--package", "rampart-e2e", "--edges", "normal,build,dev"],
        &["--package", "rampart-static", "--edges", "normal,build"],
    ] {
        let others: Vec<String> = features(args).difference(&tested).cloned().collect();
        assert!(others.is_empty(), "with other features in `cargo tree {}`: {others:#?}", args.join(" "));
    }
}

#[test]
fn generated_files_are_up_to_date() {
    let checked = Command::new(env!("CARGO_BIN_EXE_rampart"))
        .args(["generate", env!("CARGO_MANIFEST_DIR"), "--check"])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
