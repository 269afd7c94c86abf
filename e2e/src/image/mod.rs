//! The image: one static program in an otherwise empty file system, with the licences of what it is made of, as an OCI
//! image layout. No daemon, no base, no clock: the same program makes the same digest.

mod layout;
mod parts;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub use layout::Packed;
pub use parts::Parts;

/// Who it runs as: nobody that a node knows.
const USER: &str = "65533:65533";

/// What is put into it.
pub struct Content<'a> {
    /// Name and tag.
    pub name: &'a str,
    /// The program.
    pub program: &'a Path,
    /// The licence of the project.
    pub license: &'a Path,
    /// What the program is made of.
    pub parts: &'a Parts,
    /// Seconds since 1970 that every file bears (`SOURCE_DATE_EPOCH`, reproducible-builds.org).
    pub epoch: u64,
}

impl Content<'_> {
    /// Packs it into a directory: `oci/`, a layout (OCI image-spec 1.1), and `image.tar`, the same in one file, as
    /// `ctr images import` and `skopeo` take it.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub fn pack(&self, directory: &Path) -> Result<Packed> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        let files = [
            ("LICENSE", 0o644, read(self.license)?),
            ("THIRD-PARTY-NOTICES.txt", 0o644, self.parts.notices().into_bytes()),
            ("rampart", 0o755, read(self.program)?),
            ("sbom.cdx.json", 0o644, serde_json::to_vec_pretty(&self.parts.sbom())?),
        ];
        layout::write(directory, self.name, &files, &self.configuration()?, self.epoch)
    }

    /// The configuration (image-spec, `config.md`), but for what depends on the layer.
    fn configuration(&self) -> Result<Value> {
        let created = jiff::Timestamp::from_second(i64::try_from(self.epoch)?)?.to_string();
        Ok(json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "created": created,
            "config": {
                "User": USER,
                "Entrypoint": ["/rampart"],
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.title": "rampart",
                    "org.opencontainers.image.description": "Keeps a Kubernetes cluster's security policy true",
                    "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                    "org.opencontainers.image.licenses": "Apache-2.0",
                    "org.opencontainers.image.created": created,
                },
            },
        }))
    }
}
