//! The image's packer, with a stand-in for the program: what is in it, and that it is the same every time.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use rampart_e2e::{
    fixtures,
    image::{Content, Packed, Parts},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn pack(directory: &Path, parts: &Parts) -> Result<Packed> {
    let program = directory.join("program");
    fs::write(&program, "a program")?;
    let license = fixtures::repository().join("LICENSE");
    let content =
        Content { name: "rampart.dev/rampart:1", program: &program, license: &license, parts, epoch: 1_700_000_000 };
    content.pack(directory)
}

/// A blob, which must be what its name says.
fn blob(directory: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = descriptor["digest"].as_str().and_then(|it| it.strip_prefix("sha256:")).context("no digest")?;
    let content = fs::read(directory.join("oci/blobs/sha256").join(digest))?;
    ensure!(hex::encode(Sha256::digest(&content)) == digest, "{digest} is another");
    ensure!(descriptor["size"] == content.len(), "{digest} has another size");
    Ok(content)
}

#[test]
fn the_same_is_packed_into_the_same() -> Result<()> {
    let parts = Parts::of("rampart")?;
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let digests = [pack(one.path(), &parts)?.digest, pack(other.path(), &parts)?.digest];
    ensure!(digests[0] == digests[1], "{digests:?}");
    let archives = [fs::read(one.path().join("image.tar"))?, fs::read(other.path().join("image.tar"))?];
    ensure!(archives[0] == archives[1], "the archives differ");
    Ok(())
}

#[test]
fn a_program_its_licences_and_nothing_else_as_nobody() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let parts = Parts::of("rampart")?;
    let packed = pack(directory.path(), &parts)?;
    let index: Value = serde_json::from_slice(&fs::read(directory.path().join("oci/index.json"))?)?;
    ensure!(index["manifests"][0]["digest"] == packed.digest, "{index}");
    let manifest: Value = serde_json::from_slice(&blob(directory.path(), &index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(&blob(directory.path(), &manifest["config"])?)?;
    ensure!(config["config"]["User"] == "65533:65533", "{config}");
    ensure!(config["config"]["Entrypoint"] == serde_json::json!(["/rampart"]), "{config}");
    ensure!(config["created"] == "2023-11-14T22:13:20Z", "{config}");

    let mut layer = vec![];
    GzDecoder::new(&*blob(directory.path(), &manifest["layers"][0])?).read_to_end(&mut layer)?;
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    ensure!(config["rootfs"]["diff_ids"][0] == diff_id, "{config}");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&*layer).entries()? {
        let mut entry = entry?;
        let header = entry.header();
        ensure!((header.mtime()?, header.uid()?, header.gid()?) == (1_700_000_000, 0, 0), "{header:?}");
        let (path, mode) = (entry.path()?.display().to_string(), header.mode()?);
        let mut content = vec![];
        entry.read_to_end(&mut content)?;
        files.insert(path, (mode, content));
    }
    let modes: Vec<(&str, u32)> = files.iter().map(|(path, (mode, _))| (path.as_str(), *mode)).collect();
    let wanted = [("LICENSE", 0o644), ("THIRD-PARTY-NOTICES.txt", 0o644), ("rampart", 0o755), ("sbom.cdx.json", 0o644)];
    ensure!(modes == wanted, "{modes:?}");

    let sbom: Value = serde_json::from_slice(&files["sbom.cdx.json"].1)?;
    let components = sbom["components"].as_array().context("no components")?;
    let names: Vec<&str> = components.iter().filter_map(|it| it["name"].as_str()).collect();
    // What is linked, not what builds it or tests it.
    ensure!(["kube-client", "ring", "tokio"].iter().all(|it| names.contains(it)), "{names:?}");
    ensure!(!["proptest", "cc", "serde_derive", "insta"].iter().any(|it| names.contains(it)), "{names:?}");
    let notices = String::from_utf8(files["THIRD-PARTY-NOTICES.txt"].1.clone())?;
    for part in components {
        let title =
            format!("{} {}", part["name"].as_str().unwrap_or_default(), part["version"].as_str().unwrap_or_default());
        ensure!(notices.contains(&format!("\n{title}: ")), "no notice of {title}");
    }
    // Where a crate has no text of its own, its expression stands for it; most have.
    ensure!(parts.without_text().len() * 10 < names.len(), "{:?}", parts.without_text());
    Ok(())
}
