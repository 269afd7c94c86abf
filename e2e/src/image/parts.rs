//! The crates that a program is made of: their licences, and the bill of materials.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// Files of a crate that are its licence, by how their names begin.
const LICENSES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// What a program is made of.
pub struct Parts {
    crates: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: String,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Part>,
}

impl Parts {
    /// Those of a package of the workspace, for this machine's target: what is linked, not what builds it.
    ///
    /// # Errors
    /// When cargo can't tell.
    pub fn of(package: &str) -> Result<Self> {
        let tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
        let linked = cargo(&[&tree[..], &["--package", package]].concat())?;
        let linked: BTreeSet<(&str, &str)> = linked
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.next()?.strip_prefix('v')?))
            })
            .collect();
        let metadata = cargo(&["metadata", "--locked", "--format-version", "1"])?;
        let mut crates = serde_json::from_str::<Metadata>(&metadata)?.packages;
        crates.retain(|part| part.source.is_some() && linked.contains(&(part.name.as_str(), part.version.as_str())));
        crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        ensure!(!crates.is_empty(), "cargo tree names no crate of {package}");
        Ok(Self { crates })
    }

    /// Their licences and notices, each text once.
    #[must_use]
    pub fn notices(&self) -> String {
        let mut texts = BTreeMap::<String, Vec<String>>::new();
        let mut all = String::from("Rampart is made of these crates, under these licences.\n\n");
        for part in &self.crates {
            let (name, license) = (part.title(), part.license.as_deref().unwrap_or("see its files"));
            let from = part.repository.as_deref().unwrap_or("https://crates.io");
            let _ = writeln!(all, "{name}: {license} ({from})");
            for text in part.texts() {
                texts.entry(text).or_default().push(name.clone());
            }
        }
        let mut texts: Vec<(Vec<String>, String)> = texts.into_iter().map(|(text, of)| (of, text)).collect();
        texts.sort();
        for (of, text) in texts {
            let _ = write!(all, "\n{}\nOf {}:\n\n{}\n", "-".repeat(80), of.join(", "), text.trim_end());
        }
        all
    }

    /// The bill of materials (CycloneDX 1.5).
    #[must_use]
    pub fn sbom(&self) -> Value {
        let component = |part: &Part| {
            let reference = format!("pkg:cargo/{}@{}", part.name, part.version);
            let mut component = json!({
                "type": "library", "bom-ref": reference, "name": part.name, "version": part.version, "purl": reference,
            });
            if let Some(license) = &part.license {
                // An old form of "or" that SPDX does not know.
                component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
            }
            component
        };
        let own = format!("pkg:cargo/rampart@{}", env!("CARGO_PKG_VERSION"));
        let references: Vec<String> =
            self.crates.iter().map(|part| format!("pkg:cargo/{}@{}", part.name, part.version)).collect();
        json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": {
                "type": "application", "bom-ref": own, "name": "rampart", "version": env!("CARGO_PKG_VERSION"),
                "purl": own, "licenses": [{"license": {"id": "Apache-2.0"}}],
            }},
            "components": self.crates.iter().map(component).collect::<Vec<_>>(),
            "dependencies": [{"ref": own, "dependsOn": references}],
        })
    }

    /// Crates in which no licence text lies, of which the expression is all there is.
    #[must_use]
    pub fn without_text(&self) -> Vec<String> {
        self.crates.iter().filter(|part| part.texts().is_empty()).map(Part::title).collect()
    }
}

impl Part {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn texts(&self) -> BTreeSet<String> {
        let Some(directory) = Path::new(&self.manifest_path).parent() else { return BTreeSet::new() };
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let is_license = |name: &str| LICENSES.iter().any(|begin| name.to_ascii_uppercase().starts_with(begin));
        files
            .filter(|file| is_license(&file.file_name().to_string_lossy()))
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .map(|text| text.replace("\r\n", "\n").trim().to_owned())
            .collect()
    }
}

fn cargo(args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).current_dir(crate::fixtures::repository()).args(args).output();
    let output = output.context("running cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
