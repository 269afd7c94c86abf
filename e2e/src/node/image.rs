//! The only image of the node, packed as `docker save` does: one static program, no registry.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Its name; sandboxes use it, too.
pub const NAME: &str = "localhost/rampart-e2e-agent:0";

/// Packs a program into an image archive.
///
/// # Errors
/// When a file can't be read or written.
pub(super) fn pack(program: &Path, archive: &Path) -> Result<()> {
    let program = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let mut layer = tar::Builder::new(vec![]);
    append(&mut layer, "agent", &program)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Entrypoint": ["/agent"], "Cmd": ["pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    let file = File::create(archive).with_context(|| format!("creating {}", archive.display()))?;
    let mut packed = tar::Builder::new(file);
    append(&mut packed, "manifest.json", manifest.to_string().as_bytes())?;
    append(&mut packed, "config.json", config.to_string().as_bytes())?;
    append(&mut packed, "layer.tar", &layer)?;
    packed.finish()?;
    Ok(())
}

fn append<W: std::io::Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    Ok(archive.append_data(&mut header, name, content)?)
}
