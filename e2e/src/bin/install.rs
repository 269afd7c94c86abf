//! Renders `manifests/install.yaml` from the chart.

use anyhow::Result;
use rampart_e2e::{chart::Helm, fixtures};

fn main() -> Result<()> {
    std::fs::write(fixtures::repository().join("manifests/install.yaml"), Helm::new()?.install_yaml()?)?;
    Ok(())
}
