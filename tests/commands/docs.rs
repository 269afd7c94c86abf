//! What no reader of `docs/` may stumble over: pages that no list has, links to nothing, tests and samples that are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(path: &Path, end: &str) -> Vec<PathBuf> {
    if path.is_file() {
        return if path.extension().is_some_and(|it| it == end) { vec![path.to_owned()] } else { vec![] };
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.iter().flat_map(|entry| files(entry, end)).collect()
}

/// Every page that people read, with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let places = ["docs", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "charts/rampart/README.md"];
    let all = places.iter().flat_map(|place| files(&root().join(place), "md"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// A page without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    });
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// What a heading can be linked to by, as GitHub and mdBook make it.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// The targets of the links of a page.
fn links(text: &str) -> Vec<String> {
    // Code may look like a link.
    let prose: String = prose(text).split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|after| after.split(')').next().map(ToOwned::to_owned));
    targets.collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_section_that_are_there() {
    let (pages, docs) = (pages(), root().join("docs").canonicalize().unwrap());
    let mut broken = vec![];
    let mut followed = 0;
    for (page, text) in &pages {
        let page = &page.canonicalize().unwrap();
        for link in links(text).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let is_there = target.exists();
            let is_section =
                anchor.is_empty() || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor));
            // The book holds what is in docs/ (`make docs`).
            let leaves_the_book =
                page.starts_with(&docs) && !target.canonicalize().is_ok_and(|it| it.starts_with(&docs));
            if !is_there || !is_section || leaves_the_book {
                broken.push(format!("{}: {link}", page.display()));
            }
            followed += 1;
        }
    }
    assert!(followed > 30 && broken.is_empty(), "of {followed} links:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_summary() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = links(&summary).iter().map(|link| docs.join(link)).collect();
    let there: BTreeSet<PathBuf> =
        files(&docs, "md").into_iter().filter(|path| !path.ends_with("SUMMARY.md")).collect();
    let missing: Vec<_> = there.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "only a page, or only in docs/SUMMARY.md: {missing:?}");
}

/// The names of all tests, with the file or module that they are in: `keys::a_failed_test_hands_nothing_out`.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let places = ["src", "tests", "crates", "e2e/tests"];
    for file in places.iter().flat_map(|place| files(&root().join(place), "rs")) {
        let text = fs::read_to_string(&file).unwrap().replace("test(start_paused = true)]", "test]");
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let module = if ["mod", "main", "tests"].contains(&stem) {
            file.parent().unwrap().file_name().unwrap().to_str().unwrap()
        } else {
            stem
        };
        for after in text.split("test]").skip(1) {
            let name = after.split("fn ").nth(1).and_then(|it| it.split('(').next()).unwrap_or_default();
            names.insert(format!("{module}::{name}"));
        }
        // Those of libtest-mimic say their names themselves.
        let said = text.split('"').filter(|word| word.contains("::") && !word.contains(' '));
        names.extend(said.map(ToOwned::to_owned));
    }
    names
}

/// Words like `keys::a_failed_test_hands_nothing_out` in a page.
fn named(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.split_once("::").is_some_and(|(module, _)| !["", "rampart"].contains(&module))
            && word.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || ['_', ':'].contains(&it))
    };
    text.split('`').filter(is_name).collect()
}

#[test]
fn every_threat_has_a_test_and_every_test_that_a_page_names_is_there() {
    let tests = tests();
    let mut unknown = vec![];
    for (page, text) in pages() {
        let is_there = |name: &&str| {
            tests.contains(*name) || (name.ends_with("::") && tests.iter().any(|it| it.starts_with(*name)))
        };
        unknown.extend(
            named(&text).into_iter().filter(|name| !is_there(name)).map(|name| format!("{}: {name}", page.display())),
        );
    }
    assert!(unknown.is_empty(), "no such test:\n{}", unknown.join("\n"));

    let threats = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let table = threats.split("## Threats").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let without: Vec<_> = rows.iter().filter(|row| named(row).is_empty() && !row.contains("no test")).collect();
    assert!(rows.len() > 15 && without.is_empty(), "threats without a test: {without:#?}");
}

/// A page of a kind shows the sample that `samples::every_sample_and_pack_is_accepted` runs, word by word.
#[test]
fn every_sample_is_shown_by_the_page_of_its_kind() {
    for sample in files(&root().join("manifests/samples"), "yaml") {
        let kind = sample.file_stem().unwrap().to_str().unwrap();
        // What the others need comes first, by a number.
        let kind = kind.trim_start_matches(|it: char| it.is_ascii_digit() || it == '-');
        let page = match kind {
            "namespace" => continue,
            "clusterlegalhold" => "legalhold",
            "imported-apikey" => "apikey",
            other => other,
        };
        let page = fs::read_to_string(root().join(format!("docs/kinds/{page}.md"))).unwrap();
        let text = fs::read_to_string(&sample).unwrap();
        assert!(page.contains(&format!("```yaml\n{text}```")), "docs/kinds shows another {}", sample.display());
    }
}

/// Where conditions, events and findings are told.
const TELLS: [&str; 19] = [
    "policy.rs",
    "api/condition.rs",
    "api/mod.rs",
    "network",
    "keys/report.rs",
    "keys/step.rs",
    "keys/jobs.rs",
    "keys/import.rs",
    "keys/offer.rs",
    "keys/rollout.rs",
    "controllers/policy_exception.rs",
    "controllers/network",
    "controllers/security_policy",
    "controllers/cluster_security_policy",
    "controllers/floor",
    "controllers/legal_hold",
    "controllers/retention_policy",
    "controllers/api_key",
    "controllers/switched_off.rs",
];
/// Words in there that are values of Kubernetes or of our own fields, and nothing that is told.
const VALUES: [&str; 37] = [
    "Always",
    "Antrea",
    "Audit",
    "Calico",
    "Cilium",
    "ClusterSecurityPolicy",
    "Deny",
    "EndpointSlice",
    "False",
    "Hook",
    "Egress",
    "Ingress",
    "KeyRecords",
    "IngressController",
    "LoadBalancer",
    "Local",
    "Monitoring",
    "Namespace",
    "NetworkPolicy",
    "Node",
    "NodePort",
    "OnDelete",
    "Progressing",
    "ProgressDeadlineExceeded",
    "Romana",
    "Secret",
    "Secrets",
    "SecurityPolicy",
    "Service",
    "Succeeded",
    "TCP",
    "Token",
    "TokenText",
    "True",
    "Unknown",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

#[test]
fn every_reason_event_and_finding_is_on_its_page() {
    let page = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap();
    // The reasons of errors stand beside what to do about them.
    let pages = page("reference/conditions.md") + &page("runbooks/alerts.md");
    let told: BTreeSet<&str> = pages.split('`').skip(1).step_by(2).collect();
    let is_name = |word: &&str| {
        word.len() > 1
            && word.starts_with(|it: char| it.is_ascii_uppercase())
            && word.chars().all(char::is_alphanumeric)
    };
    let mut missing = vec![];
    for place in TELLS {
        let all = files(&root().join("src").join(place), "rs");
        for file in all.into_iter().filter(|file| !file.ends_with("tests.rs")) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            for word in lines.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(is_name) {
                if !told.contains(word) && !VALUES.contains(&word) {
                    missing.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/reference/conditions.md does not tell of\n{}", missing.join("\n"));
}
