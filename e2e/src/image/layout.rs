//! An OCI image layout of one layer.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use anyhow::Result;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What was written.
#[derive(Debug)]
pub struct Packed {
    /// Digest of the manifest: `sha256:...`.
    pub digest: String,
    /// What a node downloads, in bytes.
    pub compressed: u64,
}

struct Blobs<'a> {
    directory: &'a Path,
}

impl Blobs<'_> {
    /// Writes a blob; its descriptor.
    fn put(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let hash = hex::encode(Sha256::digest(content));
        fs::write(self.directory.join("blobs/sha256").join(&hash), content)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": content.len()}))
    }
}

/// Writes the layout and its archive: name, mode and content of each file, all of one date and of nobody.
pub(super) fn write(
    directory: &Path,
    name: &str,
    files: &[(&str, u32, Vec<u8>)],
    configuration: &Value,
    epoch: u64,
) -> Result<Packed> {
    let layout = directory.join("oci");
    if layout.exists() {
        fs::remove_dir_all(&layout)?;
    }
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let blobs = Blobs { directory: &layout };

    let mut layer = tar::Builder::new(vec![]);
    for (path, mode, content) in files {
        append(&mut layer, path, *mode, content, epoch)?;
    }
    let layer = layer.into_inner()?;
    // Neither a date nor a name in its header.
    let mut compressed: GzEncoder<Vec<u8>> = GzBuilder::new().write(vec![], Compression::best());
    compressed.write_all(&layer)?;
    let layer_blob = blobs.put(LAYER, &compressed.finish()?)?;

    let mut configuration = configuration.clone();
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    configuration["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id]});
    configuration["history"] = json!([{"created": configuration["created"], "created_by": "rampart image"}]);
    let config_blob = blobs.put(CONFIG, &serde_json::to_vec(&configuration)?)?;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": [layer_blob]});
    let mut manifest_blob = blobs.put(MANIFEST, &serde_json::to_vec(&manifest)?)?;
    let digest = manifest_blob["digest"].as_str().unwrap_or_default().to_owned();
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    manifest_blob["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest_blob]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive(&layout, &directory.join("image.tar"), epoch)?;
    let size = |descriptor: &Value| descriptor["size"].as_u64().unwrap_or_default();
    Ok(Packed { digest, compressed: size(&layer_blob) + size(&config_blob) + size(&manifest_blob) })
}

fn archive(layout: &Path, path: &Path, epoch: u64) -> Result<()> {
    let mut names = vec!["index.json".to_owned(), "oci-layout".to_owned()];
    for blob in fs::read_dir(layout.join("blobs/sha256"))? {
        names.push(format!("blobs/sha256/{}", blob?.file_name().to_string_lossy()));
    }
    names.sort();
    let mut packed = tar::Builder::new(File::create(path)?);
    for name in names {
        append(&mut packed, &name, 0o644, &fs::read(layout.join(&name))?, epoch)?;
    }
    packed.finish()?;
    Ok(())
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, mode: u32, content: &[u8], epoch: u64) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(epoch);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(archive.append_data(&mut header, name, content)?)
}
