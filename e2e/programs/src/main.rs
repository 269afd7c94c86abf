//! Builds every program that the tests need, in the order in which they come to need them, so that none waits for it:
//! `programs`; `programs node` has those of the real node too.

use anyhow::Result;
use rampart_programs::{
    binaries::{self, DEFAULT_KUBERNETES},
    judges,
};

fn main() -> Result<()> {
    binaries::ensure_helm()?;
    binaries::ensure(DEFAULT_KUBERNETES)?;
    binaries::ensure_kubeconform()?;
    for judge in [judges::pss, judges::network, judges::live, judges::flux, judges::argocd] {
        judge()?;
    }
    if std::env::args().nth(1).as_deref() == Some("node") {
        binaries::ensure_node(DEFAULT_KUBERNETES)?;
        binaries::ensure_kubectl()?;
    }
    Ok(())
}
