//! Packs the image: `image PROGRAM DIRECTORY SECONDS`, of which the last, since 1970, is the date of everything in it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{
    fixtures,
    image::{Content, Parts},
};

/// What a node may have to download.
const LIMIT: u64 = 25_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, directory, epoch] = &*arguments else { anyhow::bail!("image PROGRAM DIRECTORY SECONDS") };
    let name = std::env::var("IMAGE")
        .unwrap_or_else(|_| concat!("rampart.dev/rampart:", env!("CARGO_PKG_VERSION")).to_owned());
    let parts = Parts::of("rampart")?;
    let content = Content {
        name: &name,
        program: Path::new(program),
        license: &fixtures::repository().join("LICENSE"),
        parts: &parts,
        epoch: epoch.parse().context("SECONDS is no number")?,
    };
    let packed = content.pack(Path::new(directory))?;
    println!("{name} {} {} bytes, compressed", packed.digest, packed.compressed);
    let without = parts.without_text();
    if !without.is_empty() {
        println!("without a licence text of their own: {}", without.join(", "));
    }
    ensure!(packed.compressed <= LIMIT, "more than {LIMIT} bytes");
    Ok(())
}
